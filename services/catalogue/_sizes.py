"""Which size an image model makes that is nearest to the one that was asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from moa.image.v1 import image_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue._limits import SizeRange
from services.catalogue._model import Model

_FARTHEST: Final = math.log(1.25)
"""How far the ratio of an image may be from the one that was asked for; another shape is another picture."""
_CANVAS: Final = (image_pb2.OPERATION_OUTPAINT, image_pb2.OPERATION_REMOVE_BACKGROUND)
"""Operations whose size says what is to be done, or that keep the image's."""
_QUALITIES: Final = {
    "low": image_pb2.QUALITY_LOW,
    "medium": image_pb2.QUALITY_MEDIUM,
    "high": image_pb2.QUALITY_HIGH,
}


_ONE_SCALE: Final[Mapping[Any, int]] = {"": 1}


class _Made(NamedTuple):
    """A size that a model makes."""

    width: int
    height: int
    ratio: str = ""
    """The ratio that makes it, where the model is asked for one."""
    quality: str = ""
    """The quality that makes it, where sizes differ by it."""

    @property
    def name(self) -> str:
        return f"{self.width}x{self.height}"


def fit(request: GenerateImageRequest, model: Model) -> list[str]:
    """Put the nearest size, or ratio, that a model makes into the place of the one that a request asks for.

    Return what was changed, each as `field=value`; nothing where the model makes what is asked for, where nobody knows
    what it makes, and where it makes nothing like it: then the request stays as it is, to be refused.
    """
    if request.operation in _CANVAS:
        return []
    if request.HasField("width") and request.HasField("height"):
        return _fit_size(request, model)
    if request.aspect_ratio and not request.HasField("width") and not request.HasField("height"):
        return _fit_ratio(request, model)
    return []


def _fit_size(request: GenerateImageRequest, model: Model) -> list[str]:
    asked = (request.width, request.height)
    limits = model.limits
    # Ratios without sizes are what such a model is asked by: the range is that of its other operations.
    if limits.size is not None and (isinstance(limits.ratios, Mapping) or not limits.ratios):
        made = _clamped(asked, limits.size)
        return _put(request, made) if _is_near(asked, made) else []
    if limits.sizes is not None:
        listed = [_Made(*_sides(size)) for size in limits.sizes]
        made = min(listed, key=lambda one: _distance(asked, one))
        return _put(request, made) if _is_near(asked, made) else []
    if isinstance(limits.ratios, Mapping):
        return _fit_table(request, model)
    return _fit_to_ratio(request, model)


def _fit_table(request: GenerateImageRequest, model: Model) -> list[str]:
    asked = (request.width, request.height)
    made = min(_by_ratio(model), key=lambda one: _distance(asked, one))
    if not _is_near(asked, made):
        return []
    changed = [] if made[:2] == asked else [f"size={made.name}"]
    if made.quality:
        # The size says it: what was asked for beside it is not what makes that.
        wanted, makes = request.quality, _QUALITIES[made.quality]
        changed += [f"quality={made.quality}"] if wanted not in (image_pb2.QUALITY_UNSPECIFIED, makes) else []
        request.quality = makes
    # Asked for by the ratio, as the size may be of another quality than the table's.
    request.ClearField("width")
    request.ClearField("height")
    request.aspect_ratio = made.ratio
    return changed


def _fit_to_ratio(request: GenerateImageRequest, model: Model) -> list[str]:
    """Ask a model that takes ratios alone for the nearest one."""
    ratio = _nearest_ratio(request.width / request.height, model.limits.ratios)
    if not ratio or not model.can("aspect_ratio"):
        return []
    request.ClearField("width")
    request.ClearField("height")
    request.aspect_ratio = ratio
    return [f"size={ratio}"]


def _fit_ratio(request: GenerateImageRequest, model: Model) -> list[str]:
    across, _, down = request.aspect_ratio.replace("x", ":").partition(":")
    limits = model.limits
    known = [*limits.ratios] or [_reduced(size) for size in limits.sizes or ()]
    if not (known and across.isdecimal() and down.isdecimal() and int(across) and int(down)):
        return []
    asked = int(across) / int(down)
    if any(math.isclose(asked, _of(ratio)) for ratio in known):
        return []
    nearest = _nearest_ratio(asked, known)
    if not nearest:
        return []
    request.aspect_ratio = nearest
    return [f"aspect_ratio={nearest}"]


def _by_ratio(model: Model) -> Iterator[_Made]:
    ratios = model.limits.ratios
    for ratio, size in ratios.items() if isinstance(ratios, Mapping) else ():
        width, height = _sides(size)
        for quality, times in (model.limits.scales or _ONE_SCALE).items():
            yield _Made(width * times, height * times, str(ratio), quality)


def _put(request: GenerateImageRequest, made: _Made) -> list[str]:
    if made[:2] == (request.width, request.height):
        return []
    request.width, request.height = made.width, made.height
    return [f"size={made.name}"]


def _clamped(asked: tuple[int, int], rule: SizeRange) -> _Made:
    """Return the size of a range that is nearest, and as nearly of the same ratio as may be."""
    largest = min(1.0, rule.max / max(asked), math.sqrt((rule.pixels or math.inf) / (asked[0] * asked[1])))
    factor = max(largest, rule.min / min(asked)) if largest == 1.0 else largest
    step = rule.multiple
    sides = [round(side * factor / step) * step for side in asked]
    low, high = -(-rule.min // step) * step, rule.max // step * step
    sides = [min(high, max(low, side)) for side in sides]
    if rule.pixels and sides[0] * sides[1] > rule.pixels:
        sides = [max(low, side - step) for side in sides]
    return _Made(sides[0], sides[1])


def _distance(asked: tuple[int, int], made: _Made) -> tuple[float, float]:
    """Return how far a size is: in its ratio first, then in its pixels."""
    ratio = abs(math.log(asked[0] / asked[1] / (made.width / made.height)))
    return round(ratio, 2), abs(math.log(asked[0] * asked[1] / (made.width * made.height)))


def _is_near(asked: tuple[int, int], made: _Made) -> bool:
    return abs(math.log(asked[0] / asked[1] / (made.width / made.height))) <= _FARTHEST


def _nearest_ratio(asked: float, known: Iterable[str]) -> str:
    """Return the known ratio that is nearest; empty where all are too far."""
    nearest = min(known, key=lambda ratio: abs(math.log(asked / _of(ratio))), default="")
    return nearest if nearest and abs(math.log(asked / _of(nearest))) <= _FARTHEST else ""


def _sides(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    return int(width), int(height)


def _reduced(size: str) -> str:
    """Return the ratio of a size, in its lowest terms."""
    width, height = _sides(size)
    divisor = math.gcd(width, height)
    return f"{width // divisor}:{height // divisor}"


def _of(ratio: str) -> float:
    across, _, down = ratio.partition(":")
    return int(across) / int(down)
