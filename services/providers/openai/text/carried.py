"""What passes between callers who speak OpenAI's protocol and providers who do: fields that no contract types.

Everything passes but what is ours to decide. `DENIED` says what that is, and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, Final

import msgspec

from moa.common.v1.vendor_pb2 import VendorFields
from services.common import vendor_fields
from services.providers.openai.text.wire import PlainChoice
from services.providers.text.carrying import carried_of
from services.providers.text.embedded_errors import may_speak
from services.providers.text.ignored import Ignored

VENDOR: Final = "openai"

Json = dict[str, Any]

_decode: Final = msgspec.json.Decoder().decode

STORED: Final = "it reaches what is stored in the operator's account"
_ACCOUNT: Final = "it chooses among the operator's accounts"
_TARGET: Final = "who answers is chosen by the gateway"
COSTS: Final = "it costs more than the tokens that are counted"
_TYPED: Final = "the gateway has it in its own form"
_HOST: Final = "it concerns the machines that the provider runs on"

DENIED: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("store", "previous_response_id", "conversation", "background", "prompt", "file_ids", "vector_store_ids"),
        STORED,
    ),
    **dict.fromkeys(("cached_content", "container", "thread_id", "assistant_id", "batch", "batch_id"), STORED),
    **dict.fromkeys(("organization", "organization_id", "project", "project_id", "api_key", "api_base"), _ACCOUNT),
    **dict.fromkeys(("models", "provider", "route", "base_url"), _TARGET),
    **dict.fromkeys(("best_of", "use_beam_search", "web_search_options", "web_search", "plugins"), COSTS),
    **dict.fromkeys(("search_parameters", "search_options", "enable_search"), COSTS),
    **dict.fromkeys(
        ("model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"), _TYPED
    ),
    **dict.fromkeys(("max_output_tokens", "max_new_tokens", "num_predict", "options"), _TYPED),
    **dict.fromkeys(("tools", "tool_choice", "functions", "function_call", "modalities", "audio"), _TYPED),
    **dict.fromkeys(("kv_transfer_params", "bootstrap_host", "bootstrap_port", "bootstrap_room"), _HOST),
    **dict.fromkeys(("chat_template", "custom_logit_processor", "logits_processors", "lora_path"), _HOST),
    **dict.fromkeys(("priority", "request_id", "rid", "data_parallel_rank"), _HOST),
}
"""Beside the messages. Tiers that cost more (`service_tier`) are denied by their value."""

DEAR_TIERS: Final = frozenset(("priority", "scale"))

_DOCUMENTED: Final = frozenset(
    (
        "metadata",
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "verbosity",
        "prediction",
        "image_url",
        "response_format",
    )
)
"""What OpenAI itself takes; it refuses whatever else it does not know."""

_KNOWN_ANSWER: Final = frozenset(("id", "object", "created", "choices", "usage", "error", "obfuscation"))
_PLAIN: Final = ("model", "system_fingerprint", "service_tier", "provider")
"""What a plain piece may say of the whole answer."""
_KNOWN_CHOICE: Final = frozenset(("index", "delta", "message", "finish_reason", "logprobs", "text", "error"))
_KNOWN_MESSAGE: Final = frozenset(
    ("role", "content", "refusal", "reasoning_content", "reasoning", "tool_calls", "function_call")
)
_FINISHES: Final = frozenset(("stop", "length", "tool_calls", "function_call", "content_filter"))
"""Why a candidate ended, in the protocol's words."""
_BESIDE_MESSAGE: Final = frozenset(
    (
        *("annotations", "audio", "channel", "citations", "content_parts", "context", "created", "end_turn", "id"),
        *("executed_tools", "images", "metadata", "model", "name", "object", "phase", "provider_specific_fields"),
        *("reasoning_details", "recipient", "sender", "sources", "status", "thinking_blocks", "timestamp"),
        *("tool_call_id", "type", "weight"),
    )
)
"""What servers are known to put beside what a message says, and what is read elsewhere."""
_BESIDE_CHOICE: Final = frozenset(
    (
        *("content_filter_offsets", "content_filter_result", "content_filter_results", "content_filters"),
        *("matched_stop", "native_finish_reason", "seed", "stop_reason", "token_ids"),
    )
)
"""Likewise, beside a message: Azure tells what its filters found in pieces of their own."""
_KNOWN_CALL: Final = frozenset(("index", "id", "type", "function", "custom"))
_KNOWN_USAGE: Final = frozenset(("prompt_tokens", "completion_tokens", "total_tokens"))
_KNOWN_DETAILS: Final = (
    ("prompt_tokens_details", {"cached_tokens", "cache_write_tokens"}),
    ("completion_tokens_details", {"reasoning_tokens"}),
)


