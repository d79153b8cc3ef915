"""Answers that are one of several words."""

from __future__ import annotations

import pytest

from moa.text.v1.text_pb2 import CandidateFinished, ResponseFormat, Sampling, TextDelta, TextEvent
from services.common import errors
from services.text.choice import ChoicesOnly
from tests.emulators.base import Emulator
from tests.emulators.script import Script
from tests.text.harness import TextClient, chat, text_of
from tests.text.subjects import Subject

FORM = ResponseFormat(kind=ResponseFormat.KIND_CHOICE, choices=["현악기", "Brass"])
ANSWERS = {
    "the object": ('{"choice": "Brass"}', (), "Brass"),
    "cut by a stop string": ('{"choice": "Brass"}', ("ss", "a"), "Br"),
    "cut off": ('{"choice": "Bra', (), '{"choice": "Bra'),
    "none": ("I cannot.", (), "I cannot."),
    "another object": ("[1]", (), "[1]"),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_word_stands_in_the_objects_place(name: str, size: int) -> None:
    """Wherever the pieces are cut; an answer without the word stays as it is."""
    text, stops, wanted = ANSWERS[name]
    choices = ChoicesOnly(stops)
    pieces = [TextEvent(text=TextDelta(text=text[i : i + size])) for i in range(0, len(text), size)]
    events = [event for piece in pieces for event in choices.of([piece])]
    events += choices.of([TextEvent(candidate_finished=CandidateFinished())])
    assert events[-1].HasField("candidate_finished")
    assert text_of(events) == wanted


@pytest.mark.parametrize("stream", [True, False])
async def test_every_provider_is_held_to_the_words(
    service: TextClient, upstream: Emulator, subject: Subject, stream: bool
) -> None:
    """Gemini by its own mode, others by a schema around the word; a model without schemas refuses by name."""
    request = chat(response_format=FORM)
    request.stream = stream
    if "json_schema" in subject.lacks:
        with pytest.raises(errors.Unsupported, match="response_format"):
            await service.ask(request)
        return
    own = subject.name == "gemini"
    upstream.scripts.append(Script(text=("현악", "기") if own else ('{"choice": ', '"현악기"}')))
    assert text_of(await service.ask(request)) == "현악기"
    sent = upstream.seen[-1].body
    assert "Brass" in str(sent)
    if own:
        assert sent["generationConfig"]["responseMimeType"] == "text/x.enum"
        return
    with pytest.raises(errors.Unsupported, match="log probabilities"):
        await service.ask(chat(response_format=FORM, sampling=Sampling(logprobs=True)))
