"""From OpenAI's image bodies, JSON or form, to the contract's request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from moa.common.v1 import media_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from services.catalogue import Model
from services.common import form, images
from services.common.errors import InvalidField, Unsupported
from services.router.dialects.body import field_error
from services.router.dialects.media import image_from_text
from services.router.dialects.openai import carried
from services.router.dialects.openai.image_bodies import DEFAULT_MODEL, REFUSED, ImageBody, ImageRef
from services.router.dialects.unknown import MOST_NAMED, Read, parse_liberally, printable, refuse

Kind = Literal["generation", "edit", "variation"]

MAX_IMAGES = 16
"""Input images of one request, as OpenAI has it."""

_DECODER = msgspec.json.Decoder(ImageBody)
_FIELDS = frozenset(ImageBody.__struct_encode_fields__)

_QUALITIES = {
    "low": image_pb2.QUALITY_LOW,
    "medium": image_pb2.QUALITY_MEDIUM,
    "standard": image_pb2.QUALITY_MEDIUM,
    "high": image_pb2.QUALITY_HIGH,
    "hd": image_pb2.QUALITY_HIGH,
    "xhigh": image_pb2.QUALITY_HIGH,
    "max": image_pb2.QUALITY_HIGH,
}
_GRADES = ("low", "medium", "high")
_BACKGROUNDS = {"transparent": image_pb2.BACKGROUND_TRANSPARENT, "opaque": image_pb2.BACKGROUND_OPAQUE}
_FORMATS = {
    "png": image_pb2.OUTPUT_FORMAT_PNG,
    "jpeg": image_pb2.OUTPUT_FORMAT_JPEG,
    "webp": image_pb2.OUTPUT_FORMAT_WEBP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of a request concerns the answer's form and not the model."""

    kind: Kind
    links: bool | None
    """Whether images are answered as links; None where nothing is said: as the model's owner does. A stream carries
    links only where they were asked for."""
    stream: bool
    partial_images: int
    output_format: str
    """`png`, `jpeg`, `webp`, or empty for what the model gives."""
    compression: int | None
    quality: str
    background: str
    ignored: list[str]
    """Parameters that were given and have no effect."""
    unnamed: bool = False
    """Whether no model was named."""


def request_from(
    data: bytes | memoryview, content_type: str, kind: Kind, *, strict: bool = False, model: str = ""
) -> tuple[image_service_pb2.GenerateImageRequest, Wanted]:
    """Read a body; `strict`: refuse what would have no effect; `model`: the one of a body that names none.

    Raises Malformed, InvalidField, Unsupported, UnsupportedMedia or TooLarge.
    """
    if form.is_form(content_type):
        (read, unknown, extra), files = _from_form(form.parse(data, content_type))
    else:
        (read, unknown, extra), files = (
            parse_liberally(data if isinstance(data, bytearray) else bytes(data), _DECODER),
            {},
        )
    for name in REFUSED:
        if getattr(read, name) is not None:
            raise Unsupported(f"{name} is not supported here", param=name)
    request = image_service_pb2.GenerateImageRequest()
    _put_images(request, read, files)
    _check(read, kind, request)
    width, height = _size(read.size)
    asked = image_service_pb2.GenerateImageRequest(
        model=read.model or model or DEFAULT_MODEL,
        operation=_operation(kind, request),
        prompt=read.prompt or "",
        negative_prompt=read.negative_prompt or "",
        count=read.n or 1,
        width=width,
        height=height,
        aspect_ratio=read.aspect_ratio or "",
        quality=_QUALITIES.get(read.quality or "", image_pb2.QUALITY_UNSPECIFIED),
        background=_BACKGROUNDS.get(read.background or "", image_pb2.BACKGROUND_UNSPECIFIED),
        output_format=_FORMATS.get(read.output_format or "", image_pb2.OUTPUT_FORMAT_UNSPECIFIED),
        style=read.style or "",
        seed=read.seed,
        colors=read.colors or [],
        stream=bool(read.stream),
        user=read.user or read.safety_identifier or "",
        moderation=read.moderation or "",
        strict=strict,
    )
    request.MergeFrom(asked)
    ignored = list(carried.put_image(request, read, extra, unknown))
    refuse(ignored, strict=strict)
    return request, Wanted(
        kind=kind,
        links=None if read.response_format is None else read.response_format == "url",
        stream=bool(read.stream),
        partial_images=read.partial_images or 0,
        output_format=read.output_format or "",
        compression=read.output_compression,
        quality=read.quality or "auto",
        background=read.background or "auto",
        ignored=ignored,
        unnamed=not (read.model or model),
    )


