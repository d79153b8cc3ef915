"""The documented model paths, and the parameters that each takes.

A path is a row: which catalogue names may stand behind it, and how each input goes into the request. An input that the
path does not take is refused by name; nothing is dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from moa.image.v1 import image_pb2, image_service_pb2
from services.catalogue import Model, fit
from services.common import limits, words
from services.common.errors import InvalidField, NotFound, Unsupported
from services.tasks.dialects.media import image_of

Request = image_service_pb2.GenerateImageRequest
Put = Callable[[Request, Any, str], None]
"""Puts an input's value into the request; the last argument is the input's name."""

MAX_PROMPT: Final = 32_000


def _text(field: str) -> Put:
    def put(request: Request, value: Any, name: str) -> None:
        if not isinstance(value, str) or len(value) > MAX_PROMPT:
            raise InvalidField(
                f"input.{name}: a text of at most {MAX_PROMPT} characters is expected", param=f"input.{name}"
            )
        setattr(request, field, value)

    return put


def _number(name: str, value: Any, low: float, high: float, *, whole: bool) -> Any:
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        what = "a whole number" if whole else "a number"
        raise InvalidField(f"input.{name}: {what} from {low:g} to {high:g} is expected", param=f"input.{name}")
    return value


def _whole(field: str, *, at_least: int | None = None, at_most: int | None = None) -> Put:
    """Take a whole number within the contract's limits, or the path's own."""
    low, high = limits.bounds(Request, field, at_least=at_least)
    most = high if at_most is None else at_most

    def put(request: Request, value: Any, name: str) -> None:
        setattr(request, field, _number(name, value, low, most, whole=True))

    return put


def _diffusion(field: str, *, whole: bool = False) -> Put:
    low, high = limits.bounds(image_pb2.Diffusion, field)

    def put(request: Request, value: Any, name: str) -> None:
        setattr(request.diffusion, field, _number(name, value, low, high, whole=whole))

    return put


_SCHEDULERS: Final = {n: n for n in limits.of(image_pb2.Diffusion.DESCRIPTOR.fields_by_name["scheduler"]).words}
_MAX_IMAGES: Final = limits.of(Request.DESCRIPTOR.fields_by_name["images"]).most


def _scheduler(request: Request, value: Any, name: str) -> None:
    request.diffusion.scheduler = _one_of(name, value, _SCHEDULERS)


def _one_of(name: str, value: Any, table: Mapping[str, Any]) -> Any:
    if not isinstance(value, str) or value not in table:
        raise InvalidField(f"input.{name}: one of {', '.join(table)} is expected", param=f"input.{name}")
    return table[value]


def _choice(field: str, table: Mapping[str, Any]) -> Put:
    def put(request: Request, value: Any, name: str) -> None:
        setattr(request, field, _one_of(name, value, table))

    return put


_SIZE: Final = re.compile(r"([1-9][0-9]{1,3})x([1-9][0-9]{1,3})", re.ASCII)


def _size(request: Request, value: Any, name: str) -> None:
    if value == "auto":
        return
    result = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if result is None:
        raise InvalidField(f'input.{name}: "auto" or WIDTHxHEIGHT is expected', param=f"input.{name}")
    request.width, request.height = int(result[1]), int(result[2])


_RATIO: Final = re.compile(r"([1-9][0-9]?)[x:]([1-9][0-9]?)", re.ASCII)


def _ratio(request: Request, value: Any, name: str) -> None:
    """The document writes `2x1`; the contract `2:1`. Both are taken."""
    result = _RATIO.fullmatch(value) if isinstance(value, str) else None
    if result is None:
        raise InvalidField(f"input.{name}: a ratio such as 2x1 or 16:9 is expected", param=f"input.{name}")
    request.aspect_ratio = f"{result[1]}:{result[2]}"


def _image(request: Request, value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise InvalidField(f"input.{name}: a link or a data: URI is expected", param=f"input.{name}")
    request.images.append(image_of(value, param=f"input.{name}"))


def _images(request: Request, value: Any, name: str) -> None:
    if not isinstance(value, list) or len(value) > _MAX_IMAGES:
        raise InvalidField(
            f"input.{name}: at most {_MAX_IMAGES} links or data: URIs are expected", param=f"input.{name}"
        )
    for number, each in enumerate(value):
        _image(request, each, f"{name}[{number}]")


def _mask(request: Request, value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise InvalidField(f"input.{name}: a link or a data: URI is expected", param=f"input.{name}")
    request.mask.CopyFrom(image_of(value, param=f"input.{name}"))


_COUNT: Final = _whole("count", at_least=1)
_SEED: Final = _whole("seed")
_FORMAT: Final = _choice(
    "output_format",
    {
        "png": image_pb2.OUTPUT_FORMAT_PNG,
        "jpeg": image_pb2.OUTPUT_FORMAT_JPEG,
        "jpg": image_pb2.OUTPUT_FORMAT_JPEG,
        "webp": image_pb2.OUTPUT_FORMAT_WEBP,
    },
)
_QUALITY: Final = {
    "auto": image_pb2.QUALITY_UNSPECIFIED,
    "low": image_pb2.QUALITY_LOW,
    "medium": image_pb2.QUALITY_MEDIUM,
    "high": image_pb2.QUALITY_HIGH,
}
_PROMPT: Final[Mapping[str, Put]] = {"prompt": _text("prompt")}

_OPENAI_1: Final[Mapping[str, Put]] = {
    **_PROMPT,
    "size": _size,
    "n": _COUNT,
    "quality": _choice("quality", _QUALITY),
    "moderation": _choice("moderation", {"auto": "auto", "low": "low"}),
    "background": _choice(
        "background",
        {
            "auto": image_pb2.BACKGROUND_UNSPECIFIED,
            "transparent": image_pb2.BACKGROUND_TRANSPARENT,
            "opaque": image_pb2.BACKGROUND_OPAQUE,
        },
    ),
    "output_format": _FORMAT,
    "image": _image,
    "images": _images,
    "mask": _mask,
    "user": _text("user"),
}
_DALLE: Final[Mapping[str, Put]] = {
    **_PROMPT,
    "size": _size,
    "n": _whole("count", at_least=1, at_most=1),
    "quality": _choice("quality", {"standard": image_pb2.QUALITY_MEDIUM, "hd": image_pb2.QUALITY_HIGH}),
    "style": _choice("style", {"vivid": "vivid", "natural": "natural"}),
    "user": _text("user"),
}
_IDEOGRAM: Final[Mapping[str, Put]] = {
    **_PROMPT,
    "rendering_speed": _choice(
        "quality",
        {
            "TURBO": image_pb2.QUALITY_LOW,
            "DEFAULT": image_pb2.QUALITY_MEDIUM,
            "QUALITY": image_pb2.QUALITY_HIGH,
        },
    ),
    "aspect_ratio": _ratio,
    "resolution": _size,
    "num_images": _COUNT,
    "negative_prompt": _text("negative_prompt"),
    "style_type": _text("style"),
    "seed": _SEED,
    "image": _image,
}
_STABILITY: Final[Mapping[str, Put]] = {
    **_PROMPT,
    "n": _COUNT,
    "negative_prompt": _text("negative_prompt"),
    "aspect_ratio": _ratio,
    "seed": _SEED,
    "output_format": _FORMAT,
    "image": _image,
    "strength": _diffusion("strength"),
    "cfg_scale": _diffusion("guidance_scale"),
}
_IMAGEN: Final[Mapping[str, Put]] = {
    **_PROMPT,
    "numberOfImages": _whole("count", at_least=1, at_most=4),
    "aspectRatio": _ratio,
    "negativePrompt": _text("negative_prompt"),
    "seed": _SEED,
}
_LOCAL: Final[Mapping[str, Put]] = {
    **_PROMPT,
    "negative_prompt": _text("negative_prompt"),
    "n": _COUNT,
    "num_outputs": _COUNT,
    "width": _whole("width", at_least=8, at_most=4096),
    "height": _whole("height", at_least=8, at_most=4096),
    "size": _size,
    "aspect_ratio": _ratio,
    "num_inference_steps": _diffusion("steps", whole=True),
    "guidance_scale": _diffusion("guidance_scale"),
    "strength": _diffusion("strength"),
    "prompt_strength": _diffusion("strength"),
    "scheduler": _scheduler,
    "seed": _SEED,
    "output_format": _FORMAT,
    "image": _image,
    "mask": _mask,
    "preview_every": _whole("preview_every"),
}


@dataclass(frozen=True, slots=True)
class Path:
    """A documented model path."""

    names: tuple[str, ...]
    """What the catalogue may call its model, in order of preference."""
    inputs: Mapping[str, Put]


_IMAGENS: Final = (
    "imagen-3.0-generate-002",
    "imagen-4.0-generate-preview-05-20",
    "imagen-4.0-ultra-generate-exp-05-20",
)

# `opanai` is the document's own spelling.
PATHS: Final[Mapping[str, Path]] = {
    **{f"{owner}/gpt-image-1": Path(("gpt-image-1",), _OPENAI_1) for owner in ("opanai", "openai")},
    **{f"{owner}/dall-e-3": Path(("dall-e-3",), _DALLE) for owner in ("opanai", "openai")},
    "ideogram/V3": Path(("ideogram/V3", "ideogram-v3", "V3"), _IDEOGRAM),
    "stability/Stable-Diffusion-3-5-Large": Path(
        ("Stable-Diffusion-3-5-Large", "stable-diffusion-3-5-large", "sd3.5-large"), _STABILITY
    ),
    **{name: Path((name,), _IMAGEN) for name in _IMAGENS},
    **{f"google/{name}": Path((name,), _IMAGEN) for name in _IMAGENS},
}

_OWN: Final = "local-image"
"""The provider of the gateway's own image models."""
_REVERSED: Final = frozenset({"gpt-4o-image", "gpt-4o-image-vip"})
_OLD_IDEOGRAM: Final = re.compile(r"ideogram/v?_?[12](?:[._a-z0-9-]*)?", re.IGNORECASE)


