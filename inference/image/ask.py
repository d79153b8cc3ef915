"""What a caller asks of an image model, checked against what the model takes."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moa.common.v1 import media_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from services.catalogue import Model
from services.common import images, limits
from services.common.errors import InvalidField, Unsupported

MAX_PROMPT_CHARS = 10_000
SIDE_STEP = 8
"""Sides are multiples of this: one latent pixel. Some models want more (`Family.side_step`)."""
FITTED_STEP = 16
"""Sides that are chosen here are multiples of this, which suits every family: two latent pixels."""
LEAST_SIDE = 64
DEFAULT_SIDE = 512
DEFAULT_STEPS = 20
DEFAULT_GUIDANCE = 5.0
EDIT_STRENGTH = 0.6
VARIATION_STRENGTH = 0.75

_FORMATS = {
    image_pb2.OUTPUT_FORMAT_UNSPECIFIED: "png",
    image_pb2.OUTPUT_FORMAT_PNG: "png",
    image_pb2.OUTPUT_FORMAT_JPEG: "jpeg",
    image_pb2.OUTPUT_FORMAT_WEBP: "webp",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAsk:
    """A request for images, with every default filled in."""

    prompt: str
    negative: str = ""
    width: int
    height: int
    steps: int = DEFAULT_STEPS
    guidance: float = DEFAULT_GUIDANCE
    scheduler: str = ""
    """A word of the contract; empty: the model's own."""
    seed: int = 0
    """Of the first image; each further image has the next."""
    drawn: bool = False
    """Whether the seed was drawn here, for want of one."""
    count: int = 1
    image: bytes | None = None
    """The encoded image to change; None: from text alone."""
    mask: bytes | None = None
    """The encoded mask; white is painted over."""
    strength: float = EDIT_STRENGTH
    loras: tuple[tuple[str, float], ...] = ()
    preview_every: int = 0
    format: str = "png"


def ask_from(request: image_service_pb2.GenerateImageRequest, model: Model) -> ImageAsk:
    """Read a request. Unset fields take the catalogue's defaults for the model; an absent seed is drawn.

    Raises InvalidField for what is outside the contract's or the model's limits, Unsupported for what the model does
    not do, and what `services.common.images.inspect` raises for an input image.
    """
    operation = request.operation or (image_pb2.OPERATION_EDIT if request.images else image_pb2.OPERATION_GENERATE)
    request.operation = operation
    drawn, seed = not request.HasField("seed"), request.seed
    # A receipt's may be any of 64 bits, for the one after the largest is the least.
    request.ClearField("seed")
    limits.check_for(request, model)
    if request.quality not in (image_pb2.QUALITY_UNSPECIFIED, image_pb2.QUALITY_MEDIUM):
        raise Unsupported("this model has no qualities; set steps instead", param="quality")
    image, info = _source(request)
    mask = _mask(request)
    if len(request.prompt) > MAX_PROMPT_CHARS or len(request.negative_prompt) > MAX_PROMPT_CHARS:
        raise InvalidField(f"a prompt has at most {MAX_PROMPT_CHARS} characters", param="prompt")
    _check_range("count", request.count, model)
    width, height = _size(request, model, info)
    diffusion = request.diffusion
    scheduler = diffusion.scheduler or str(model.defaults.get("scheduler", ""))
    variation = operation == image_pb2.OPERATION_VARIATION
    steps = int(_number(diffusion, "steps", model, DEFAULT_STEPS))
    strength = _number(diffusion, "strength", model, VARIATION_STRENGTH if variation else EDIT_STRENGTH)
    if image is not None and int(steps * strength) < 1:
        raise InvalidField(f"strength {strength:g} of {steps} steps leaves no step to take", param="strength")
    return ImageAsk(
        prompt=request.prompt,
        negative=request.negative_prompt,
        width=width,
        height=height,
        steps=steps,
        guidance=_number(diffusion, "guidance_scale", model, DEFAULT_GUIDANCE),
        scheduler=scheduler,
        seed=secrets.randbits(32) if drawn else seed,
        drawn=drawn,
        count=max(1, request.count),
        image=image,
        mask=mask,
        strength=strength,
        loras=_loras(diffusion),
        preview_every=request.preview_every,
        format=_FORMATS[request.output_format],
    )


