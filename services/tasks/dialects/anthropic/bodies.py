"""The body that creates a batch, read. Source: Anthropic's API reference, "Create a Message Batch"."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from services.common.body import parse
from services.common.errors import InvalidField
from services.tasks.domain.batch import MOST_REQUESTS


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """One request: what its caller calls it, and the body that `POST /v1/messages` would take."""

    custom_id: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    params: dict[str, Any]


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body."""

    requests: Annotated[list[BatchRequest], msgspec.Meta(min_length=1, max_length=MOST_REQUESTS)]


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    custom_id: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    params: msgspec.Raw


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    requests: Annotated[list[_Request], msgspec.Meta(min_length=1, max_length=MOST_REQUESTS)]


class _Params(msgspec.Struct):
    stream: Any = None


_DECODER: Final = msgspec.json.Decoder(_Body)
_PARAMS: Final = msgspec.json.Decoder(_Params)


def read(data: bytes) -> list[tuple[str, bytes]]:
    """Return each request's id and body, as they came. Raises Malformed or InvalidField.

    What else is wrong in a request is that request's own result, as with Anthropic.
    """
    body = parse(bytes(data), _DECODER)
    seen: set[str] = set()
    results: list[tuple[str, bytes]] = []
    for index, request in enumerate(body.requests):
        where = f"requests.{index}"
        if request.custom_id in seen:
            raise InvalidField(f"{where}.custom_id: two requests have it", param=f"{where}.custom_id")
        seen.add(request.custom_id)
        params = bytes(request.params)
        try:
            streams = bool(_PARAMS.decode(params).stream)
        except (msgspec.MsgspecError, RecursionError):
            raise InvalidField(f"{where}.params: an object is expected", param=f"{where}.params") from None
        if streams:
            raise InvalidField(f"{where}.params.stream: results are not streamed", param=f"{where}.params.stream")
        results.append((request.custom_id, params))
    return results
