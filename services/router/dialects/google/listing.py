"""Models in Google's form."""

from __future__ import annotations

from functools import cache
from typing import Any

from services.catalogue import Model
from services.common import page_tokens
from services.common.dialects.google import VERBS
from services.common.errors import InvalidField
from services.router.dialects import google
from services.router.dialects.methods import method_sets
from services.router.domain.caller import Caller
from services.router.domain.listing import Listing

PAGE = 50
MAX_PAGE = 1000


def is_asked(context: Any) -> bool:
    """Return whether a call of a path that two vendors share means Google's: it carries Google's key header.

    The edge has moved `?key=` there.
    """
    return any(name == "x-goog-api-key" for name, _ in context.invocation_metadata() or ())


async def page(listing: Listing, caller: Caller, size: int, token: str) -> dict[str, Any]:
    """Return a page of the models that the key may use. Raises as `Listing.models`, and InvalidField."""
    if size < 0:
        raise InvalidField("pageSize must not be negative", param="pageSize")
    start = page_tokens.number(token, param="pageToken") or 0
    models = await listing.models(caller)
    stop = start + min(size or PAGE, MAX_PAGE)
    described = [describe(model, listing.name(model), listing.operation(model).name) for model in models[start:stop]]
    results: dict[str, Any] = {"models": described}
    if stop < len(models):
        results["nextPageToken"] = str(stop)
    return results


async def one(listing: Listing, caller: Caller, name: str) -> dict[str, Any]:
    """Describe one model. Raises as `Listing.model`."""
    model = await listing.model(caller, name_of(name))
    return describe(model, listing.name(model), listing.operation(model).name)


def name_of(path: str) -> str:
    """Return the model's name of a path `models/{name}`."""
    return path.removeprefix("models/")


def describe(model: Model, name: str, makes: str) -> dict[str, Any]:
    """Return a model, which is listed by a name, as Google's `Model` resource."""
    results: dict[str, Any] = {
        "name": f"models/{name}",
        "baseModelId": name,
        "version": model.id,
        "displayName": model.id,
        "description": f"{model.id} of {model.provider}",
        "supportedGenerationMethods": _verbs(makes),
    }
    if model.context_tokens:
        results["inputTokenLimit"] = model.context_tokens
    if model.max_output_tokens:
        results["outputTokenLimit"] = model.max_output_tokens
    if "reasoning" in model.known_capabilities:
        results["thinking"] = True
    return results


@cache
def _verbs(makes: str) -> tuple[str, ...]:
    """Return how the methods are called that models are asked by which make this."""
    return tuple(VERBS[name] for each in method_sets(google) if makes in each.makes for name in each.methods)