def _source(request: image_service_pb2.GenerateImageRequest) -> tuple[bytes | None, images.ImageInfo | None]:
    """Return the image to change and what its header says."""
    if request.operation == image_pb2.OPERATION_GENERATE:
        if request.images:
            raise Unsupported("this model takes no reference images; ask for an edit", param="images")
        return None, None
    if len(request.images) > 1:
        raise Unsupported("this model takes one image", param="images[1]")
    return _bytes(request.images[0], "images[0]")


def _mask(request: image_service_pb2.GenerateImageRequest) -> bytes | None:
    if not request.HasField("mask"):
        return None
    if request.operation != image_pb2.OPERATION_EDIT:
        raise InvalidField("a mask is taken only with an image to edit", param="mask")
    return _bytes(request.mask, "mask")[0]


def _bytes(given: media_pb2.ImageInput, param: str) -> tuple[bytes, images.ImageInfo]:
    if given.WhichOneof("source") == "url":
        raise Unsupported("this service takes image bytes, not links", param=param)
    if not given.data:
        raise InvalidField("the image is empty", param=param)
    return given.data, images.inspect(given.data, param=param)


def _limit(model: Model, field: str, otherwise: tuple[float, float]) -> tuple[float, float]:
    """Return a field's range: the catalogue's `limits` say `[low, high]`, or the highest alone."""
    given: Any = getattr(model.limits, field)
    if given is None:
        return otherwise
    if isinstance(given, Sequence):
        return float(given[0]), float(given[-1])
    return otherwise[0], float(given)


def _check_range(field: str, value: float, model: Model) -> None:
    """Raise InvalidField for a value outside the model's own limits, which may be closer than the contract's."""
    low, high = _limit(model, field, (0.0, math.inf))
    if value and not low <= value <= high:
        raise InvalidField(f"{field} must be from {low:g} to {high:g}", param=field)


def _number(diffusion: image_pb2.Diffusion, field: str, model: Model, otherwise: float) -> float:
    given = diffusion.HasField(field)  # type: ignore[arg-type]  # the names are the message's
    value = float(getattr(diffusion, field) if given else model.defaults.get(field, otherwise))
    _check_range(field, value, model)
    return value


def _loras(diffusion: image_pb2.Diffusion) -> tuple[tuple[str, float], ...]:
    mixed: dict[str, float] = {}
    for lora in diffusion.loras:
        mixed[lora.name] = mixed.get(lora.name, 0.0) + (lora.scale if lora.HasField("scale") else 1.0)
    return tuple(sorted(mixed.items()))


def _size(
    request: image_service_pb2.GenerateImageRequest, model: Model, info: images.ImageInfo | None
) -> tuple[int, int]:
    """Decide the size: as given, else by the ratio, else like the input image, else the model's default."""
    usual = (
        int(model.defaults.get("width", DEFAULT_SIDE)),
        int(model.defaults.get("height", DEFAULT_SIDE)),
    )
    most = min(2048, 4 * max(usual))
    bounds = {name: _limit(model, name, (LEAST_SIDE, most)) for name in ("width", "height")}
    if request.HasField("width") or request.HasField("height"):
        size = {
            "width": request.width if request.HasField("width") else usual[0],
            "height": request.height if request.HasField("height") else usual[1],
        }
        for name, value in size.items():
            low, high = bounds[name]
            if not low <= value <= high or value % SIDE_STEP:
                raise InvalidField(f"{name} must be a multiple of {SIDE_STEP} from {low:g} to {high:g}", param=name)
        return size["width"], size["height"]
    if request.aspect_ratio:
        ratio = _ratio(request.aspect_ratio)
    elif info is not None:
        ratio = info.width / info.height
    else:
        return usual
    return _fitted(ratio, usual[0] * usual[1], bounds)


def _ratio(text: str) -> float:
    across, colon, down = text.partition(":")
    try:
        ratio = float(across) / float(down) if colon else math.nan
    except (ValueError, ZeroDivisionError):
        ratio = math.nan
    if not 1 / 8 <= ratio <= 8:
        raise InvalidField("aspect_ratio must be like 16:9, from 1:8 to 8:1", param="aspect_ratio")
    return ratio


def _fitted(ratio: float, area: int, bounds: dict[str, tuple[float, float]]) -> tuple[int, int]:
    """Return a size of about `area` pixels and `ratio`, in steps, within bounds."""

    def stepped(side: float, name: str) -> int:
        low, high = bounds[name]
        return int(min(max(round(side / FITTED_STEP) * FITTED_STEP, low), high))

    return stepped(math.sqrt(area * ratio), "width"), stepped(math.sqrt(area / ratio), "height")
