"""structlog, set up once a process: one JSON object a line on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec
import structlog

_ENCODER = msgspec.json.Encoder(enc_hook=repr)


def _encode(event: Any, **_: Any) -> bytes:
    return _ENCODER.encode(event)


def configure(process: str, level: str) -> None:
    """Send structured logs of `process` at `level` and above to standard error, other libraries' warnings too."""
    number = getattr(logging, level.upper())

    def named(_: Any, __: str, event: Any) -> Any:
        event["process"] = process
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            named,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr, format="%(name)s: %(message)s")


def get(name: str) -> Any:
    """Give a logger. Event names are constant `noun.past_tense`; values are fields. Never prompts, never keys."""
    return structlog.get_logger(source=name)
