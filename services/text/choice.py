"""One of several words, from providers without such a mode: a schema holds them to an object around the word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from moa.text.v1.text_pb2 import ResponseFormat, TextEvent
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.errors import Unsupported
from services.providers.text.base import Adapter

_NAME: Final = "choice"
_encode: Final = msgspec.json.Encoder().encode


def is_emulated(request: GenerateTextRequest, adapter: Adapter) -> bool:
    """Return whether a request wants one of several words from a provider that has no mode for it."""
    return request.response_format.kind == ResponseFormat.KIND_CHOICE and not adapter.chooses


def ask_for_choice(request: GenerateTextRequest) -> None:
    """Ask for an object that holds the word. Raises Unsupported for log probabilities, which would be the object's."""
    if request.sampling.logprobs:
        refusal = "this provider has no log probabilities of an answer that is one of several words; leave them out"
        raise Unsupported(refusal, param="logprobs")
    words = {"type": "string", "enum": list(request.response_format.choices)}
    schema = {"type": "object", "properties": {_NAME: words}, "required": [_NAME], "additionalProperties": False}
    del request.stop[:]  # they end the word, not the object
    request.response_format.CopyFrom(
        ResponseFormat(
            kind=ResponseFormat.KIND_JSON_SCHEMA, name=_NAME, schema_json=_encode(schema).decode(), strict=True
        )
    )


class ChoicesOnly:
    """Puts the word in the place of the object around it, when a candidate's text is whole.

    Args:
        stops: Strings that end the word.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = stops
        self._texts: dict[int, str] = {}

    def of(self, events: list[TextEvent]) -> list[TextEvent]:
        """Return the events with their text at the end of each candidate; a text that holds no word comes as it is."""
        kept: list[TextEvent] = []
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "text":
                self._texts[event.candidate] = self._texts.get(event.candidate, "") + event.text.text
                event.text.text = ""
                if not event.HasField("vendor"):
                    continue
            elif kind == "candidate_finished" and (text := self._texts.pop(event.candidate, "")):
                word = TextEvent(candidate=event.candidate)
                word.text.text = self._word(text)
                kept.append(word)
            kept.append(event)
        return kept

    def _word(self, text: str) -> str:
        try:
            found: Any = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return text
        word = found.get(_NAME) if isinstance(found, dict) else None
        if not isinstance(word, str):
            return text
        for stop in self._stops:
            word = word.partition(stop)[0]
        return word
