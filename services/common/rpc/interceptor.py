"""The interceptor that every server has: credential, errors to statuses, one log line and metrics a call."""

from __future__ import annotations

import asyncio
import hmac
import time
import traceback
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from typing import Any, Final

import grpc

from services.common import errors, logs, tracing
from services.common.byte_admission import ByteAdmission
from services.common.credential import Credential, RotatedCredential
from services.common.helper_process import HelperProcess
from services.common.metrics import CALLERS_REFUSED, RPC_DURATION, RPC_ENDED, RPC_REFUSED, RUNNING
from services.common.rpc import call as calls
from services.common.rpc import status
from services.common.rpc.receiving import Handler, Receive, Receiving, Welcome

_log = logs.get("rpc")

Reword = Callable[[Any, str, errors.MoaError], Awaitable[errors.MoaError]]
"""Gives the error that a caller is told instead, from the RPC's context, the full method and what was raised."""

Around = Callable[[str, Handler, bool], Handler]
"""Gives what serves a method in its handler's place, from the full method, the handler, and whether it returns its one
message rather than write some. The request has been read."""

_SENT: Final = ContextVar[calls.Metadata | None]("moa_sent", default=None)
"""What was sent beside the request that is about to be served, as gRPC has read it."""

_BARE_PREFIXES = ("/grpc.health.v1.Health/", "/grpc.reflection.", "/moa.session.")
"""Whoever may ask for health, and what services there are; sessions see to it themselves who calls."""


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server.

    Args:
        service_token: The credential that internal callers must send; None on a server that callers reach with
            keys of their own.
        callers: The names of which callers' certificates must be for one; None where TLS is off.
        reword: What a refusal becomes before it is told; None tells it as it was raised.
        welcome, admission, helper: As `Receiving`'s.
        around: What serves methods in their handlers' place; None: the handlers.
    """

    def __init__(
        self,
        *,
        service_token: Credential | None,
        callers: Collection[bytes] | None = None,
        reword: Reword | None = None,
        welcome: Welcome | None = None,
        admission: ByteAdmission | None = None,
        helper: HelperProcess | None = None,
        around: Around | None = None,
    ) -> None:
        self._token = service_token.encode() if isinstance(service_token, str) else service_token
        self._callers = callers
        self._reword = reword
        self._around = around
        self._wrapped: dict[str, Any] = {}
        self._receiving = Receiving(public=service_token is None, welcome=welcome, admission=admission, helper=helper)

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """Return the method's handler, wrapped: once a method, not once a call."""
        _SENT.set(details.invocation_metadata)
        wrapped = self._wrapped.get(details.method)
        if wrapped is None:
            handler = await continuation(details)
            if handler is None or details.method.startswith(_BARE_PREFIXES):
                return handler
            wrapped = self._wrapped[details.method] = self._wrap(handler, details.method)
        return wrapped

    def _wrap(self, handler: Any, method: str) -> Any:
        """Return a method's handler with all that an interceptor does around it."""
        served = _Served(method)

        def around(inner: Handler, receive: Receive | None) -> Handler:
            async def serve(request: Any, context: Any) -> Any:
                # To read them of the context makes all of them anew.
                sent = _SENT.get() or context.invocation_metadata() or ()
                _SENT.set(None)
                metadata = dict(sent)
                call, span = served.begin(metadata)
                call.metadata = sent
                started = time.perf_counter()
                code = "OK"
                try:
                    if why := self.refusal(context, metadata):
                        code = "UNAUTHENTICATED"
                        await context.abort(grpc.StatusCode.UNAUTHENTICATED, why)
                    if self._token is not None and call.account:
                        call.fields["account"] = call.account
                    if receive is None:
                        return await inner(request, context)
                    try:
                        # Its handler alone holds it.
                        return await inner((await receive(call, context)).pop(), context)
                    finally:
                        if call.room is not None:
                            await call.let_go()
                except asyncio.CancelledError as left:
                    code = "CANCELLED"
                    _forget(left)
                    raise
                except grpc.aio.AbortError:
                    raise
                except Exception as failure:
                    error = await self._error_of(failure, context, method, call)
                    code = status.CODE[error.reason].name
                    request = None
                    await _abort(context, error, call)
                finally:
                    request = None
                    served.end(call, code, time.perf_counter() - started, span)

            return serve

        if self._around is not None:
            handler = _surrounded(handler, method, self._around)
        return _rewrapped(handler, around, self._receiving, method)

    def refusal(self, context: Any, metadata: dict[str, Any]) -> str:
        """Return why a caller may not call, by its certificate and credential; empty: it may."""
        if self._callers is not None and not _is_one_of(self._callers, context):
            _tell_refused("certificate", context)
            return "not a service that may call this one"
        if self._token is not None and not self._allows(self._token, metadata):
            _tell_refused("credential", context)
            return "not a service of this gateway"
        return ""

    async def _error_of(self, failure: Exception, context: Any, method: str, call: calls.Call) -> errors.MoaError:
        """Return what a caller is told of a failure; one that nobody foresaw is logged whole."""
        if isinstance(failure, errors.MoaError):
            _forget(failure)
            error = failure if self._reword is None else await self._reword(context, method, failure)
        elif isinstance(failure, grpc.aio.AioRpcError):
            # A call to another service failed and nobody translated it.
            error = status.error_from_rpc(failure)
        else:
            _log.error("rpc.failed", method=method, request_id=call.request_id, exc_info=failure)
            error = errors.Internal(f"internal error (request {call.request_id})")
        _forget(failure)
        _forget(error)
        return error

    @staticmethod
    def _allows(token: bytes | RotatedCredential, metadata: dict[str, str | bytes]) -> bool:
        """Return whether the caller is a service, by the credential of one."""
        given = str(metadata.get(calls.SERVICE_KEY, ""))
        return hmac.compare_digest(given.encode(), token) if isinstance(token, bytes) else token.accepts(given)


