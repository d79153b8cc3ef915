"""Answers in any pieces, without holding an image twice."""

from __future__ import annotations

import base64
import itertools
import json
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from services.catalogue import Model
from services.common import errors
from services.providers.google import image as gemini
from services.providers.http.blobs import BlobLifter
from services.providers.http.client import Outgoing
from services.providers.image.base import Call
from services.providers.image.picture import Picture
from services.providers.image.reading import Out
from services.providers.openai.image import reader
from tests.emulators.openai import event
from tests.emulators.pictures import png
from tests.laws import tries

BLOB = bytes(range(256)) * 20
LONG = "not base64! " * 400
DOCUMENT: dict[str, Any] = {
    "a": base64.b64encode(BLOB).decode(),
    "quoted \"name\"\\": ["short", LONG, {"b": "data:image/png;base64," + base64.b64encode(BLOB[:3001]).decode()}],
    "text": "안녕 🌍 \\ / \" end",
    "short_blob": base64.b64encode(b"abc").decode(),
}  # fmt: skip
TEXT = json.dumps(DOCUMENT).encode()


def _lifted(pieces: Iterable[bytes]) -> tuple[object, bytes | None, bytes | None]:
    lifter = BlobLifter()
    for piece in pieces:
        lifter.feed(piece)
    got = json.loads(bytes(lifter.skeleton))
    one, two = lifter.take(got["a"]), lifter.take(got['quoted "name"\\'][2]["b"])
    got["a"], got['quoted "name"\\'][2]["b"] = DOCUMENT["a"], DOCUMENT['quoted "name"\\'][2]["b"]
    return got, one, two


EXPECTED = (DOCUMENT, BLOB, BLOB[:3001])


def test_blobs_are_taken_out_and_the_rest_stays() -> None:
    """Long base64 becomes bytes; other strings, however long or odd, are untouched."""
    assert _lifted([TEXT]) == EXPECTED
    assert _lifted([TEXT.replace(b"/", b"\\/")])[1:] == EXPECTED[1:]


@settings(max_examples=tries(80))
@given(st.lists(st.integers(0, len(TEXT)), max_size=30))
def test_any_pieces_give_the_same(cuts: list[int]) -> None:
    """Wherever the bytes are split, inside escapes and base64 groups too."""
    edges = [0, *sorted(cuts), len(TEXT)]
    assert _lifted(TEXT[a:b] for a, b in itertools.pairwise(edges)) == EXPECTED


def test_byte_by_byte_gives_the_same() -> None:
    """One byte at a time."""
    assert _lifted(TEXT[i : i + 1] for i in range(len(TEXT))) == EXPECTED


@pytest.mark.parametrize("bad", ["A" * 4001, "A" * 4000 + "!" + "A" * 2000, "A" * 3000 + "=" + "A" * 2000])
def test_damaged_base64_is_broken(bad: str) -> None:
    """A blob that cannot be decoded is a broken answer."""
    text = json.dumps({"a": bad}).encode()
    lifter = BlobLifter()
    lifter.feed(text[:2500])
    with pytest.raises(errors.UpstreamBroken):
        lifter.feed(text[2500:])


def test_a_large_image_is_held_once() -> None:
    """While 20 MB arrive as base64 in pieces of 64 KB, no more than the image and a little is held."""
    size = 20 * 2**20
    piece = base64.b64encode(b"\x01" * 49152)
    lifter = BlobLifter()
    tracemalloc.start()
    try:
        lifter.feed(b'{"data": [{"b64_json": "')
        for _ in range(size // 49152):
            lifter.feed(piece)
        lifter.feed(b'"}]}')
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.35 * size


MODEL = Model(id="m", provider="p")
CALL = Call(Outgoing(URL("http://x/"), b"", {}), 1)
SMALL, FULL = (base64.b64encode(png(side, side)).decode() for side in (8, 16))
PARTIAL = {"type": "image_generation.partial_image", "b64_json": SMALL}
COMPLETED = {"type": "image_generation.completed", "b64_json": FULL, "usage": {"input_tokens": 5, "output_tokens": 9}}
STREAM = b"".join([*(event({**PARTIAL, "partial_image_index": i}) for i in range(3)), event(COMPLETED)])


def _events(pieces: Iterable[bytes]) -> list[Out]:
    read = reader(CALL, MODEL, {"content-type": "text/event-stream"})
    out = [made for piece in pieces for made in read.feed(piece)] + read.end()
    assert read.failure is None
    return out


def test_partial_images_are_previews() -> None:
    """Three previews, then the image, wherever the stream is split."""
    expected = _events([STREAM])
    kinds = [made.event.WhichOneof("event") for made in expected if isinstance(made, Picture)]
    assert kinds == ["progress", "progress", "progress", "image"]
    for at in range(1, len(STREAM), 7):
        assert _events([STREAM[:at], STREAM[at:]]) == expected


def test_a_stream_without_its_last_image_is_broken() -> None:
    """Previews alone are no answer."""
    read = reader(CALL, MODEL, {"content-type": "text/event-stream"})
    read.feed(STREAM[: len(STREAM) // 2])
    read.end()
    assert isinstance(read.failure, errors.UpstreamBroken)


@pytest.mark.parametrize("word", ["NO_IMAGE", "IMAGE_OTHER"])
def test_an_answer_of_words_alone_is_no_failure_of_the_provider(word: str) -> None:
    """Gemini says that it made no image: its words are the answer, else its reason is, which nobody retries."""
    call = Call(Outgoing(URL("http://x"), b"", {}), 1)
    candidate: dict[str, Any] = {"content": {"parts": [{"text": "I'd rather write."}]}, "finishReason": word}
    spoke = gemini.ADAPTER.reader(call, MODEL, {})
    spoke.feed(json.dumps({"candidates": [candidate]}).encode())
    assert [made.text.text for made in spoke.end()] == ["I'd rather write."]  # type: ignore[union-attr]
    assert spoke.failure is None
    silent = gemini.ADAPTER.reader(call, MODEL, {})
    silent.feed(json.dumps({"candidates": [{"finishReason": word, "finishMessage": "Not today."}]}).encode())
    assert list(silent.end()) == []
    assert isinstance(silent.failure, errors.ContentPolicy)
    assert silent.failure.message == f"the model made no image ({word.lower()}): Not today."
