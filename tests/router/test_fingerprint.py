"""What makes two requests the same under an idempotency key."""

from __future__ import annotations

from typing import Any

import pytest
from google.api import httpbody_pb2

from services.common.helper_process import HelperProcess
from services.common.large import LARGE_BYTES
from services.common.rpc.raw import RawBody
from services.router.dialects.reading import Reading
from services.router.idempotency.fingerprint import canonical as what_is_said
from services.router.idempotency.fingerprint import fingerprint


def form(boundary: str, prompt: str = "a cat", image: bytes = b"\x89PNG") -> httpbody_pb2.HttpBody:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n{prompt}\r\n'.encode(),
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + image
        + b"\r\n",
        f"--{boundary}--\r\n".encode(),
    ]
    return httpbody_pb2.HttpBody(content_type=f"multipart/form-data; boundary={boundary}", data=b"".join(parts))


async def test_a_forms_boundary_is_not_what_it_says() -> None:
    """Clients make it anew each time; fields and files count."""
    first = await fingerprint(form("one"), (), Reading())
    assert await fingerprint(form("two"), (), Reading()) == first
    assert await fingerprint(form("one", prompt="a dog"), (), Reading()) != first
    assert await fingerprint(form("one", image=b"\x89PNX"), (), Reading()) != first


@pytest.mark.parametrize("data", [b"", b"{", b'{"a": "\xff"}', b"[" * 5_000, b'{"a": "line\nbreak"}'])
async def test_what_cannot_be_read_is_itself(data: bytes) -> None:
    """The handler says what is wrong with it."""
    one = httpbody_pb2.HttpBody(content_type="application/json", data=data)
    other = httpbody_pb2.HttpBody(content_type="application/json", data=data + b" ")
    assert await fingerprint(one, (), Reading()) == await fingerprint(one, (), Reading())
    assert await fingerprint(one, (), Reading()) != await fingerprint(other, (), Reading())


async def test_a_large_body_is_not_compared_on_the_loop() -> None:
    """What it says is found out in the helper process, and is what the same request says in fewer bytes."""
    asked: list[tuple[Any, ...]] = []

    class Watched(HelperProcess):
        async def run(self, work: Any, data: Any, account: str, *args: Any, **kwargs: Any) -> Any:
            asked.append((work, len(data), *args))
            return await super().run(work, data, account, *args, **kwargs)

    helper = Watched()
    written = b'{"b": [1, 2],' + b" " * LARGE_BYTES + b'"a": "x"}'
    small = httpbody_pb2.HttpBody(content_type="application/json", data=b'{"a":"x","b":[1,2]}')
    large = httpbody_pb2.HttpBody(content_type="application/json", data=written)
    try:
        one = await fingerprint(large, (), Reading(helper))
        raw = await fingerprint(RawBody(large.SerializeToString()), (), Reading(helper))
        assert [one, raw] == [await fingerprint(small, (), Reading(helper))] * 2
        assert asked == [(what_is_said, len(written), "application/json")] * 2
    finally:
        await helper.aclose()
