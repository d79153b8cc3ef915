"""JSON from models that have no mode for it: they are told, and what they put around the object is taken off."""

from __future__ import annotations

from typing import Final

from moa.text.v1.text_pb2 import Message, Part, ResponseFormat, Role, TextEvent
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model

INSTRUCTION: Final = "Answer with one JSON object, and with nothing before or after it."


def is_emulated(request: GenerateTextRequest, model: Model) -> bool:
    """Return whether a request wants any JSON object from a model that has no mode for it."""
    return request.response_format.kind == ResponseFormat.KIND_JSON_OBJECT and not model.can("json")


def ask_for_object(request: GenerateTextRequest) -> None:
    """Tell the model in words instead of by a format."""
    request.ClearField("response_format")
    place = next((i for i, m in enumerate(request.messages) if m.role != Role.ROLE_SYSTEM), len(request.messages))
    request.messages.insert(place, Message(role=Role.ROLE_SYSTEM, parts=[Part(text=INSTRUCTION)]))


class ObjectsOnly:
    """Takes off the events of an answer what stands around the first object of each candidate."""

    def __init__(self) -> None:
        self._candidates: dict[int, _Object] = {}

    def of(self, events: list[TextEvent]) -> list[TextEvent]:
        """Return the events with less text, or none: a word that turns out to be no object comes with the end."""
        kept: list[TextEvent] = []
        for event in events:
            kind = event.WhichOneof("event")
            found = self._candidates.setdefault(event.candidate, _Object())
            if kind == "text":
                event.text.text = found.take(event.text.text)
                if not event.text.text and not event.text.logprobs and not event.HasField("vendor"):
                    continue
            elif kind == "candidate_finished" and (rest := found.rest()):
                rest_event = TextEvent(candidate=event.candidate)
                rest_event.text.text = rest
                kept.append(rest_event)
            kept.append(event)
        return kept


class _Object:
    """Follows a text to the end of its first object."""

    def __init__(self) -> None:
        self._before: list[str] = []
        self._depth = 0
        self._begun = self._in_string = self._escaped = False

    def take(self, text: str) -> str:
        """Return what of the next piece belongs to the object."""
        if not self._begun:
            place = text.find("{")
            if place < 0:
                self._before.append(text)
                return ""
            self._before, self._begun, text = [], True, text[place:]
        elif self._depth == 0:
            return ""
        for place, letter in enumerate(text):
            self._step(letter)
            if self._depth == 0:
                return text[: place + 1]
        return text

    def _step(self, letter: str) -> None:
        if self._escaped:
            self._escaped = False
        elif self._in_string:
            self._escaped, self._in_string = letter == "\\", letter != '"'
        elif letter == '"':
            self._in_string = True
        elif letter in "{[":
            self._depth += 1
        elif letter in "}]":
            self._depth -= 1

    def rest(self) -> str:
        """Return the text, once, where it holds no object."""
        rest, self._before = "".join(self._before), []
        return rest
