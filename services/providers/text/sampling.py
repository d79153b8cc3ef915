"""What of a request's sampling a provider takes: nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from moa.text.v1.text_pb2 import Sampling
from services.common import limits
from services.common.errors import Unsupported
from services.providers.text.ignored import Ignored

SETTINGS: Final = limits.settings(Sampling)
"""Temperature, top_p and so on, by the contract's names."""

if TYPE_CHECKING:
    Setting = str
else:
    Setting = Literal[SETTINGS]
    """One of them, as a row's options name it."""


def given(sampling: Sampling, words: Mapping[str, str], ignored: Ignored) -> Iterator[tuple[str, Any]]:
    """Yield the settings that are given, each by the provider's word; those that have none are ignored by name."""
    for name, value in limits.given_settings(sampling):
        if name in words:
            yield words[name], value
        elif value or name == "seed":  # of the other numbers 0 changes nothing
            ignored.add(name, f"this provider does not take {name}")


def up_to_one(sampling: Sampling, words: Mapping[str, str], ignored: Ignored) -> dict[str, Any]:
    """Do as `given`, for protocols whose temperature ends at 1, and which neither bias nor weigh tokens."""
    made = dict(given(sampling, words, ignored))
    if sampling.logit_bias:
        ignored.add("logit_bias", "this provider does not bias tokens")
    if sampling.logprobs:
        raise Unsupported("this provider does not give log probabilities", param="logprobs")
    if sampling.temperature > 1:
        made[words["temperature"]] = 1.0
        ignored.nearest("temperature", 1, "this provider takes a temperature from 0 to 1")
    return made
