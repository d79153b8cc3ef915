"""Traces by OpenTelemetry, from the edge through every process to the providers. Off unless a collector is named.

While they are off nothing of OpenTelemetry is imported, there are no spans (every function here gives None or nothing),
and a call costs a look at one variable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from services.common import otlp

if TYPE_CHECKING:  # imported where traces are on alone: it costs each process memory and a moment
    from services.common.tracing.recorder import Recorder
    from services.common.tracing.recorder import Span as Span

    Value = str | bool | int | float | tuple[str, ...]

PARENT: Final = "traceparent"
"""The metadata and header that names a caller's span (w3.org/TR/trace-context); `tracestate` goes with it."""

_recorder: Recorder | None = None
_CURRENT: ContextVar[Span | None] = ContextVar("moa_span", default=None)


def configure(process: str) -> None:
    """Begin to trace this process, if the environment names a collector. Raises SystemExit for a bad variable."""
    global _recorder
    try:
        collector = otlp.read(os.environ)
    except otlp.BadTracing as error:
        raise SystemExit(str(error)) from None
    if collector is not None:
        from services.common.tracing.recorder import Recorder

        _recorder = Recorder(process, collector)


def is_on() -> bool:
    """Return whether anything is traced, where that saves work."""
    return _recorder is not None


def shutdown() -> None:
    """Send what is not sent yet, within moments. Blocks; a collector that is away is not waited for."""
    if _recorder is not None:
        _recorder.close()


def serving(method: str, metadata: Mapping[str, str | bytes]) -> Span | None:
    """Begin the span of a call that this process answers, if its caller's is recorded.

    Spans that are begun in this task from here on are its children.
    """
    if _recorder is None:
        return None
    span = _recorder.serving(method, metadata)
    _CURRENT.set(span)
    return span


def working(name: str, parent: str) -> Span | None:
    """Begin the span of work that an earlier call has left behind, by that call's `traceparent`.

    It is a child of that call's, however long ago that was, and becomes the current one, as by `serving`.
    """
    if _recorder is None:
        return None
    span = _recorder.working(name, parent)
    _CURRENT.set(span)
    return span


def calling(name: str, attributes: Mapping[str, Value]) -> Span | None:
    """Begin the span of a call to somebody else, within the current one; whoever calls this ends it."""
    return _child(name, attributes, calls=True)


def _child(name: str, attributes: Mapping[str, Value], *, calls: bool) -> Span | None:
    if _recorder is None:
        return None
    current = _CURRENT.get()
    return None if current is None else _recorder.child(name, current, attributes, calls=calls)


class Stages:
    """The stages of this process's own work on a call, one after another, each a span within the call's."""

    __slots__ = ("_name", "_span")

    def __init__(self) -> None:
        self._name = ""
        self._span: Span | None = None

    def begin(self, name: str) -> None:
        """End the stage before, and begin this one; nothing where it is running."""
        if name != self._name:
            self.end()
            self._name, self._span = name, _child(name, {}, calls=False)

    def end(self) -> None:
        """End the stage that is running, if there is one."""
        if self._span is not None:
            self._span.end()
            self._span = None


def outgoing(span: Span | None = None) -> tuple[tuple[str, str], ...]:
    """Return the metadata by which another process continues the trace: within `span`, else within the current one."""
    if _recorder is None:
        return ()
    inner = span or _CURRENT.get()
    return () if inner is None else inner.headers


def parent() -> str:
    """Return the current span's `traceparent`, for work that is done later; empty where there is none."""
    result = outgoing()
    return result[0][1] if result else ""
