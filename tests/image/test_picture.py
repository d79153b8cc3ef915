"""Responses written around a picture are what protobuf would have written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moa.common.v1.media_pb2 import ImageData
from moa.image.v1.image_pb2 import Image, ImageEvent, ImageText, Progress, Receipt
from moa.image.v1.image_service_pb2 import GenerateImageResponse
from services.providers.image.picture import Picture, encoded

NUMBERS = st.integers(0, 2**32 - 1)


@given(
    data=st.binary(max_size=300) | st.integers(0, 20_000).map(bytes),
    index=NUMBERS,
    size=st.tuples(NUMBERS, NUMBERS),
    words=st.text(max_size=40),
    seed=st.none() | st.integers(0, 2**32),
    steps=st.none() | st.tuples(NUMBERS, NUMBERS),
    candidate=st.none() | NUMBERS,
)
def test_any_picture(
    data: bytes,
    index: int,
    size: tuple[int, int],
    words: str,
    seed: int | None,
    steps: tuple[int, int] | None,
    candidate: int | None,
) -> None:
    """Read back, the response is the message with the picture in it; the bytes are taken out of what was given."""
    described = ImageData(mime_type="image/png", width=size[0], height=size[1])
    event = ImageEvent(index=index, candidate=candidate)
    if steps is None:
        event.image.CopyFrom(Image(image=described, revised_prompt=words))
        if seed is not None:
            event.image.receipt.CopyFrom(Receipt(seed=seed, sha256="ab"))
    else:
        event.progress.CopyFrom(Progress(step=steps[0], steps=steps[1], preview=described))
    expected = GenerateImageResponse(events=[event])
    holder = expected.events[0].image.image if steps is None else expected.events[0].progress.preview
    holder.data = data
    given_ = Picture(event, data)
    assert GenerateImageResponse.FromString(encoded(given_)) == expected
    assert given_.data == b""


def test_other_events_are_written_as_they_are() -> None:
    """An event without a picture is an ordinary message."""
    event = ImageEvent(text=ImageText(text="words"))
    assert GenerateImageResponse.FromString(encoded(event)) == GenerateImageResponse(events=[event])
