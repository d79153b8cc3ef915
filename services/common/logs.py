"""structlog, set up once a process: one JSON object a line on standard error."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO, cast

import msgspec

from services.common.scrub import scrub


@contextlib.contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Have imports of these modules fail meanwhile, where they are not loaded already."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent, cast(Any, None)))
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


# It loads them where they are installed, for a console that no service has: 60 modules, 5 MB and 70 ms of each process.
with _absent("rich", "better_exceptions"):
    import structlog

_ENCODER = msgspec.json.Encoder(enc_hook=lambda value: scrub(repr(value)))


_PLAIN = frozenset((int, float, bool, type(None)))


class _Lossy:
    """Standard error for lines that may be lost: where the disk of the log is full, the work goes on."""

    def __init__(self) -> None:
        self._file = sys.stderr.fileno()

    def write(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._file, line)

    def flush(self) -> None:
        pass


def _encode(event: Any, **_: Any) -> bytes:
    return _ENCODER.encode(event)


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub(str(name)): _scrubbed(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_scrubbed(each) for each in value]
    return value


def _without_secrets(_: Any, __: str, event: Any) -> Any:
    """Take secrets out of every value of a line, tracebacks included."""
    for name, value in event.items():
        kind = type(value)
        if kind is str:
            event[name] = scrub(value)
        elif kind not in _PLAIN:
            event[name] = _scrubbed(value)
    return event


class _Formatter(logging.Formatter):
    """Other libraries' lines, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the traceback that belongs to it."""
        return scrub(super().format(record))


def _now() -> str:
    """Return the time as lines have it."""
    second, micro = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second(second)}.{micro:06d}Z"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _quick(process: str, number: int) -> type[Any]:
    """Return structlog's logger, with a way of its own for lines of level `info`: each call has one.

    It writes what the processors would, in a quarter of the time.
    """
    base: type[Any] = structlog.make_filtering_bound_logger(number)
    if number > logging.INFO:
        return base

    class Quick(base):  # type: ignore[misc]  # made by structlog at run time
        def info(self, event: str, **fields: Any) -> None:
            if "exc_info" in fields:
                super().info(event, **fields)
                return
            line = _without_secrets(None, "", {**self._context, **fields, "event": event})
            line["process"] = process
            line["level"] = "info"
            line["timestamp"] = _now()
            self._logger.msg(_ENCODER.encode(line))

    return Quick


def configure(process: str, level: str) -> None:
    """Send structured logs of `process` at `level` and above to standard error, other libraries' warnings too.

    A process that its own fault ends by a signal (11, 6, 7, 8, 4) writes there first where each of its threads was.
    """
    faulthandler.enable()
    number = getattr(logging, level.upper())

    def named(_: Any, __: str, event: Any) -> Any:
        event["process"] = process
        return event

    structlog.configure(
        processors=[
            structlog.processors.format_exc_info,
            _without_secrets,
            # These hold none. A time is new in every line: to look through it would take a third of what a line takes.
            named,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
        wrapper_class=_quick(process, number),
        logger_factory=structlog.BytesLoggerFactory(cast(BinaryIO, _Lossy())),
        cache_logger_on_first_use=True,
    )
    others = logging.StreamHandler(sys.stderr)
    others.setFormatter(_Formatter("%(name)s: %(message)s"))
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[others])


def get(name: str) -> Any:
    """Return a logger. Event names are constant `noun.past_tense`; values are fields. Never prompts, never keys."""
    return structlog.get_logger(source=name)
