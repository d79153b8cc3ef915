"""The native dialect's bodies, both ways."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from io import BytesIO

import pytest
from PIL import Image

from moa.image.v1 import image_pb2
from moa.text.v1 import text_pb2
from services.common.body import UnknownField
from services.common.errors import InvalidField, Malformed, MoaError, TooLarge, UnsupportedMedia
from services.router.dialects.native import image, text


def png(width: int = 8, height: int = 8) -> bytes:
    out = BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(out, "PNG")
    return out.getvalue()


TEXT = {"messages": [{"role": "user", "content": "안녕하세요! 🙂"}], "model_id": "m", "provider": "p"}


def test_the_documented_body_becomes_the_contract() -> None:
    """Every documented field arrives where the contract keeps it."""
    body = {**TEXT, "stream": True, "include_reasoning": True, "max_tokens": 5, "temperature": 0.5, "stop": "x"}
    request = text.request_from(json.dumps(body).encode())
    assert request.messages[0].role == text_pb2.ROLE_USER
    assert request.messages[0].parts[0].text == "안녕하세요! 🙂"
    assert (request.model, request.provider, request.stream) == ("m", "p", True)
    assert request.reasoning.include
    assert request.max_tokens == 5
    assert request.sampling.temperature == 0.5
    assert list(request.stop) == ["x"]


def test_raw_newlines_inside_base64_are_taken() -> None:
    """The document's shell sample makes line breaks inside a JSON string on GNU systems."""
    wrapped = base64.encodebytes(png()).decode()
    body = '{"prompt": "p", "model_id": "m", "image_data": "data:image/jpeg;base64,' + wrapped + '"}'
    request = image.request_from(body.encode(), edit=True)
    assert request.images[0].data == png()
    assert request.images[0].mime_type == "image/png"
    assert request.operation == image_pb2.OPERATION_EDIT


@dataclass(frozen=True)
class Bad:
    body: bytes
    error: type[MoaError]
    param: str


BAD = {
    "empty": Bad(b"", Malformed, ""),
    "not JSON": Bad(b"{", Malformed, ""),
    "an array": Bad(b"[]", InvalidField, ""),
    "no messages": Bad(b'{"model_id":"m"}', InvalidField, "messages"),
    "empty messages": Bad(b'{"model_id":"m","messages":[]}', InvalidField, "messages"),
    "role": Bad(b'{"model_id":"m","messages":[{"role":"x","content":"a"}]}', InvalidField, "messages[0].role"),
    "typo": Bad(json.dumps({**TEXT, "temprature": 1}).encode(), UnknownField, "temprature"),
    "hot": Bad(json.dumps({**TEXT, "temperature": 3}).encode(), InvalidField, "temperature"),
    "NaN": Bad(json.dumps({**TEXT, "temperature": float("nan")}).encode(), InvalidField, "temperature"),
    "infinite": Bad(json.dumps({**TEXT, "top_p": float("inf")}).encode(), InvalidField, "top_p"),
    "negative": Bad(json.dumps({**TEXT, "max_tokens": -1}).encode(), InvalidField, "max_tokens"),
    "bool for string": Bad(json.dumps({**TEXT, "model_id": True}).encode(), InvalidField, "model_id"),
    "base64": Bad(json.dumps({**TEXT, "image_data": "***"}).encode(), InvalidField, "image_data"),
    "no image": Bad(
        json.dumps({**TEXT, "image_data": base64.b64encode(b"hello world").decode()}).encode(),
        UnsupportedMedia,
        "image_data",
    ),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_bad_bodies_name_their_field(case: Bad) -> None:
    """A bad body is refused with the path of the field at fault."""
    with pytest.raises(case.error) as caught:
        text.request_from(case.body)
    assert type(caught.value) is case.error
    assert caught.value.param == case.param


def test_images_too_large_are_refused_before_decoding() -> None:
    """More than 4096 pixels a side is 422, more than 10 MB decoded is 413."""
    wide = base64.b64encode(png(5000, 10)).decode()
    with pytest.raises(InvalidField):
        image.request_from(json.dumps({"prompt": "p", "model_id": "m", "image_data": wide}).encode(), edit=True)
    heavy = base64.b64encode(png() + b"\0" * (10 * 1024 * 1024)).decode()
    with pytest.raises(TooLarge):
        image.request_from(json.dumps({"prompt": "p", "model_id": "m", "image_data": heavy}).encode(), edit=True)


def test_size_and_sides_do_not_mix() -> None:
    """`size` is read; both forms at once are refused."""
    request = image.request_from(b'{"prompt":"p","model_id":"m","size":"128x64"}', edit=False)
    assert (request.width, request.height) == (128, 64)
    with pytest.raises(InvalidField):
        image.request_from(b'{"prompt":"p","model_id":"m","size":"128x64","width":9}', edit=False)
