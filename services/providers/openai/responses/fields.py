"""What passes between callers and the Responses API beyond the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from moa.text.v1.text_pb2 import Part, Tool
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.common import vendor_fields
from services.common.errors import Unsupported
from services.providers.openai.text.carried import COSTS, DEAR_TIERS, STORED, VENDOR
from services.providers.text.ignored import Ignored

Json = dict[str, Any]

OWN_KINDS: Final = "openai.responses"
"""Whose the parts and tools of its own kinds are."""
OWN: Final = "responses"
"""In the envelope of a request or an event, what the Responses API alone has. A request has it where its caller speaks
that API."""

_PASSING: Final = ("metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier")
_PASSING_OWN: Final = (
    *("truncation", "max_tool_calls", "context_management", "moderation", "image", "access_programs"),
    *("prompt_cache_options",),
)
_BILLED: Final = frozenset(
    (
        *("web_search", "web_search_preview", "code_interpreter", "file_search", "image_generation", "shell"),
        *("programmatic_tool_calling",),
    )
)
"""Tools that OpenAI runs and bills apart, or that reach what is stored: a model's row says which it may use."""
_STORED: Final = frozenset(("file_id", "file_ids", "tunnel_id", "vector_store_ids"))


def own_kinds(model: Model) -> str:
    """Return whose parts and tools of its own kinds a model takes."""
    return OWN_KINDS if model.limits.method == "responses" else VENDOR


def of_request(request: GenerateTextRequest, ignored: Ignored) -> tuple[Json, Json, bool]:
    """Return the fields that pass: OpenAI's, those of the Responses API alone, and whether its caller speaks that.

    Raises InvalidField; Unsupported if strict.
    """
    given = vendor_fields.fields_of(request.vendor, VENDOR)
    speaks = OWN in given
    own = given.pop(OWN, None)
    own = own if isinstance(own, dict) else {}
    passing: Json = {}
    for name, value in given.items():
        if name == "service_tier" and value in DEAR_TIERS:
            ignored.add(name, f"{name} is not passed on: {COSTS}")
        elif name in _PASSING:
            passing[name] = value
        elif name == "verbosity":
            passing["text"] = {"verbosity": value}
        elif not vendor_fields.is_no_op(name, value):
            ignored.add(name, f"{name} is not passed on: OpenAI does not take it")
    passing |= {name: own.pop(name) for name in _PASSING_OWN if name in own}
    for name in own.keys() - {"include", "reasoning", "tool_choice"}:
        ignored.add(name, f"{name} is not passed on: OpenAI does not take it")
    return passing, own, speaks


def of_part(part: Part, where: str) -> Json:
    """Return what a part has beside the contract; all of an item of the API's own kinds is `item`."""
    return vendor_fields.fields_of(part.vendor, OWN_KINDS, where)


def tool_of(tool: Tool, model: Model, where: str) -> Json:
    """Return a tool of the API's own kinds. Raises Unsupported for one that the model's row does not let."""
    given: Any = vendor_fields.fields_of(tool.vendor, OWN_KINDS, where).get("tool")
    check_tool(given, model, where)
    return dict(given)


def item_of(part: Part, model: Model, where: str) -> Json:
    """Return an item of the API's own kinds. Raises Unsupported, for tools in it as `check_tool` does."""
    item: Any = of_part(part, where).get("item")
    if not isinstance(item, dict) or item.get("type") in (None, "item_reference") or _is_stored(item):
        raise Unsupported(f"an item of that kind is not passed on: {STORED}", param=where)
    for each in item["tools"] if isinstance(item.get("tools"), list) else ():
        check_tool(each, model, where)
    return item


def check_tool(given: Any, model: Model, where: str) -> None:
    """Raise Unsupported for a tool that the model's row does not let, or that reaches what is stored."""
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(kind, str):
        raise Unsupported("this model takes no tool of that kind", param=where)
    for each in given["tools"] if isinstance(given.get("tools"), list) else ():
        check_tool(each, model, where)
    name = "web_search" if kind.startswith("web_search") else kind
    if (name in _BILLED or kind in _BILLED) and not {name, kind} & model.limits.hosted_tools:
        raise Unsupported(f"{kind} is billed apart; this model's row does not name it in hosted_tools", param=where)
    places = (given, given.get("container"), given.get("input_image_mask"))
    if kind != "file_search" and (isinstance(places[1], str) or any(map(_is_stored, places))):
        raise Unsupported(f"{kind}: {STORED}", param=where)


def _is_stored(given: Any) -> bool:
    return isinstance(given, Mapping) and not _STORED.isdisjoint(given)
