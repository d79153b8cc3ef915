"""What models take, give and can do, and when they end, out of LiteLLM's table of models."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from services.catalogue import ALWAYS, Facts, ImageAt, Price, Tier

FAMILIES: Final = {
    "openai": "openai",
    "azure": "azure",
    "gemini": "gemini",
    "bedrock": "bedrock",
    "bedrock_converse": "bedrock",
    "anthropic": "anthropic",
    "stability": "stability",
}
"""Its providers whose models are ours, each with the family's name."""

_WITH_RESPONSES: Final = ("openai", "azure")
"""Families whose models may have the Responses API alone."""
_PREFIXES: Final = {"azure": "azure/", "gemini": "gemini/", "stability": "stability/"}
_MAKES: Final = {"chat": "text", "responses": "text", "embedding": "embedding", "image_generation": "image"}
_WORDS: Final = {
    "supports_vision": "vision",
    "supports_function_calling": "tools",
    "supports_response_schema": "json_schema",
    "supports_reasoning": "reasoning",
    "supports_web_search": "search",
    "supports_assistant_prefill": "prefill",
}
_INPUTS: Final = {
    "supports_vision": "image",
    "supports_audio_input": "audio",
    "supports_video_input": "video",
    "supports_pdf_input": "file",
}
_MODALITIES: Final = ("text", "image", "audio", "video", "file")
_KINDS: Final = {
    "input_cost_per_token": "input",
    "cache_read_input_token_cost": "cached",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_image_token": "image_input",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_token": "output",
    "output_cost_per_reasoning_token": "reasoning",
    "output_cost_per_image_token": "image_output",
    "output_cost_per_audio_token": "audio_output",
}
_TIER: Final = re.compile(r"^(.+)_above_(\d+)k_tokens$")
_SIZED: Final = re.compile(r"^(low|medium|high)/(\d+)-x-(\d+)/([^/]+)$")
_QUALITIES: Final = {"low", "medium", "high"}
"""Of a table of images all of these are known, or it would bound less than what may be asked for."""
_NANO: Final = 10**9
_A_MILLION: Final = 10**6

Table = Mapping[str, Mapping[str, Any]]


def models(table: Table) -> Iterator[tuple[str, str, Facts]]:
    """Yield the family, the id and the facts of each model that is ours; successors are as the table writes them."""
    sized: dict[str, list[ImageAt]] = {}
    for name, row in table.items():
        if match := _SIZED.match(name):
            nano = _nano(row.get("input_cost_per_image"), 1)
            if nano is not None:
                sized.setdefault(match[4], []).append(
                    ImageAt(nano=nano, quality=match[1], size=f"{match[2]}x{match[3]}")  # type: ignore[arg-type]
                )
    for name, row in table.items():
        family = FAMILIES.get(row.get("litellm_provider", ""))
        prefix = _PREFIXES.get(family or "", "")
        model_id = name.removeprefix(prefix)
        if family is None or not name.startswith(prefix) or "/" in model_id or row.get("mode") not in _MAKES:
            continue
        yield family, model_id, _facts(row, tuple(sized.get(model_id, ())) if family == "openai" else ())


def _facts(row: Mapping[str, Any], images: tuple[ImageAt, ...]) -> Facts:
    price = _price(row, images if {one.quality for one in images} == _QUALITIES else _longest(row))
    words = _WORDS if _MAKES[row["mode"]] == "text" else {}
    ends = row.get("deprecation_date")
    successor = str(row.get("successor_model", ""))
    return Facts(
        makes=_MAKES[row["mode"]],  # type: ignore[arg-type]
        method="responses" if row["mode"] == "responses" and row["litellm_provider"] in _WITH_RESPONSES else None,
        context_tokens=int(row.get("max_input_tokens") or 0) or None,
        max_output_tokens=int(row.get("max_output_tokens") or 0) or None if row["mode"] != "embedding" else None,
        inputs=_modalities(row, "supported_modalities", _INPUTS),
        outputs=_modalities(row, "supported_output_modalities", {}),
        capabilities=_flagged(row, words, is_true=True),
        lacks=_flagged(row, words, is_true=False),
        prices=(price,) if price is not None else (),
        retires=dt.date.fromisoformat(ends) if ends else None,
        successor=successor.rpartition("/")[2],
    )


def _longest(row: Mapping[str, Any]) -> tuple[ImageAt, ...]:
    """Return what an image costs at most whose tokens are paid: as many as the longest answer has; none: unknown."""
    a_token, most = _nano(row.get("output_cost_per_image_token"), _A_MILLION), row.get("max_output_tokens")
    if row["mode"] != "image_generation" or not a_token or not most:
        return ()
    return (ImageAt(nano=-(-a_token * int(most) // _A_MILLION)),)


def _flagged(row: Mapping[str, Any], words: Mapping[str, str], *, is_true: bool) -> Any:
    return tuple(sorted(word for flag, word in words.items() if row.get(flag) is is_true))


def _modalities(row: Mapping[str, Any], field: str, flags: Mapping[str, str]) -> Any:
    """Return the modalities that the row lists, and those that its flags tell; none where it lists none."""
    known = row.get(field)
    if not known:
        return ()
    words = {*known, *(word for flag, word in flags.items() if row.get(flag) is True)}
    return tuple(word for word in _MODALITIES if word in words)


def _price(row: Mapping[str, Any], images: tuple[ImageAt, ...]) -> Price | None:
    base: dict[str, int] = {}
    steps: dict[int, dict[str, int]] = {}
    for field, value in row.items():
        tier = _TIER.match(field)
        kind = _KINDS.get(tier[1] if tier else field)
        nano = _nano(value, _A_MILLION) if kind else None
        if kind and nano is not None:
            (steps.setdefault(int(tier[2]) * 1000, {}) if tier else base)[kind] = nano
    if base.get("reasoning") == base.get("output"):
        base.pop("reasoning", None)
    image = _nano(row.get("output_cost_per_image"), 1) if not base.get("image_output") else None
    if not base and image is None and not images:
        return None
    tiers = []
    so_far: dict[str, int] = {}
    for start in sorted(steps):
        so_far = so_far | steps[start]
        tiers.append(Tier(above=start, **so_far))
    return Price(since=ALWAYS, tiers=tuple(tiers), image=image, images=images, **base)


def _nano(dollars: Any, times: int) -> int | None:
    """Return nano-dollars, or None where the table has no number."""
    if not isinstance(dollars, int | float) or isinstance(dollars, bool):
        return None
    return round(Decimal(repr(dollars)) * times * _NANO)
