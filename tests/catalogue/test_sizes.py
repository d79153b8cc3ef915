"""Sizes and ratios that a model does not make become the nearest that it makes, and what became of them is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa.image.v1 import image_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, fit
from services.common.errors import Unsupported
from services.providers.image import capable
from tests import shipped

GENERATE = image_pb2.OPERATION_GENERATE
HIGH, MEDIUM, LOW = image_pb2.QUALITY_HIGH, image_pb2.QUALITY_MEDIUM, image_pb2.QUALITY_LOW


def asked(size: str = "", **more: object) -> GenerateImageRequest:
    """Make a request for a size."""
    request = GenerateImageRequest(operation=GENERATE, **more)  # type: ignore[arg-type]  # fields of the message
    if size:
        request.width, request.height = map(int, size.split("x"))
    return request


def made(request: GenerateImageRequest) -> tuple[str, int]:
    """Return the size or ratio that a request asks for now, and its quality."""
    size = f"{request.width}x{request.height}" if request.HasField("width") else request.aspect_ratio
    return size, request.quality


@pytest.mark.parametrize(
    ("name", "size", "told", "becomes"),
    [
        ("gemini-3-pro-image", "1024x1024", [], ("1:1", LOW)),
        ("gemini-3-pro-image", "2048x2048", [], ("1:1", MEDIUM)),
        ("gemini-3-pro-image", "5504x3072", [], ("16:9", HIGH)),
        ("gemini-3-pro-image", "512x512", ["size=1024x1024"], ("1:1", LOW)),
        ("gemini-3-pro-image", "1344x768", ["size=1376x768"], ("16:9", LOW)),
        ("gemini-3-pro-image", "1792x1024", ["size=1376x768"], ("16:9", LOW)),
        ("gemini-3.1-flash-image", "2048x512", [], ("4:1", LOW)),
        ("gemini-2.5-flash-image", "1408x768", ["size=1344x768"], ("16:9", 0)),
        ("gpt-image-1", "512x512", ["size=1024x1024"], ("1024x1024", 0)),
        ("gpt-image-1", "1024x1792", ["size=1024x1536"], ("1024x1536", 0)),
        ("gpt-image-2.6-flare", "1920x1080", ["size=1920x1088"], ("1920x1088", 0)),
        ("gpt-image-2.6-flare", "4096x4096", ["size=2880x2880"], ("2880x2880", 0)),
        ("dall-e-3", "1024x1536", ["size=1024x1792"], ("1024x1792", 0)),
        ("stable-image-core", "1024x1024", ["size=1:1"], ("1:1", 0)),
        ("moa-tiny-image", "1024x1024", ["size=512x512"], ("512x512", 0)),
        # Another shape is another picture: it is refused by whoever would make it.
        ("gemini-3-pro-image", "3000x100", [], ("3000x100", 0)),
        ("dall-e-3", "1024x768", [], ("1024x768", 0)),
    ],
)
def test_a_size_becomes_the_nearest(name: str, size: str, told: list[str], becomes: tuple[str, int]) -> None:
    """In its shape first, then in its pixels; by ratio and quality where that is how a model is asked."""
    request = asked(size)
    assert fit(request, shipped.catalogue().find(name)) == told
    assert made(request) == becomes


def test_a_size_says_more_than_a_quality() -> None:
    """Where sizes differ by quality, the one that makes the size is used, and the caller's is told of."""
    request = asked("1024x1024", quality=HIGH)
    assert fit(request, shipped.catalogue().find("gemini-3-pro-image")) == ["quality=low"]
    assert made(request) == ("1:1", LOW)


@pytest.mark.parametrize(
    ("name", "ratio", "told", "becomes"),
    [
        ("gemini-3-pro-image", "16:9", [], "16:9"),
        ("gemini-3-pro-image", "32:18", [], "32:18"),
        ("gemini-3-pro-image", "2:1", ["aspect_ratio=16:9"], "16:9"),
        ("gpt-image-1", "16:9", ["aspect_ratio=3:2"], "3:2"),
        ("gemini-3-pro-image", "1:4", [], "1:4"),
        ("gemini-3.1-flash-image", "1:4", [], "1:4"),
        ("gemini-3-pro-image", "0:4", [], "0:4"),
    ],
)
def test_a_ratio_becomes_the_nearest(name: str, ratio: str, told: list[str], becomes: str) -> None:
    """Where there is one of nearly the shape."""
    request = asked(aspect_ratio=ratio)
    assert fit(request, shipped.catalogue().find(name)) == told
    assert request.aspect_ratio == becomes


def test_the_size_of_a_canvas_stays() -> None:
    """What is painted around an image has the size that was asked for."""
    request = asked("1000x1000")
    request.operation = image_pb2.OPERATION_OUTPAINT
    assert fit(request, shipped.catalogue().find("V3")) == []
    assert made(request) == ("1000x1000", 0)


PAINTERS = [
    model
    for model in shipped.catalogue().models
    if shipped.catalogue().makes(model) == "image" and model.can("aspect_ratio") and model.load is None
]


@pytest.mark.parametrize("model", PAINTERS, ids=lambda model: str(model.full_id))
@given(width=st.integers(1, 4096), height=st.integers(1, 4096))
def test_what_is_fitted_is_made(model: Model, width: int, height: int) -> None:
    """Whatever is put in a size's place, the model's provider is asked for exactly that; else nothing was changed."""
    request = asked(f"{width}x{height}")
    told = fit(request, model)
    way = capable.size_of if request.HasField("width") else capable.ratio_of
    try:
        way(request, model)
    except Unsupported:
        assert not told
        assert made(request) == (f"{width}x{height}", 0)