def drop_hints(request: image_service_pb2.GenerateImageRequest, model: Model, *, strict: bool = False) -> Sequence[str]:
    """Take out of a request what only tunes and `model` does not know, or put its nearest value there; name it.

    OpenAI's clients send a quality and a style to every model. `strict`: raise InvalidField.
    """
    named = []
    if request.quality and not model.can("quality"):
        request.quality = image_pb2.QUALITY_UNSPECIFIED
        named.append("quality")
    elif request.quality and (known := [name for name in _GRADES if name in (model.limits.qualities or _GRADES)]):
        asked = next(name for name in _GRADES if _QUALITIES[name] == request.quality)
        nearest = min(known, key=lambda name: abs(_GRADES.index(name) - _GRADES.index(asked)))
        request.quality = _QUALITIES[nearest]
        named += [f"quality={nearest}"] if nearest != asked else []
    for name in ("style", "moderation"):
        if getattr(request, name) not in ("", "auto") and not model.can(name):
            request.ClearField(name)
            named.append(name)
    refuse((name.partition("=")[0] for name in named), strict=strict)
    return named


def preview_every(model: Model, partial_images: int) -> int:
    """Return how many steps lie between previews, so that `partial_images` of them are spread over the work."""
    steps = int(model.defaults.get("steps", 20))
    return max(1, steps // (partial_images + 1))


def _from_form(read: form.Form) -> tuple[Read[ImageBody], Mapping[str, list[bytes]]]:
    values: dict[str, object] = {}
    extra: dict[str, object] = {}
    for name, given in read.fields.items():
        if name == "image":
            values[name] = given
        elif name not in _FIELDS:
            extra[name] = given[0] if len(given) == 1 else given
        elif len(given) > 1:
            raise InvalidField(f"{name} is given twice", param=name)
        else:
            values[name] = given[0]
    unknown = set(read.files) - {"image", "mask"}
    if unknown:
        name = min(unknown)
        raise Unsupported(f"{name} is not a file that is taken here", param=name)
    try:
        made = msgspec.convert(values, ImageBody, strict=False)
    except msgspec.ValidationError as error:
        raise field_error(str(error), ImageBody) from None
    return Read(made, [printable(name) for name in extra][:MOST_NAMED], extra), read.files


def _put_images(
    request: image_service_pb2.GenerateImageRequest, read: ImageBody, files: Mapping[str, list[bytes]]
) -> None:
    """Put what is given into a request, where it is copied once."""
    texts = [read.image] if isinstance(read.image, str) else read.image or ()
    uploaded = files.get("image", [])
    if len(uploaded) + len(texts) + len(read.images or ()) > MAX_IMAGES:
        raise InvalidField(f"at most {MAX_IMAGES} images are taken", param="image")
    while uploaded:
        _put_upload(request.images.add(), uploaded.pop(0), "image")
    for text in texts:
        request.images.append(image_from_text(text, param="image"))
    for index, ref in enumerate(read.images or ()):
        request.images.append(_referred(ref, f"images[{index}]"))
    masks = files.get("mask", [])
    if len(masks) + (read.mask is not None) > 1:
        raise InvalidField("one mask is taken", param="mask")
    for data in masks:
        _put_upload(request.mask, data, "mask")
    if read.mask is not None:
        mask = image_from_text(read.mask, param="mask") if isinstance(read.mask, str) else _referred(read.mask, "mask")
        request.mask.CopyFrom(mask)


def _put_upload(image: media_pb2.ImageInput, data: bytes, param: str) -> None:
    image.mime_type = images.inspect(data, param=param).mime_type
    image.data = data


def _referred(ref: ImageRef | str, param: str) -> media_pb2.ImageInput:
    if isinstance(ref, str):
        return image_from_text(ref, param=param)
    if ref.image_url is None:
        raise Unsupported(f"{param}: files are not stored here; send image_url", param=param)
    return image_from_text(ref.image_url, param=f"{param}.image_url")


def _check(read: ImageBody, kind: Kind, request: image_service_pb2.GenerateImageRequest) -> None:
    given = len(request.images)
    if kind != "variation" and not (read.prompt or "").strip():
        raise InvalidField("prompt is required", param="prompt")
    if kind != "generation" and not given:
        raise InvalidField("image is required", param="image")
    if kind == "variation" and given > 1:
        raise InvalidField("a variation takes one image", param="image")
    if request.HasField("mask") and kind != "edit":
        raise InvalidField("a mask belongs to /v1/images/edits", param="mask")
    if kind == "variation" and read.stream:
        raise InvalidField("variations are not streamed", param="stream")
    if read.partial_images and not read.stream:
        raise InvalidField("partial_images needs stream", param="partial_images")
    if read.output_compression is not None and read.output_format not in ("jpeg", "webp"):
        raise InvalidField("output_compression needs output_format jpeg or webp", param="output_compression")
    if read.background == "transparent" and read.output_format == "jpeg":
        raise InvalidField("a transparent background needs output_format png or webp", param="background")


def _operation(kind: Kind, request: image_service_pb2.GenerateImageRequest) -> image_pb2.Operation.ValueType:
    if kind == "variation":
        return image_pb2.OPERATION_VARIATION
    return image_pb2.OPERATION_EDIT if request.images else image_pb2.OPERATION_GENERATE


def _size(size: str | None) -> tuple[int | None, int | None]:
    if size is None or size == "auto":
        return None, None
    width, _, height = size.partition("x")
    if not (1 <= int(width) <= images.MAX_SIDE and 1 <= int(height) <= images.MAX_SIDE):
        raise InvalidField(f"size: each side must be 1 to {images.MAX_SIDE} pixels", param="size")
    return int(width), int(height)
