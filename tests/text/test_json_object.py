"""JSON objects from models that have no mode for them."""

from __future__ import annotations

import pytest

from moa.text.v1.text_pb2 import CandidateFinished, ResponseFormat, Role, TextDelta, TextEvent
from services.text.json_object import INSTRUCTION, ObjectsOnly
from tests.emulators.base import Emulator
from tests.emulators.script import Script
from tests.text.harness import TextClient, chat, text_of
from tests.text.subjects import Subject

OBJECT = '{"a": "}\\"{", "b": [{}, "]"]}'
ANSWERS = {
    "alone": (OBJECT, OBJECT),
    "fenced": (f"```json\n{OBJECT}\n```", OBJECT),
    "with words around": (f"Here you are: {OBJECT} That is all. {{}}", OBJECT),
    "none": ("I cannot.", "I cannot."),
    "cut off": ('```json\n{"a": [1, ', '{"a": [1, '),
}


def only(text: str, size: int) -> str:
    """Return what is left of a text that comes in pieces of a size."""
    objects = ObjectsOnly()
    pieces = [TextEvent(text=TextDelta(text=text[i : i + size])) for i in range(0, len(text), size)]
    events = [event for piece in pieces for event in objects.of([piece])]
    events += objects.of([TextEvent(candidate_finished=CandidateFinished())])
    assert events[-1].HasField("candidate_finished")
    return text_of(events)


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_stands_around_an_object_is_taken_off(name: str, size: int) -> None:
    """Fences and words, wherever the pieces are cut; an answer without one stays as it is."""
    text, wanted = ANSWERS[name]
    assert only(text, size) == wanted


@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_without_the_mode_is_told_in_words(
    service: TextClient, upstream: Emulator, subject: Subject, stream: bool
) -> None:
    """With every provider; the answer is the object alone."""
    upstream.scripts.append(Script(text=("```json\n", '{"ok": ', "1}", "\n```")))
    request = chat(response_format=ResponseFormat(kind=ResponseFormat.KIND_JSON_OBJECT))
    request.model, request.stream = "plain", stream
    assert text_of(await service.ask(request)) == '{"ok": 1}'
    assert INSTRUCTION in str(upstream.seen[-1].body)
    assert request.messages[0].role == Role.ROLE_USER  # the caller's own is not changed
