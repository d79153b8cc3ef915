"""What passes between callers who speak the Messages API and Claude: fields that no contract types.

Everything passes but what is ours to decide. `DENIED` says what that is, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from moa.common.v1.vendor_pb2 import VendorFields
from moa.text.v1.text_pb2 import Tool
from services.catalogue import Model
from services.common import vendor_fields
from services.common.errors import Unsupported
from services.providers.text.ignored import Ignored
from services.providers.text.searches import SEARCHED

VENDOR: Final = "anthropic"
BETA: Final = "anthropic-beta"
"""A header, by whose name a request's envelope tells which betas the caller asks for."""

Json = dict[str, Any]

_STORED: Final = "it reaches what is stored in the operator's account"
_COSTS: Final = "it costs more than the tokens that are counted"
_TARGET: Final = "who answers is chosen by the gateway"
_TYPED: Final = "the gateway has it in its own form"

DENIED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("speed", "inference_geo"), _COSTS),
    **dict.fromkeys(("fallbacks", "fallback_models", "user_profile_id"), _TARGET),
    **dict.fromkeys(("model", "messages", "system", "stream", "max_tokens", "stop_sequences"), _TYPED),
    **dict.fromkeys(("tools", "tool_choice", "mcp_servers"), _TYPED),
}
"""Beside the messages."""
_DEAR_BETAS: Final = ("fast-mode",)
"""How the names of betas begin that cost more."""
_SEARCHES: Final = "web_search"
"""How the types of tools begin that Anthropic bills by the search: for models with the capability `search`."""
_READ: Final = frozenset((BETA, "thinking", "output_config"))
"""Of a request's envelope, what is read here in parts."""
_PLAIN_TTL: Final = (None, "5m")

_KNOWN_USAGE: Final = frozenset(
    ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
)
_KNOWN_CALL: Final = frozenset(("type", "id", "name", "input"))
_KNOWN_MESSAGE: Final = frozenset(
    ("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage", "error")
)
_ENDS: Final = frozenset(("pause_turn", "model_context_window_exceeded"))
"""Why an answer ended, in words that the contract has not."""


class Carrier:
    """Puts a request's fields where they belong.

    Args:
        given: The envelope of the request.
        ignored: Told of what does not pass.
    """

    __slots__ = ("_fields", "_ignored")

    def __init__(self, given: VendorFields, ignored: Ignored) -> None:
        self._fields = vendor_fields.fields_of(given, VENDOR)
        self._ignored = ignored

    @property
    def effort(self) -> str:
        """The caller's own word for how much is spent on the answer; empty: none."""
        word = _object(self._fields, "output_config").get("effort")
        return word if isinstance(word, str) else ""

    @property
    def thinking(self) -> str:
        """The kind of thinking that the caller asked for; empty: it said nothing of it."""
        word = _object(self._fields, "thinking").get("type")
        return word if isinstance(word, str) else ""

    @property
    def display(self) -> str:
        """How the caller wants thoughts to be shown; empty: as they are."""
        word = _object(self._fields, "thinking").get("display")
        return word if isinstance(word, str) else ""

    def headers(self) -> dict[str, str]:
        """Return the header that asks for betas; none where there are none."""
        given = self._fields.get(BETA)
        betas = [beta for beta in given if isinstance(beta, str) and _is_name(beta)] if isinstance(given, list) else []
        dear = [beta for beta in betas if beta.startswith(_DEAR_BETAS)]
        if dear:
            self._ignored.add(BETA, f"{dear[0]} is not passed on: {_COSTS}")
        passing = [beta for beta in betas if beta not in dear]
        return {BETA: ",".join(passing)} if passing else {}

    def merge_all(self, into: Json) -> None:
        """Merge what stands beside the messages. Raises Unsupported if strict."""
        passing: Json = {}
        for name, value in self._fields.items():
            if name in DENIED:
                self._ignored.add(name, f"{name} is not passed on: {DENIED[name]}")
            elif name == "cache_control":
                passing[name] = self._mark(value)
            elif name not in _READ:
                passing[name] = value
        beside = {name: value for name, value in _object(self._fields, "output_config").items() if name != "effort"}
        if beside:
            passing["output_config"] = beside
        vendor_fields.merge(into, passing)

    def merge(self, into: Json, given: VendorFields, where: str) -> None:
        """Merge the fields of a part of the request. Raises InvalidField; Unsupported if strict."""
        if not given.json:
            return
        fields = vendor_fields.fields_of(given, VENDOR, where)
        if "cache_control" in fields:
            fields["cache_control"] = self._mark(fields["cache_control"])
            if "cache_control" not in into:
                del fields["cache_control"]  # more marks than are taken
        _restore(into, fields.pop("span", None), fields.pop("spans", None))
        vendor_fields.merge(into, fields)

    def own_block(self, given: VendorFields, where: str) -> Json:
        """Return a block of a kind that only Anthropic knows. Raises InvalidField for what is none."""
        fields = vendor_fields.fields_of(given, VENDOR, where)
        if "cache_control" in fields:
            fields["cache_control"] = self._mark(fields["cache_control"])
        return fields

    def own_tool(self, tool: Tool, model: Model, where: str) -> Json:
        """Return a tool that Anthropic defines, or `mcp_servers`. Raises Unsupported for one that it bills apart."""
        fields = vendor_fields.fields_of(tool.vendor, VENDOR, where)
        kind = fields.get("type")
        if isinstance(kind, str) and kind.startswith(_SEARCHES) and not model.can("search"):
            raise Unsupported(f"model {model.id!r} does not search the web", param=where)
        return fields

    def _mark(self, value: Any) -> Any:
        if isinstance(value, dict) and value.get("ttl") not in _PLAIN_TTL:
            self._ignored.add("cache_control.ttl", f"ttl is not passed on: {_COSTS}")
            return {name: inner for name, inner in value.items() if name != "ttl"}
        return value


