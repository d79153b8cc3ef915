"""Refuse what a model cannot do, by the catalogue's word, and turn one vocabulary of sizes into each model's own.

A model's limits are data (`services.catalogue`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from moa.image.v1.image_pb2 import Background, Operation, OutputFormat, Quality
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Words
from services.common import images, limits
from services.common.errors import InvalidField, Unsupported

_CHANGES = (
    Operation.OPERATION_EDIT,
    Operation.OPERATION_VARIATION,
    Operation.OPERATION_OUTPAINT,
    Operation.OPERATION_REMOVE_BACKGROUND,
)
FORMATS = {
    OutputFormat.OUTPUT_FORMAT_PNG: "png",
    OutputFormat.OUTPUT_FORMAT_JPEG: "jpeg",
    OutputFormat.OUTPUT_FORMAT_WEBP: "webp",
}
QUALITIES = {Quality.QUALITY_LOW: "low", Quality.QUALITY_MEDIUM: "medium", Quality.QUALITY_HIGH: "high"}
BACKGROUNDS = {Background.BACKGROUND_TRANSPARENT: "transparent", Background.BACKGROUND_OPAQUE: "opaque"}


def operation_of(request: GenerateImageRequest) -> Operation.ValueType:
    """Return what is to be done: unspecified is an edit when there are input images, else a generation."""
    if request.operation != Operation.OPERATION_UNSPECIFIED:
        return request.operation
    return Operation.OPERATION_EDIT if request.images else Operation.OPERATION_GENERATE


def count_of(request: GenerateImageRequest) -> int:
    """Return how many images are wanted."""
    return max(1, request.count)


def check(request: GenerateImageRequest, model: Model) -> None:
    """Raise InvalidField for a field that is wrong for every model, Unsupported for one that `model` cannot do.

    Sets the request's operation where it says none.
    """
    request.operation = operation_of(request)
    limits.check_for(request, model)
    most_chars = model.limits.prompt_chars
    if most_chars and len(request.prompt) > most_chars:
        raise InvalidField(f"the prompt may have {most_chars} characters for this model", param="prompt")
    if request.images and request.operation not in _CHANGES:
        limits.check_needs([limits.Need("images", "references")], model)
    most = model.limits.images
    if len(request.images) > most:
        raise Unsupported(f"model {model.id!r} takes at most {most} input images", param="images")
    if request.HasField("mask") and request.operation != Operation.OPERATION_EDIT:
        raise InvalidField("a mask is taken only with an image to edit", param="mask")
    for index, image in enumerate(request.images):
        bytes_of(image, f"images[{index}]")
    if request.HasField("mask"):
        bytes_of(request.mask, "mask")


def bytes_of(image: Any, where: str) -> tuple[bytes, str]:
    """Return an input image's bytes and the media type that they have."""
    if image.WhichOneof("source") == "url":
        raise Unsupported("this provider takes images as data, not as links; send them inline", param=f"{where}.url")
    data: bytes = image.data  # each look at it is a copy
    return data, images.inspect(data, param=where).mime_type


def size_of(request: GenerateImageRequest, model: Model) -> tuple[int, int] | None:
    """Return the pixels to ask for: those given, or those that the ratio makes; None for the model's default.

    Raises Unsupported with what the model takes.
    """
    if request.HasField("width") or request.HasField("height"):
        if not (request.HasField("width") and request.HasField("height")):
            raise InvalidField("give both width and height, or neither", param="size")
        size = (request.width, request.height)
        _check_size(size, model)
        return size
    if not request.aspect_ratio:
        return None
    ratios = model.limits.ratios
    wanted = _ratio(request.aspect_ratio)
    if isinstance(ratios, Mapping):
        for name, made in ratios.items():
            if _ratio(name) == wanted:
                return _pixels(made)
    for made in model.limits.sizes or ():
        width, height = _pixels(made)
        if wanted[0] * height == wanted[1] * width:
            return width, height
    known = ", ".join(ratios or model.limits.sizes or ()) or "none"
    raise Unsupported(
        f"model {model.id!r} does not make {request.aspect_ratio} (it makes: {known})", param="aspect_ratio"
    )