class Carrier:
    """Puts a request's fields where they belong.

    Args:
        documented: Whether the provider takes only what OpenAI documents.
        ignored: Told of what does not pass.
    """

    __slots__ = ("_documented", "_ignored")

    def __init__(self, ignored: Ignored, *, documented: bool) -> None:
        self._ignored = ignored
        self._documented = documented

    def merge(self, into: Json, given: VendorFields, where: str) -> None:
        """Merge the fields of a part of the request into what is sent. Raises InvalidField; Unsupported if strict."""
        if not given.json:
            return
        fields = vendor_fields.fields_of(given, VENDOR, where or "vendor")
        if not where:
            self._name_own(fields.pop("responses", None))
        passing: Json = {}
        for name, value in fields.items():
            why = self._why_not(name, value, where)
            if why and not (not where and vendor_fields.is_no_op(name, value)):
                # One name for the mark, wherever it stands and whoever does not take it.
                path = f"{where}.{name}" if where and name != "cache_control" else name
                self._ignored.add(path, f"{name} is not passed on: {why}")
            elif not why:
                passing[name] = value
        vendor_fields.merge(into, passing)

    def _name_own(self, own: Any) -> None:
        """Note what only the Responses API takes, but for how its caller is shown reasoning."""
        for name in own.keys() - {"reasoning"} if isinstance(own, dict) else ():
            self._ignored.add(name, f"{name} is not passed on: this model is asked by chats")

    def _why_not(self, name: str, value: Any, where: str) -> str:
        if where == "messages[]" and name == "content_parts":
            return "it is the gateway's own word for what an answer has beside its text"
        if name == "file_id" or (isinstance(value, dict) and "file_id" in value):
            return STORED
        if not where:
            if name in DENIED:
                return DENIED[name]
            if name == "service_tier" and value in DEAR_TIERS:
                return COSTS
        return "OpenAI does not take it" if self._documented and name not in _DOCUMENTED else ""


class Returned:
    """Finds, in an answer's pieces, what no contract types. Made for one answer: what is told once is not repeated."""

    __slots__ = ("_filtered", "_own_name", "_sent", "repeated")

    def __init__(self, own_name: str) -> None:
        self._sent: Json = {}
        self._own_name = own_name
        self.repeated: tuple[str | None, ...] | None = None
        """What a plain piece said of the answer that was sent already, as long as nothing else has been sent since."""
        self._filtered: tuple[bytes, VendorFields | None] = (b"", None)
        """What the latest plain piece said beside its message, and its envelope."""

    def repeats(self, fields: tuple[str | None, ...]) -> bool:
        """Return whether `of_answer` would find nothing in a plain piece, which says this of the answer (`_PLAIN`)."""
        if self._new_in(zip(_PLAIN, fields, strict=True)):
            return False
        self.repeated = fields
        return True

    def beside_plain(self, choice: PlainChoice) -> VendorFields | None:
        """Return the envelope of what `of_choice` would find in a plain piece: the last one's where it says the same.

        Raises MsgspecError, ValueError or RecursionError for what cannot be read, UpstreamBroken for what is too much.
        """
        given = bytes(choice.content_filter_results)
        if given != self._filtered[0]:
            value = _decode(given)
            fields = {"choice": {"content_filter_results": value}}
            self._filtered = (given, None if value is None else carried_of(VENDOR, fields))
        return self._filtered[1]

    def of_answer(self, piece: Mapping[str, Any]) -> Json:
        """Return what a piece says of the whole answer and has not said before."""
        new = self._new_in(piece.items())
        usage = piece.get("usage")
        if isinstance(usage, dict) and (more := _usage_beyond(usage)) and self._sent.get("usage") != more:
            new["usage"] = more
        if new:
            self._sent |= new
            self.repeated = None
        return new

    def _new_in(self, fields: Iterable[tuple[str, Any]]) -> Json:
        sent, new = self._sent, {}
        for name, value in fields:
            if name in _KNOWN_ANSWER or value is None or sent.get(name) == value:
                continue
            if name != "model" or value != self._own_name:  # callers know it by the catalogue's name
                new[name] = value
        return new

    @staticmethod
    def of_choice(choice: Mapping[str, Any]) -> Json:
        """Return what a piece says of a candidate: `choice` beside its message, `message` in it."""
        found: Json = {}
        beside = {} if choice.keys() <= _KNOWN_CHOICE else _beyond(choice, _KNOWN_CHOICE)
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict) and logprobs.get("refusal"):
            beside["logprobs"] = {"refusal": logprobs["refusal"]}
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish and finish not in _FINISHES:
            beside.setdefault("native_finish_reason", finish)
        if beside:
            found["choice"] = beside
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict) and not delta.keys() <= _KNOWN_MESSAGE:
            inside = _beyond(delta, _KNOWN_MESSAGE)
            if inside:
                found["message"] = inside
        return found

    @staticmethod
    def of_call(call: Mapping[str, Any]) -> Json:
        """Return what a piece says of a call."""
        return _beyond(call, _KNOWN_CALL)


def may_lack_words(choice: Mapping[str, Any]) -> bool:
    """Return whether a choice in which nothing was found holds text in a place that nobody knows."""
    message = choice.get("delta") or choice.get("message")
    if not isinstance(message, dict):
        return not choice.get("finish_reason") and may_speak(_beyond(choice, _KNOWN_CHOICE | _BESIDE_CHOICE))
    return may_speak(_beyond(message, _KNOWN_MESSAGE | _BESIDE_MESSAGE))


def _usage_beyond(usage: Mapping[str, Any]) -> Json:
    """Return the counts, and prices, that no contract types."""
    found = _beyond(usage, _KNOWN_USAGE)
    for details, known in _KNOWN_DETAILS:
        if isinstance(found.get(details), dict):
            more = _beyond(found[details], known)
            if more:
                found[details] = more
            else:
                del found[details]
    return found


def _beyond(piece: Mapping[str, Any], known: Set[str]) -> Json:
    """Return the fields of an object that are not known. Those that are null say nothing."""
    if piece.keys() <= known:
        return {}
    return {name: value for name, value in piece.items() if name not in known and value is not None}
