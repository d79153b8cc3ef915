"""Read bodies: small ones at once, large ones in the helper process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import msgspec
from google.api import httpbody_pb2

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import form
from services.common.helper_process import FEW_VALUES, Data, HelperProcess, is_large_request
from services.common.large import LARGE_BYTES
from services.common.rpc import call as calls
from services.common.rpc.raw import RawBody
from services.router.domain.prompt import Prompt

P = ParamSpec("P")
R = TypeVar("R")

MANY: Final = 1_000
"""A body with more objects than this is a large one, however few bytes it has: each takes its time."""


class Body:
    """A request's body, whose bytes are here until they are read.

    Args:
        model: What the path says that a JSON body's model is, where it names none itself.
    """

    __slots__ = ("_data", "content_type")

    def __init__(self, body: httpbody_pb2.HttpBody | RawBody, *, model: str = "") -> None:
        self.content_type = body.content_type
        self._data: list[Data] = [_with_model(bytes(body.data), model) if model else body.data]

    @classmethod
    def of(cls, data: bytes, content_type: str) -> Body:
        """Return a body of these bytes."""
        return cls(httpbody_pb2.HttpBody(data=data, content_type=content_type))

    def peek(self) -> Data:
        """Return the bytes; they stay."""
        return self._data[0]

    def replace(self, data: Data) -> None:
        """Take other bytes in the place of those that are here."""
        self._data[0] = data

    def take(self) -> Data:
        """Return the bytes away; call it once."""
        return self._data.pop()


def _with_model(data: bytes, model: str) -> bytes:
    """Return a JSON object that names a model before all else: what it says itself comes later, and counts."""
    inside = data.lstrip()
    if not inside.startswith(b"{"):
        return data
    inside = inside[1:].lstrip()
    comma = b"" if inside.startswith(b"}") else b","
    return b'{"model":' + msgspec.json.encode(model) + comma + inside


class Reading:
    """Reads bodies, and looks through typed prompts.

    Args:
        helper: Where large ones are read; None: here.
    """

    def __init__(self, helper: HelperProcess | None = None) -> None:
        self._helper = helper

    def __call__(
        self, work: Callable[Concatenate[bytes, P], R], body: Body, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[R]:
        """Return what `work(data, …)` makes of a body, a function of a module. Raises what it raises."""
        data, helper = body.take(), self._helper
        if helper is None or not is_large(data):
            return _here(work, bytes(data), *args, **kwargs)
        account, is_form = calls.current().account, form.is_form(body.content_type)
        if not helper.large_only:
            return helper.run(work, data, account, *args, **kwargs)
        # It is let go of once it is parsed (`services.common.body.parse`, `services.common.form.parse`).
        whole: Any = bytearray(data)
        del data
        if is_form or _has_few_values(whole):
            return helper.in_thread(work, account, whole, *args, **kwargs)
        return helper.run(work, memoryview(whole), account, *args, **kwargs)

    async def prompt_of(self, request: GenerateTextRequest) -> Prompt:
        """Return the prompt of a typed request, looked through. Raises InvalidField."""
        if self._helper is not None and (len(request.messages) > MANY or is_large_request(request)):
            return await self._helper.run(prompt_in, request.SerializeToString(), calls.current().account)
        return Prompt.of(request)


def is_large(data: Data) -> bool:
    """Return whether a body takes so long to read that it is read elsewhere; one that was let go of was."""
    # To split takes half of the time of to count, which looks at each byte by itself.
    return isinstance(data, bytearray) or len(data) > LARGE_BYTES or len(bytes(data).split(b"{", MANY + 1)) > MANY + 1


def _has_few_values(data: bytearray) -> bool:
    """Return whether a JSON body surely holds few values: none of what stands before them is often there."""
    # `count` looks at each byte for itself: 75 ms for twenty megabytes, where `find` takes three.
    left = FEW_VALUES
    for mark in (b",", b"[", b"{"):
        at = data.find(mark)
        while at >= 0:
            left -= 1
            if left < 0:
                return False
            at = data.find(mark, at + 1)
    return True


def prompt_in(data: bytes) -> Prompt:
    """Return the prompt of a serialized request."""
    return Prompt.of(GenerateTextRequest.FromString(data), whole=True)


async def _here(work: Callable[Concatenate[bytes, P], R], data: bytes, *args: P.args, **kwargs: P.kwargs) -> R:
    return work(data, *args, **kwargs)