def ratio_of(request: GenerateImageRequest, model: Model) -> str:
    """Return the ratio to ask for, as `16:9`; empty for the model's default. For models that take ratios, not pixels.

    A size is taken when a ratio makes exactly it. Raises Unsupported with what the model takes.
    """
    ratios = model.limits.ratios
    if request.HasField("width") or request.HasField("height"):
        if isinstance(ratios, Mapping):
            for name, made in ratios.items():
                if _pixels(made) == (request.width, request.height):
                    return str(name)
        sizes = ", ".join(ratios.values()) if isinstance(ratios, Mapping) else "none; give an aspect_ratio"
        asked = f"{request.width}x{request.height}"
        raise Unsupported(f"model {model.id!r} does not make {asked} (it makes: {sizes})", param="size")
    if not request.aspect_ratio:
        return ""
    wanted = _ratio(request.aspect_ratio)
    for name in ratios:
        if _ratio(name) == wanted:
            return str(name)
    known = ", ".join(ratios) or "none"
    raise Unsupported(
        f"model {model.id!r} does not make {request.aspect_ratio} (it makes: {known})", param="aspect_ratio"
    )


def word_of(field: str, words: Literal["qualities", "styles"], asked: str, model: Model) -> str:
    """Return the provider's word for `asked`, by those limits of the model; as it is when they do not say.

    Raises Unsupported with what the model takes.
    """
    table: Words | None = getattr(model.limits, words)
    if table is None:
        return asked
    if asked not in table:
        raise Unsupported(f"model {model.id!r} takes {', '.join(table)} as {field}", param=field)
    return table[asked] if isinstance(table, Mapping) else asked


def format_of(request: GenerateImageRequest, model: Model) -> str | None:
    """Return the provider's word for the file format; None where nothing is asked for, or the model makes others.

    Its images are converted then.
    """
    if not request.output_format or not model.can("output_format"):
        return None
    wanted = FORMATS[request.output_format]
    table = model.limits.formats
    if table is not None and wanted not in table:
        return None
    return table[wanted] if isinstance(table, Mapping) else wanted


def counts_of(request: GenerateImageRequest, model: Model) -> list[int]:
    """Split the wanted count into calls, by how many images the model makes in one."""
    left = count_of(request)
    limit = model.limits.count
    most = limit[-1] if isinstance(limit, tuple) else limit or 1
    counts = []
    while left > 0:
        counts.append(min(left, most))
        left -= counts[-1]
    return counts


def _check_size(size: tuple[int, int], model: Model) -> None:
    name = f"{size[0]}x{size[1]}"
    sizes = model.limits.sizes
    rule = model.limits.size
    if rule is not None:
        fits = all(rule.min <= side <= rule.max and side % rule.multiple == 0 for side in size)
        if fits and size[0] * size[1] <= (rule.pixels or math.inf):
            return
        takes = f"sides from {rule.min} to {rule.max}, multiples of {rule.multiple}"
        raise Unsupported(f"model {model.id!r} does not make {name} (it takes {takes})", param="size")
    if sizes is not None and name not in sizes:
        raise Unsupported(f"model {model.id!r} does not make {name} (it makes: {', '.join(sizes)})", param="size")


def _ratio(text: str) -> tuple[int, int]:
    """Read `16:9`, also `16x9`, into its lowest terms."""
    width, _, height = text.replace("x", ":").partition(":")
    if not (width.isdecimal() and height.isdecimal()) or not int(width) or not int(height):
        raise InvalidField("an aspect ratio is written 16:9", param="aspect_ratio")
    divisor = math.gcd(int(width), int(height))
    return int(width) // divisor, int(height) // divisor


def _pixels(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)
