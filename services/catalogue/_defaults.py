"""Hold a model's defaults to the limits of the fields that they stand in for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from moa.image.v1.image_pb2 import Diffusion
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1.text_pb2 import Sampling
from services.catalogue._faults import nearest
from services.common import limits
from services.common.errors import InvalidField


def _single(shape: type[Message]) -> Iterator[tuple[str, type[Message]]]:
    for field in shape.DESCRIPTOR.fields:
        if field.name in limits.settings(shape) or (field.message_type is None and not field.is_repeated):
            yield field.name, shape


_KNOWN: Final[Mapping[str, Mapping[str, type[Message]]]] = {
    "text": dict(_single(Sampling)),
    "image": {**dict(_single(Diffusion)), "width": GenerateImageRequest, "height": GenerateImageRequest},
}
"""The fields that may have a default, by what a model makes, each with its message."""


def fault_of(defaults: Mapping[str, Any], makes: str) -> str:
    """Return what is wrong with a model's defaults, beginning with the field; empty when nothing is."""
    known = _KNOWN.get(makes, {})
    for name, value in defaults.items():
        if name not in known:
            return f"defaults: nobody knows {name!r}{nearest(name, known)}"
        message = known[name]()
        try:
            limits.put(message, name, value)
            limits.check(message)
        except (TypeError, ValueError):
            return f"defaults.{name}: {value!r} is not a value of the field"
        except InvalidField as error:
            return f"defaults.{name}: {error.message}"
    return ""
