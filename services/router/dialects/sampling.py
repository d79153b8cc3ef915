"""The numbers that steer sampling, as fields of bodies: what the contract's `Sampling` has, every dialect takes.

A dialect that publishes another range, or another kind of number, says so by a field of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Final

from google.protobuf.descriptor import FieldDescriptor
from msgspec import Struct, defstruct

from moa.text.v1.text_pb2 import Sampling
from services.common import limits

NAMES: Final = limits.numbers(Sampling)
"""Temperature, top_p and so on, by the contract's names."""

_WHOLE: Final = {name for name in NAMES if Sampling.DESCRIPTOR.fields_by_name[name].type != FieldDescriptor.TYPE_DOUBLE}

if TYPE_CHECKING:

    class Sampled(Struct, kw_only=True):
        """Base of bodies in snake case; each field is None where it is not given."""

    class CamelSampled(Struct, kw_only=True, rename="camel"):
        """The same in camel case."""

else:
    _FIELDS = [
        (name, Annotated[int if name in _WHOLE else float, limits.meta(Sampling, name)] | None, None) for name in NAMES
    ]
    Sampled = defstruct("Sampled", _FIELDS, kw_only=True, module=__name__)
    CamelSampled = defstruct("CamelSampled", _FIELDS, kw_only=True, rename="camel", module=__name__)


def fill(sampling: Sampling, body: Sampled | CamelSampled) -> None:
    """Set what a body gives."""
    for name in NAMES:
        value = getattr(body, name)
        if value is not None and not (name == "top_k" and value <= 0):
            # Where a dialect's number is a float, a fraction of a token keeps none more.
            setattr(sampling, name, math.floor(value) if name in _WHOLE else value)