def _restore(into: Json, span: Any, spans: Any) -> None:
    """Make the text of a document that is text a document again, where its vendor's own callers sent it so.

    `span` is where the text begins and ends, `spans` where each of its blocks does.
    """
    text = into.get("text")
    if not isinstance(text, str) or not (_is_span(span) or isinstance(spans, list)):
        return
    if _is_span(span):
        origin: Json = {"type": "text", "media_type": "text/plain", "data": text[span[0] : span[1]]}
    else:
        blocks = [{"type": "text", "text": text[each[0] : each[1]]} for each in spans if _is_span(each)]
        origin = {"type": "content", "content": blocks}
    del into["text"]
    into |= {"type": "document", "source": origin}


def _is_span(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, int) for each in value)


def _object(fields: Json, name: str) -> Json:
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def _is_name(beta: str) -> bool:
    return beta.isascii() and beta.isprintable() and "," not in beta


class Returned:
    """Finds, in an answer's pieces, what no contract types. Made for one answer: what is told once is not repeated."""

    __slots__ = ("_own_name", "_searched", "_sent")

    def __init__(self, own_name: str) -> None:
        self._own_name = own_name
        self._searched = 0
        self._sent: Json = {}

    def of_answer(self, message: Mapping[str, Any], usage: Any) -> Json:
        """Return what a message, or its end, says of the whole answer and has not said before."""
        found = {
            name: value
            for name, value in message.items()
            if name not in _KNOWN_MESSAGE and value is not None and self._sent.get(name) != value
        }
        reason, model = message.get("stop_reason"), message.get("model")
        if isinstance(reason, str) and reason in _ENDS:
            found["stop_reason"] = reason
        if isinstance(model, str) and model != self._own_name:  # callers know it by the catalogue's name
            found["model"] = model
        if isinstance(usage, dict):
            more = {
                name: value
                for name, value in usage.items()
                if name not in _KNOWN_USAGE and value is not None and name != "output_tokens_details"
            }
            if more and self._sent.get("usage") != more:
                found["usage"] = more
            self._note_searches(more.get("server_tool_use"))
        self._sent |= found
        return found

    def _note_searches(self, counts: Any) -> None:
        made = counts.get("web_search_requests") if isinstance(counts, dict) else None
        if isinstance(made, int) and made > self._searched:
            SEARCHED.labels(self._own_name).inc(made - self._searched)
            self._searched = made


def of_call(block: Mapping[str, Any]) -> Json:
    """Return what a block says of a call beside the contract's fields."""
    return {name: value for name, value in block.items() if name not in _KNOWN_CALL and value is not None}
