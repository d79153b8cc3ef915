"""The rows of virtual models: names that callers use over several targets.

What is done with them per request is `services/router/domain/choice.py`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, Struct

Id = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
Share = Annotated[float, Meta(gt=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
LONGEST_TAG_BYTES: Final = 64
"""How long a request's tag may be (`moa-tags`)."""
Tag = Annotated[str, Meta(min_length=1, max_length=LONGEST_TAG_BYTES)]
Strategy = Literal[
    "ordered", "weighted", "least_outstanding", "first_token", "per_token", "lowest_price", "most_headroom"
]
Modality = Literal["text", "image", "audio", "video", "file"]
MODALITIES: Final[frozenset[str]] = frozenset(get_args(Modality))
MOST_TARGETS: Final = 64
"""How many targets a virtual model may come to, those of the virtual models that it names included."""
ADAPTER: Final = "virtual"
"""What stands as the adapter of the providers that virtual models are listed under."""


class When(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which requests a target is for. What is not said is no condition."""

    tags: tuple[Tag, ...] = ()
    """The request has one of these tags at least (`moa-tags`)."""
    without_tags: tuple[Tag, ...] = ()
    """The request has none of these."""
    min_prompt_tokens: Count = 0
    """Its prompt has at least so many tokens, as the gateway estimates them."""
    max_prompt_tokens: Count | None = None
    """Its prompt has at most so many."""
    modalities: tuple[Modality, ...] | None = None
    """Its prompt holds nothing but these."""
    needs: tuple[str, ...] = ()
    """It needs all of these: modalities, or words of capabilities."""


class RouteTarget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of a virtual model's targets."""

    model: Id
    """A model's id or full id, `provider@variant/id`, or another virtual model."""
    weight: Annotated[float, Meta(ge=0, le=1_000_000)] = 1.0
    """Its part of the requests among the others' (`weighted`, and sticky requests); 0: only when the others fail."""
    when: When = When()
    """Which requests it is for."""
    canary: Share | None = None
    """The share of the requests that it is asked first for; of the others it gets none."""
    shadow: Share | None = None
    """The share of the requests that it is asked too, when another has begun to answer. Its answer is dropped, and its
    cost is the operator's."""


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A virtual model: a name that callers use over targets."""

    id: Id
    """What callers write as `model`."""
    targets: Annotated[tuple[RouteTarget, ...], Meta(min_length=1, max_length=MOST_TARGETS)]
    """Who may answer."""
    strategy: Strategy = "ordered"
    """Which of them is asked first; when it fails the next of the same order is."""
    sticky: bool = False
    """Whether a conversation stays with its target: by `prompt_cache_key`, `user`, or how its prompt begins."""
    hedge: bool = False
    """Whether the next target is asked too when the first has said nothing for longer than 95% of its own answers."""
    on_first_failure: Literal["retry", "next"] = "next"
    """As a model's: whether the first target is asked once more before the next."""
    created: Count = 0
    """What listings show, in seconds since 1970."""

    @property
    def canaries(self) -> float:
        """The share of all canaries together."""
        return sum(target.canary or 0.0 for target in self.targets)


def provider_of(makes: str) -> str:
    """Return the id of the provider that virtual models are listed under which make this."""
    return f"virtual-{makes}"
