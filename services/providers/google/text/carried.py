"""What passes between callers who speak Google's API and Gemini: fields that no contract types.

Everything passes but what is ours to decide. `DENIED` says what that is, and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Final

from moa.common.v1.vendor_pb2 import VendorFields
from services.common import vendor_fields
from services.providers.text.embedded_errors import may_speak
from services.providers.text.ignored import Ignored
from services.providers.text.searches import SEARCHED

VENDOR: Final = "google"

Json = dict[str, Any]

_STORED: Final = "it reaches what is stored in the operator's account"
_COSTS: Final = "it costs more than the tokens that are counted"
_TYPED: Final = "the gateway has it in its own form"

DENIED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("store", "cachedContent", "cached_content", "batch"), _STORED),
    **dict.fromkeys(("model", "contents", "systemInstruction", "tools"), _TYPED),
}
"""Beside the contents."""
DENIED_CONFIG: Final[Mapping[str, str]] = dict.fromkeys(
    ("candidateCount", "maxOutputTokens", "responseModalities", "speechConfig", "imageConfig"), _TYPED
)
"""Of `generationConfig`."""
DENIED_FOR_IMAGES: Final[Mapping[str, str]] = {
    name: why for name, why in DENIED_CONFIG.items() if name != "imageConfig"
}
"""The same, of models that make images: what is typed of how an image is made counts before what is not."""
DENIED_CALLING: Final[Mapping[str, str]] = {"streamFunctionCallArguments": "calls are told whole"}
"""Of `toolConfig.functionCallingConfig`."""
DENIED_TOOLS: Final[Mapping[str, str]] = {
    "fileSearch": _STORED,
    "retrieval": _STORED,
    "functionDeclarations": _TYPED,
    "googleMaps": _COSTS,
}
"""Tools that run at Google."""
SEARCHES: Final = frozenset(("googleSearch", "googleSearchRetrieval", "enterpriseWebSearch"))
"""Tools that Google bills by the search: for models whose row has the capability `search`."""
_DEAR_TIERS: Final = frozenset(("priority", "PRIORITY", "SERVICE_TIER_PRIORITY"))

_KNOWN_ANSWER: Final = frozenset(("candidates", "usageMetadata", "responseId", "error"))
_KNOWN_CANDIDATE: Final = frozenset(("index", "content", "logprobsResult"))
_BESIDE_CANDIDATE: Final = frozenset(
    (
        *("finishReason", "finishMessage", "safetyRatings", "citationMetadata", "tokenCount", "groundingMetadata"),
        *("groundingAttributions", "urlContextMetadata", "avgLogprobs"),
    )
)
"""What says something of a candidate, and is none of its words."""
_KNOWN_PART: Final = frozenset(("text", "thought", "thoughtSignature", "functionCall"))
_BESIDE_PART: Final = frozenset(("videoMetadata", "mediaResolution", "partMetadata"))
"""What says something of a part, and is none."""
_KNOWN_CALL: Final = frozenset(("name", "id", "args"))
_KNOWN_USAGE: Final = frozenset(("promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount"))
_KNOWN_CONTENT: Final = frozenset(("parts", "role"))


def merge(
    into: Json, given: VendorFields, where: str, ignored: Ignored, denied: Mapping[str, str] = DENIED_CONFIG
) -> None:
    """Merge the fields of a part of the request into what is sent, but those of `generationConfig` in `denied`.

    Raises InvalidField; Unsupported if strict.
    """
    if not given.json:
        return
    fields = vendor_fields.fields_of(given, VENDOR, where or "vendor")
    if not where:
        _refuse(fields, DENIED, "", ignored)
        if fields.get("serviceTier") in _DEAR_TIERS:
            ignored.add("serviceTier", f"this tier is not passed on: {_COSTS}")
            del fields["serviceTier"]
        if isinstance(fields.get("generationConfig"), dict):
            _refuse(fields["generationConfig"], denied, "generationConfig.", ignored)
        calling = fields.get("toolConfig", {})
        calling = calling.get("functionCallingConfig") if isinstance(calling, dict) else None
        if isinstance(calling, dict):
            _refuse(calling, DENIED_CALLING, "toolConfig.functionCallingConfig.", ignored)
    vendor_fields.merge(into, fields)


def _refuse(fields: Json, denied: Mapping[str, str], prefix: str, ignored: Ignored) -> None:
    for name in [name for name in fields if name in denied]:
        ignored.add(prefix + name, f"{prefix}{name} is not passed on: {denied[name]}")
        del fields[name]


class Returned:
    """Finds, in an answer's pieces, what no contract types. Made for one answer: what is told once is not repeated."""

    __slots__ = ("_own_name", "_searched", "_sent")

    def __init__(self, own_name: str) -> None:
        self._own_name = own_name
        self._searched: dict[int, int] = {}
        self._sent: dict[int | None, Json] = {}

    def of_answer(self, piece: Mapping[str, Any]) -> Json:
        """Return what a piece says of the whole answer and has not said before."""
        found = beyond(piece, _KNOWN_ANSWER)
        if found.get("modelVersion") == self._own_name:
            del found["modelVersion"]  # callers know it by the catalogue's name
        usage = piece.get("usageMetadata")
        if isinstance(usage, dict) and (more := beyond(usage, _KNOWN_USAGE)):
            found["usageMetadata"] = more
        return self._new(None, found)

    def of_candidate(self, candidate: Mapping[str, Any], index: int) -> Json:
        """Return what a piece says of a candidate beside its content, and has not said before."""
        found = beyond(candidate, _KNOWN_CANDIDATE)
        content = candidate.get("content")
        if isinstance(content, dict) and (more := beyond(content, _KNOWN_CONTENT)):
            found["content"] = more
        if not found:
            return found
        new = self._new(index, found)
        grounding = new.get("groundingMetadata")
        queries = grounding.get("webSearchQueries") if isinstance(grounding, dict) else None
        if isinstance(queries, list) and (count := len(queries) - self._searched.get(index, 0)) > 0:
            self._searched[index] = len(queries)
            SEARCHED.labels(self._own_name).inc(count)
        return new

    def _new(self, key: int | None, found: Json) -> Json:
        sent = self._sent.setdefault(key, {})
        new = {name: value for name, value in found.items() if sent.get(name) != value}
        sent |= new
        return new


def may_lack_words(candidate: Mapping[str, Any]) -> bool:
    """Return whether a candidate without parts holds text in a place that nobody knows."""
    content = candidate.get("content")
    if isinstance(content, dict):
        return may_speak(beyond(content, _KNOWN_CONTENT))
    return may_speak(beyond(candidate, _KNOWN_CANDIDATE | _BESIDE_CANDIDATE))


def kind_of(part: Mapping[str, Any]) -> str:
    """Return the name of what a part is beyond text, thoughts and calls; empty where it is nothing."""
    return next(iter(beyond(part, _KNOWN_PART | _BESIDE_PART)), "")


def of_part(part: Mapping[str, Any]) -> Json:
    """Return what a part is or has beyond text, thoughts and calls."""
    found = beyond(part, _KNOWN_PART)
    call = part.get("functionCall")
    if isinstance(call, dict) and (more := beyond(call, _KNOWN_CALL)):
        found["functionCall"] = more
    signature = part.get("thoughtSignature")
    if signature and call is None and not part.get("thought") and (part.get("text") or found):
        found["thoughtSignature"] = signature
    return found


def beyond(piece: Mapping[str, Any], known: Set[str]) -> Json:
    """Return the fields of an object that are not known. Those that are null say nothing."""
    if piece.keys() <= known:
        return {}
    return {name: value for name, value in piece.items() if name not in known and value is not None}