def _is_one_of(callers: Collection[bytes], context: Any) -> bool:
    """Return whether the caller's certificate, which the handshake verified, is for one of some names."""
    return any(name in callers for name in _names_of(context))


def _names_of(context: Any) -> Collection[bytes]:
    """Return the names that the caller's certificate is for; none without TLS."""
    names: Collection[bytes] = context.auth_context().get("x509_subject_alternative_name", ())
    return names


def _tell_refused(why: str, context: Any) -> None:
    CALLERS_REFUSED.labels(why).inc()
    shown = [name.decode("utf-8", "replace")[:256] for name in list(_names_of(context))[:8]]
    _log.warning("caller.refused", why=why, names=shown)


class _Served:
    """A method's calls: what is known when one begins, and what is logged and counted when it ends."""

    __slots__ = ("_duration", "_ended_well", "_method")

    def __init__(self, method: str) -> None:
        self._method = method
        self._ended_well = RPC_ENDED.labels(method, "OK")
        self._duration = RPC_DURATION.labels(method)

    def begin(self, metadata: dict[str, Any]) -> tuple[calls.Call, tracing.Span | None]:
        request_id = str(metadata.get(calls.REQUEST_ID_KEY, ""))
        call = calls.begin(self._method, request_id, calls.address_in(metadata))
        call.account = str(metadata.get(calls.ACCOUNT_KEY, ""))
        if (size := metadata.get(calls.BODY_BYTES_KEY)) is not None:
            call.body_bytes = _count(size)
        RUNNING.count += 1
        return call, tracing.serving(self._method, metadata)

    def end(self, call: calls.Call, code: str, taken: float, span: tracing.Span | None) -> None:
        RUNNING.count -= 1
        (self._ended_well if code == "OK" else RPC_ENDED.labels(self._method, code)).inc()
        self._duration.observe(taken)
        _log.info(
            "rpc.finished",
            method=self._method,
            code=code,
            duration_ms=round(taken * 1000, 2),
            request_id=call.request_id,
            **({} if span is None else {"trace_id": span.trace_id}),
            **call.fields,
        )
        if span is not None:
            _close(span, call, code)


def _count(text: str | bytes) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 12 else 0


def _forget(error: BaseException) -> None:
    """Let go of what the frames hold that an error came through: the request and all that was made of it.

    An error that is told lives on in cycles of the RPC's context, which the collector comes to much later.
    """
    known: set[int] = set()
    other: BaseException | None = error
    while other is not None and id(other) not in known:
        known.add(id(other))
        traceback.clear_frames(other.__traceback__)
        other.__traceback__ = None
        other = other.__cause__ or other.__context__


def _close(span: tracing.Span, call: calls.Call, code: str) -> None:
    """End a call's span with what its log line tells, no more: neither of the two ever holds a prompt or a key."""
    attributes = {f"moa.{name}": value for name, value in call.fields.items()}
    span.note({"moa.request_id": call.request_id, **attributes})
    span.answered(code)


async def _abort(context: Any, error: errors.MoaError, call: calls.Call) -> None:
    reason = errors.word(error.reason)
    call.fields["reason"] = reason
    RPC_REFUSED.labels(call.method, reason).inc()
    await context.abort(status.CODE[error.reason], error.message, status.trailers_of(error, call.request_id))


def _surrounded(handler: Any, method: str, around: Around) -> Any:
    """Return a method's handler with `around` in its place; those of requests that are streams stay as they are."""
    codec = {"request_deserializer": handler.request_deserializer, "response_serializer": handler.response_serializer}
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(around(method, handler.unary_unary, True), **codec)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(around(method, handler.unary_stream, False), **codec)
    return handler


def _rewrapped(
    handler: Any, wrap: Callable[[Handler, Receive | None], Handler], receiving: Receiving, method: str
) -> Any:
    """Return a handler around the wrapped function that receives its request itself.

    So what is wrong with it can be told, too: grpc.aio's own reader tells the caller the names of our classes. Streams
    are written with `context.write`.
    """
    given, shape = handler.request_deserializer, {"response_serializer": handler.response_serializer}
    if handler.unary_unary:
        inner = wrap(handler.unary_unary, receiving.of(given, method))
        return grpc.stream_unary_rpc_method_handler(inner, **shape)
    if handler.unary_stream:
        inner = wrap(handler.unary_stream, receiving.of(given, method))
        return grpc.stream_stream_rpc_method_handler(inner, **shape)
    shape["request_deserializer"] = given
    if handler.stream_unary:
        return grpc.stream_unary_rpc_method_handler(wrap(handler.stream_unary, None), **shape)
    return grpc.stream_stream_rpc_method_handler(wrap(handler.stream_stream, None), **shape)
