"""The question that the edge asks before it reads a body."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest

from moa.router.v1 import gate_pb2
from services.common import errors
from services.common.byte_admission import Bounds, ByteAdmission
from services.router.body_check import DROPPED_BYTES, SENT_BYTES, BodyCheck


class Verifier:
    """Knows one key; cannot say of another."""

    async def identify(self, key: str) -> SimpleNamespace:
        if key == "moa-away":
            raise errors.Unavailable("auth is away")
        if key != "moa-good":
            raise errors.Unauthenticated("unknown API key")
        return SimpleNamespace(account_id="known")


def is_own(key: str) -> bool:
    return key.startswith("AIza")


def asked(headers: dict[str, str], *, own_keys: bool = False, protocol: str = "HTTP/2") -> gate_pb2.CheckResponse:
    request = gate_pb2.CheckRequest()
    request.attributes.request.http.MergeFrom(gate_pb2.CheckRequest.Http(protocol=protocol))
    request.attributes.request.http.headers.update(headers)
    return asyncio.run(BodyCheck(Verifier(), takes_key=is_own if own_keys else None).check(request, None))


@pytest.mark.parametrize("name", ["x-api-key", "x-goog-api-key"])
def test_a_key_that_holds_is_let_in(name: str) -> None:
    """And the edge is told to remember it."""
    answer = asked({name: "moa-good"})
    assert (answer.status.code, answer.dynamic_metadata.fields["known"].bool_value) == (0, True)


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer moa-bad"}, {"x-api-key": "moa-good", "x-goog-api-key": "moa-bad"}]
)
def test_a_stranger_is_not(headers: dict[str, str]) -> None:
    """No key, an unknown one and two different ones: 401 with the reason, which the edge words."""
    answer = asked(headers)
    said = {each.header.key: each.header.value for each in answer.denied_response.headers}
    assert (answer.status.code, answer.denied_response.status.code) == (16, 401)
    assert said["x-moa-reason"] == "unauthenticated"
    assert said["grpc-message"] == answer.denied_response.body


@pytest.mark.parametrize(
    ("protocol", "size", "drops"),
    [
        ("HTTP/1.1", 4_000_000, True),
        ("HTTP/1.0", DROPPED_BYTES, True),
        ("HTTP/1.1", SENT_BYTES, False),
        ("HTTP/1.1", DROPPED_BYTES + 1, False),
        ("HTTP/1.1", None, False),
        ("HTTP/2", 4_000_000, False),
    ],
)
def test_a_stranger_who_reads_no_answer_yet_is_told_when_it_has_sent(
    protocol: str, size: int | None, drops: bool
) -> None:
    """A body over HTTP/1.1 that says its length, which is moderate, is dropped by the edge as it comes."""
    length = {} if size is None else {"content-length": str(size)}
    answer = asked({"x-api-key": "moa-bad", **length}, protocol=protocol)
    assert answer.status.code == (0 if drops else 16)
    fields = {name: value.string_value for name, value in answer.dynamic_metadata.fields.items()}
    assert fields == ({"refused": "unknown API key"} if drops else {})


def test_who_cannot_be_told_is_let_in_but_not_remembered() -> None:
    """The operation says in its own words that keys cannot be verified."""
    answer = asked({"x-api-key": "moa-away"})
    assert (answer.status.code, answer.dynamic_metadata.fields["known"].bool_value) == (0, False)


@pytest.mark.parametrize(("own_keys", "code"), [(True, 0), (False, 16)])
def test_own_keys(own_keys: bool, code: int) -> None:
    """A provider's key of the caller's own is let in where such keys are taken."""
    assert asked({"x-goog-api-key": "AIza" + "x" * 35}, own_keys=own_keys).status.code == code


@pytest.mark.parametrize(
    ("key", "size", "code", "booked"),
    [
        ("moa-good", 60, 0, 60),
        ("moa-bad", 60, 0, 0),
        ("moa-away", 60, 0, 0),
        ("AIzaown", 60, 0, 60),
        ("moa-good", 70, 8, 0),
    ],
)
def test_room_is_kept_for_who_is_known(key: str, size: int, code: int, booked: int) -> None:
    """Others are refused by the operation, in its words; where too many wait, the caller is told when to come again."""
    room = ByteAdmission(Bounds(served=1, unsent_of_account=0))
    request = gate_pb2.CheckRequest()
    headers = {"x-api-key": key, "content-length": str(size), "x-request-id": "r"}
    request.attributes.request.http.headers.update(headers)

    async def answered() -> tuple[gate_pb2.CheckResponse, int]:
        async with AsyncExitStack() as taken:
            if size > 60:
                await taken.enter_async_context(room.entered("other", 1))
            before = room.served_bytes
            answer = await BodyCheck(Verifier(), room=room, takes_key=is_own).check(request, None)
            return answer, room.served_bytes - before

    answer, kept = asyncio.run(answered())
    assert (answer.status.code, kept) == (code, booked)
    said = {each.header.key: each.header.value for each in answer.denied_response.headers}
    assert said.get("retry-after") == ("5" if code else None)
