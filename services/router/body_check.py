"""Tell the edge, from a request's headers, whether its body may be read: Envoy's external authorisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc

from moa.router.v1 import gate_pb2
from services.common import byok, errors
from services.common.byte_admission import ByteAdmission
from services.common.rpc import status
from services.common.rpc.keys import key_of
from services.router.refusals import Verifier

SERVICE: Final = "envoy.service.auth.v3.Authorization"
"""The name that Envoy calls. No caller reaches it: the edge has no route to it."""
_REQUEST_ID: Final = "x-request-id"
"""A question that names its request asks for room too."""
SENT_BYTES: Final = 256 * 2**10
"""A body of so many bytes fits into the buffers between: its sender reads an answer that comes at once. The edge may
have all of a smaller one before it is answered, but not of a larger."""
DROPPED_BYTES: Final = 8 * 2**20
"""A stranger's body of so many bytes is let come, and not kept. Over HTTP/1.1 many clients read no answer before they
have sent theirs, and would see a broken connection."""


class BodyCheck:
    """Answers Envoy's question who sends a body.

    It keeps strangers from having bodies held; what a key may do, the operation finds out.

    Args:
        admission: Who verifies keys.
        room: Where room is kept for large bodies that the edge asks it for, by the requests' ids; None: nowhere.
        takes_key: Tells whether a key is a provider's, which callers may bring; None: they may bring none.
    """

    def __init__(
        self,
        admission: Verifier,
        *,
        room: ByteAdmission | None = None,
        takes_key: Callable[[str], bool] | None = None,
    ) -> None:
        self._admission = admission
        self._room = room
        self._takes_key = takes_key

    async def check(self, request: gate_pb2.CheckRequest, context: Any) -> gate_pb2.CheckResponse:
        """Return whether the body may be read, or is dropped as it comes."""
        if request.attributes.request.http.headers.get(_REQUEST_ID):
            return await self._booked(request.attributes.request.http.headers)
        answer = gate_pb2.CheckResponse(status=gate_pb2.CheckResponse.Verdict(code=0))
        try:
            key = key_of(request.attributes.request.http.headers.items())
            if self._takes_key is not None and self._takes_key(key):
                return answer
            await self._admission.identify(key)
        except errors.Unauthenticated as stranger:
            http = request.attributes.request.http
            declared = http.headers.get("content-length", "")
            moderate = declared.isdecimal() and len(declared) < 12 and SENT_BYTES < int(declared) <= DROPPED_BYTES
            if not http.protocol.startswith("HTTP/1") or not moderate:
                return _denied(stranger)
            answer.dynamic_metadata.fields["refused"].string_value = stranger.message
            return answer
        except errors.MoaError:
            return answer  # Who asks cannot be told now; the operation says so in its own words.
        answer.dynamic_metadata.fields["known"].bool_value = True
        return answer

    async def _booked(self, headers: Mapping[str, str]) -> gate_pb2.CheckResponse:
        """Return, once there is room for a request that its caller has yet to send, that it may be read."""
        answer = gate_pb2.CheckResponse(status=gate_pb2.CheckResponse.Verdict(code=0))
        if self._room is None:
            return answer
        try:
            key = key_of(headers.items())
            if self._takes_key is not None and self._takes_key(key):
                account = byok.ACCOUNT_ID
            else:
                account = (await self._admission.identify(key)).account_id
        except errors.MoaError:
            return answer  # The operation says so in its own words.
        try:
            await self._room.book(account, int(headers["content-length"]), headers[_REQUEST_ID])
        except errors.MoaError as busy:
            return _denied(busy)
        return answer

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what serves the question."""
        method = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=gate_pb2.CheckRequest.FromString,
            response_serializer=gate_pb2.CheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Check": method})


def _denied(error: errors.MoaError) -> gate_pb2.CheckResponse:
    """Refuse in the words that a service's own refusal has, which the edge puts into the caller's dialect."""
    message = gate_pb2.CheckResponse
    headers = {status.REASON_KEY: errors.word(error.reason), "grpc-message": error.message}
    if error.retry_after_s is not None:
        headers["retry-after"] = f"{error.retry_after_s:.0f}"
    denied = message.Denied(
        status=message.HttpStatus(code=errors.HTTP_STATUS[error.reason]),
        headers=[message.Header(header=message.Pair(key=key, value=value)) for key, value in headers.items()],
        body=error.message,
    )
    return message(status=message.Verdict(code=status.CODE[error.reason].value[0]), denied_response=denied)
