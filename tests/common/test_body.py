"""JSON bodies of the dialects: what is no text is the caller's mistake, and told so."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import pytest

from services.common import body, form, protojson
from services.common.errors import InvalidField, Malformed, TooLarge, UnsupportedMedia


class Model(msgspec.Struct, forbid_unknown_fields=True):
    text: str = ""
    free: Any = None
    bias: dict[Annotated[int, msgspec.Meta(ge=0, le=9)], float] = {}


DECODER = msgspec.json.Decoder(Model)


@pytest.mark.parametrize(
    "data",
    [
        b'{"text": "\xff"}',
        b'{"text": "\xed\xa0\x80"}',
        b'{"text": "\\ud800"}',
        b'{"text": "\\udc00\\ud800"}',
        b'{"free": {"\\ud800": 1}}',
        b'{"text": "a\nb", "free": ["\\ud83d"]}',
        b'{"text": "a\nb\xff"}',
        '{"text": "a"}'.encode("utf-16"),
        b"",
        b'{"text": "a"} x',
        b'{"free": ' + b"[" * 100_000,
    ],
    ids=range(11),
)
def test_what_is_not_json_in_unicode_is_malformed(data: bytes) -> None:
    """Bytes that are not UTF-8, halves of surrogate pairs, other encodings, depth: 400, never 500."""
    with pytest.raises(Malformed):
        body.parse(data, DECODER)


@pytest.mark.parametrize(
    ("value", "why"),
    [(b"[" * 100_000 + b"]" * 100_000, "the body is nested too deeply"), (b"9" * 5000, "too many digits")],
    ids=["depth", "digits"],
)
def test_json_that_is_too_much_is_not_called_invalid(value: bytes, why: str) -> None:
    """Whoever sent valid JSON is told what of it is too much, by the slow reader too."""
    with pytest.raises(Malformed, match=why):
        body.leniently(b'{"free": ' + value + b"}")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"text": "\\ud83d\\ude00"}', "\U0001f600"),
        (b'{"text": "a\nb\\ud83d\\ude00"}', "a\nb\U0001f600"),
        (b'\xef\xbb\xbf{"text": "a"}', "a"),
        (b'{"text": "\\u0000"}', "\0"),
    ],
)
def test_what_can_be_read_is(data: bytes, text: str) -> None:
    """Whole pairs, raw newlines, a byte-order mark."""
    assert body.parse(data, DECODER).text == text


@pytest.mark.parametrize("data", [b'{"bias": {"99999999999999": 1}}', b'{"bias": {"a": 1}}', b'{"bias": {"1": "a"}}'])
def test_a_wrong_key_of_a_map_names_the_map(data: bytes) -> None:
    """What is wrong inside an object of the caller's own keys is told by the object's name."""
    with pytest.raises(InvalidField) as refused:
        body.parse(data, DECODER)
    assert refused.value.param.removesuffix("[...]") == "bias"


def test_the_slow_reader_is_not_kept_busy() -> None:
    """A raw newline calls the lenient reader: millions of values are not for it."""
    with pytest.raises(TooLarge):
        body.parse(b'{"text": "a\nb", "free": [' + b"{}," * 1_000_000 + b"{}]}", DECODER)


class Inner(msgspec.Struct):
    kind: Literal["b", "a"] | None = None


class Outer(msgspec.Struct):
    many: list[Inner] = []
    named: dict[str, Inner] = {}
    choice: Literal["x"] | Inner = "x"


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"many": [{}, {"kind": "c"}]}, "many[1].kind", "a or b"),
        ({"named": {"n": {"kind": "c"}}}, "named[...].kind", "a or b"),
        ({"choice": {"kind": "c"}}, "choice.kind", "a or b"),
        ({"choice": "y"}, "choice", "x"),
    ],
)
def test_a_word_that_is_none_of_the_allowed_is_told_them(given: object, param: str, words: str) -> None:
    """Wherever it stands: in a list, a map, or as one of several kinds."""
    with pytest.raises(InvalidField) as refused:
        body.parse(msgspec.json.encode(given), msgspec.json.Decoder(Outer))
    assert refused.value.param == param
    assert refused.value.message.endswith(f"; use {words}")


@pytest.mark.parametrize(
    "data", [b"model=x&prompt=hi", b'--b0\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b0--\r\n']
)
def test_a_form_is_told_to_be_json(data: bytes) -> None:
    """By either way to write one."""
    with pytest.raises(Malformed, match="the body is a form; send JSON"):
        body.parse(data, msgspec.json.Decoder(Outer))


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, lambda data: b"\x28\xb5\x2f\xfd\x24" + data])
def test_a_compressed_body_is_told_so(pack: Callable[[bytes], bytes]) -> None:
    """Nothing is unpacked, and nobody is told of broken text."""
    packed = pack(b'{"model": "m", "messages": []}')
    for read in (
        lambda: body.parse(packed, msgspec.json.Decoder(dict)),
        lambda: protojson.load(packed),
        lambda: form.parse(packed, "multipart/form-data; boundary=x"),
    ):
        with pytest.raises(UnsupportedMedia, match="without Content-Encoding"):
            read()


def test_a_large_body_is_let_go_of_once_it_is_parsed() -> None:
    """It comes as a bytearray; one that is refused stays, for it is read another way."""
    decoder = msgspec.json.Decoder(dict[str, str])
    kept, gone = bytearray(b'{"a": 1}'), bytearray(b'{"a": "b"}')
    assert body.parse(gone, decoder) == {"a": "b"}  # type: ignore[arg-type]
    with pytest.raises(InvalidField):
        body.parse(kept, decoder)  # type: ignore[arg-type]
    assert (bytes(gone), bytes(kept)) == (b"", b'{"a": 1}')


def test_a_large_body_of_which_a_part_is_taken_as_it_is_stays() -> None:
    """The part lies in it."""
    data = bytearray(b'{"a": [1, 2]}')
    assert bytes(body.parse(data, msgspec.json.Decoder(dict[str, msgspec.Raw]))["a"]) == b"[1, 2]"  # type: ignore[arg-type]
