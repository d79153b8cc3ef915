"""Models in Anthropic's form: `GET /v1/models` (platform.claude.com/docs/en/api/models/list), those that make text."""

from __future__ import annotations

from collections.abc import Set
from datetime import UTC, date, datetime, time
from typing import Any, Final

from services.catalogue import Model
from services.common.dialects.anthropic import VERSION_KEY
from services.common.errors import InvalidField, ModelNotFound
from services.common.rpc.call import metadata_of
from services.router.domain.caller import Caller
from services.router.domain.listing import Listing

PAGE: Final = 20
MAX_PAGE: Final = 1000
_MAKES: Final = "text"
_CAPABILITIES: Final = {"image_input": "vision", "pdf_input": "files", "structured_outputs": "json_schema"}
"""Anthropic's words for what a model can do."""
_UNSERVED: Final = ("citations", "code_execution")
"""What this gateway has not, or tells of no model."""
_EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
_THINKING: Final = ("adaptive", "between_tools", "enabled")


def is_asked(context: Any) -> bool:
    """Return whether a call of a path that several vendors share means Anthropic's: it says which version it speaks."""
    return any(name == VERSION_KEY for name, _ in metadata_of(context))


async def page(listing: Listing, caller: Caller, after: str, before: str, limit: int) -> dict[str, Any]:
    """Return a page of the models that the key may use. Raises as `Listing.models`, and InvalidField."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidField(f"limit must be from 1 to {MAX_PAGE}", param="limit")
    if after and before:
        raise InvalidField("give after_id or before_id, not both", param="before_id")
    models = [each for each in await listing.models(caller) if listing.operation(each).name == _MAKES]
    names = [listing.name(model) for model in models]
    if before:
        stop = _place(names, before, "before_id")
        start = max(0, stop - limit)
        has_more = start > 0
    else:
        start = _place(names, after, "after_id") + 1 if after else 0
        stop = start + limit
        has_more = stop < len(models)
    shown = [describe(listing, model) for model in models[start:stop]]
    return {
        "data": shown,
        "has_more": has_more,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }


async def one(listing: Listing, caller: Caller, name: str) -> dict[str, Any]:
    """Describe one model. Raises as `Listing.model`, and ModelNotFound for one that makes no text."""
    model = await listing.model(caller, name)
    if listing.operation(model).name != _MAKES:
        raise ModelNotFound(f"model {name!r} makes no text", param="model")
    return describe(listing, model)


def describe(listing: Listing, model: Model) -> dict[str, Any]:
    """Return a model as Anthropic's `ModelInfo`."""
    known, name = listing.described(model), listing.name(model)
    able = None if known.capabilities is None else set(known.capabilities)
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": known.context_tokens,
        "max_tokens": known.max_output_tokens,
        "capabilities": None if able is None else _abilities(able),
        "lifecycle": "active" if known.retires is None else "deprecated",
        "deprecated_at": None if model.retirement is None else _day(model.retirement.announced),
        "retires_at": _day(known.retires),
    }


def _abilities(able: Set[str]) -> dict[str, Any]:
    """Return what a model can do, as Anthropic's clients know it: all keys are there."""
    made: dict[str, Any] = {word: _supported(own in able) for word, own in _CAPABILITIES.items()}
    made |= {word: _supported(False) for word in _UNSERVED}
    made["batch"] = _supported(True)  # Batches are of any model's requests.
    thinks, searches = "reasoning" in able, _supported("search" in able)
    # An effort, a budget and Anthropic's own choice are each said in the model's words.
    types = {kind: _supported(thinks) for kind in _THINKING} | {"disabled": _supported(True)}
    made["thinking"] = {**_supported(thinks), "types": types}
    made["effort"] = {**_supported(thinks), **{word: _supported(thinks) for word in _EFFORTS}}
    made["context_management"] = _supported(False)
    made["server_tools"] = {**searches, "web_search": searches, "code_execution": _supported(False)}
    return made


def _supported(supported: bool) -> dict[str, bool]:
    return {"supported": supported}


def _day(day: date | None) -> str | None:
    """Return a day's first moment."""
    return None if day is None else datetime.combine(day, time.min, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _place(names: list[str], name: str, param: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise InvalidField(f"{param} is the id of none of the models", param=param) from None
