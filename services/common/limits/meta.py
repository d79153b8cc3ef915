"""A field's limits as other readers of requests take them: bounds, and msgspec's annotations of bodies."""

from __future__ import annotations

import math
from typing import Final, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from msgspec import Meta

from services.common.limits.fields import is_map, of

_LARGEST_32: Final = 2**31 - 1
"""Of unsigned fields too: providers behind them read signed numbers."""
_WHOLE: Final = {
    **dict.fromkeys((FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32), (-(2**31), _LARGEST_32)),
    FieldDescriptor.TYPE_UINT32: (0, _LARGEST_32),
    **dict.fromkeys((FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64), (-(2**63), 2**63 - 1)),
    FieldDescriptor.TYPE_UINT64: (0, 2**63 - 1),
}


def bounds(message: type[Message], field: str, *, at_least: int | None = None) -> tuple[float, float]:
    """Return the least and the greatest value of a number, or of a map's values, by its limits, else by its type.

    `at_least` is for bodies in which a field's "none" is not written as 0.
    """
    described = _described(message, field)
    limits = of(described)
    low, high = _WHOLE.get(described.type, (-math.inf, math.inf))
    if at_least is not None:
        low = at_least
    elif limits.HasField("at_least"):
        low = _written(limits.at_least)
    return low, _written(limits.at_most) if limits.HasField("at_most") else high


def meta(message: type[Message], field: str, *, at_least: int | None = None) -> Meta:
    """Return the annotation of a body's field that becomes a contract's field."""
    described = _described(message, field)
    limits = of(described)
    if (described.is_repeated and not is_map(described)) or described.type == FieldDescriptor.TYPE_STRING:
        least, most = 1 if limits.required else None, limits.most if limits.HasField("most") else None
        return Meta(min_length=least, max_length=most)
    low, high = bounds(message, field, at_least=at_least)
    return Meta(ge=low if math.isfinite(low) else None, le=high if math.isfinite(high) else None)


def _described(message: type[Message], field: str) -> FieldDescriptor:
    return cast(FieldDescriptor, message.DESCRIPTOR.fields_by_name[field])


def _written(value: float) -> float:
    """Return a number as people write it: whole ones without a fraction."""
    return int(value) if value.is_integer() else value