def of_version(version: str) -> str:
    """Return the path that a version names: predictions tell their version as `{provider}/{model}`."""
    if version in PATHS:
        return version
    provider, _, model = version.partition("/")
    own = f"local/{model}" if provider == _OWN and model else version
    return next((path for path, row in PATHS.items() if model in row.names), own)


def find(path: str) -> Path:
    """Return a documented path. Raises Unsupported (400) for what the document refuses, and why; else NotFound."""
    last = path.rpartition("/")[2]
    if last in _REVERSED:
        raise Unsupported(f"{last} is reverse-engineered and not supported; use opanai/gpt-image-1", param="model")
    if _OLD_IDEOGRAM.fullmatch(path):
        raise Unsupported(
            "Ideogram versions before V3 use the legacy API and are not supported; use ideogram/V3", param="model"
        )
    if last.startswith("gemini-"):
        raise Unsupported(
            "Gemini models are not supported on this path; use the chat or generateContent API", param="model"
        )
    if path.startswith("local/") and len(path) > len("local/"):
        return Path((f"{_OWN}/{path.removeprefix('local/')}",), _LOCAL)
    try:
        return PATHS[path]
    except KeyError:
        raise NotFound(f"no model at this path: {path[:200]}{words.step(path, list(PATHS))}", param="model") from None


