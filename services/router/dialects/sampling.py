"""The settings that steer sampling, as fields of bodies: what the contract's `Sampling` has, every dialect takes.

A dialect that publishes another range, or another kind of value, says so by a field of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, defstruct

from moa.text.v1.text_pb2 import Sampling
from services.common import limits

NAMES: Final = limits.settings(Sampling)
"""Temperature, top_p and so on, by the contract's names."""

if TYPE_CHECKING:

    class Sampled(Struct, kw_only=True):
        """Base of bodies in snake case; each field is None where it is not given."""

    class CamelSampled(Struct, kw_only=True, rename="camel"):
        """The same in camel case."""

else:

    def _fields(*, camel: bool) -> list[tuple[str, Any, None]]:
        return [(name, limits.shape(Sampling, name, camel=camel) | None, None) for name in NAMES]

    Sampled = defstruct("Sampled", _fields(camel=False), kw_only=True, module=__name__)
    CamelSampled = defstruct("CamelSampled", _fields(camel=True), kw_only=True, rename="camel", module=__name__)


def fill(sampling: Sampling, body: Sampled | CamelSampled) -> None:
    """Set what a body gives."""
    for name in NAMES:
        value = getattr(body, name)
        if value is not None and not (name == "top_k" and value <= 0):
            limits.put(sampling, name, value)
