"""What of a request's sampling a provider takes: nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal

from moa.text.v1.text_pb2 import Sampling
from services.common import limits
from services.providers.text.ignored import Ignored

NUMBERS: Final = limits.numbers(Sampling)
"""Temperature, top_p and so on, by the contract's names."""

if TYPE_CHECKING:
    Number = str
else:
    Number = Literal[NUMBERS]
    """One of them, as a row's options name it."""


def given(sampling: Sampling, words: Mapping[str, str], ignored: Ignored) -> Iterator[tuple[str, int | float]]:
    """Yield the numbers that are given, each by the provider's word; those that have none are ignored by name."""
    for name in NUMBERS:
        if not sampling.HasField(name):  # type: ignore[arg-type]  # each is a field
            continue
        value = getattr(sampling, name)
        if name in words:
            yield words[name], value
        elif value or name == "seed":  # of the others 0 changes nothing
            ignored.add(name, f"this provider does not take {name}")