def request_of(path: Path, given: Mapping[str, Any]) -> Request:
    """Turn a prediction's input into the contract's request. Raises InvalidField with the input's name."""
    prompt = given.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidField("input.prompt is required", param="input.prompt")
    request = Request()
    for name, value in given.items():
        put = path.inputs.get(name)
        if put is None:
            takes = ", ".join(path.inputs)
            raise InvalidField(
                f"input.{name[:100]} is not taken by this model; it takes {takes}", param=f"input.{name[:100]}"
            )
        if value is not None:
            put(request, value, name)
    request.count = max(1, request.count)
    return request


def fitted(path: Path, request: Request, given: Mapping[str, Any], model: Model) -> list[str]:
    """Put the nearest size or ratio that the model makes into the request's place; return the inputs that changed.

    Each is told as `input.name=value`.
    """
    request.operation = image_pb2.OPERATION_EDIT if request.images else image_pb2.OPERATION_GENERATE
    results = []
    for changed in fit(request, model):
        field, _, value = changed.partition("=")
        names = [name for name, put in path.inputs.items() if put in _SAYS[field] and given.get(name) is not None]
        sides = dict(zip(("width", "height"), value.split("x"), strict=False)) if field == "size" else {}
        results += [f"input.{name}={sides.get(name, value)}" for name in names or [field]]
    return results


_SIDES: Final = (_LOCAL["width"], _LOCAL["height"])
_SAYS: Final[Mapping[str, tuple[Put, ...]]] = {
    "size": (_size, *_SIDES),
    "aspect_ratio": (_ratio,),
    "quality": (_OPENAI_1["quality"], _DALLE["quality"], _IDEOGRAM["rendering_speed"]),
}
"""Which inputs say what the contract calls so."""
