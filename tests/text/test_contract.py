"""What every text adapter must do, shown on each of them through the real service and a strict emulator."""

from __future__ import annotations

import asyncio

import pytest

from moa.text.v1.text_pb2 import FinishReason, Message, Part, ReasoningOptions, ResponseFormat, Role, Sampling
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import errors
from tests.emulators.base import Emulator
from tests.emulators.script import Counts, Script
from tests.text.harness import TextClient, chat, ending_of, ignored_of, text_of
from tests.text.subjects import Subject


@pytest.mark.parametrize("stream", [True, False])
async def test_text(service: TextClient, upstream: Emulator, subject: Subject, stream: bool) -> None:
    """A chat comes back whole, Korean and emoji both ways, with finish reason and the provider's own usage."""
    request = chat("안녕, 모아! 🌊")
    request.stream = stream
    events = await service.ask(request)
    assert text_of(events) == "Hello 안녕 🌍!"
    assert ending_of(events) == FinishReason.FINISH_REASON_STOP
    assert [e.WhichOneof("event") for e in events].count("finished") == 1
    usage = events[-1].finished.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.exact) == (7, 5, True)
    assert subject.prompt_of(upstream.seen[-1].body) == "안녕, 모아! 🌊"


async def test_pieces_come_as_they_are_made(service: TextClient, upstream: Emulator) -> None:
    """The first piece is delivered while the provider still works on the second."""
    script = Script(text=("one", "two"), hold_at=1)
    upstream.scripts.append(script)
    messages = aiter(service.call(chat()))
    first = await anext(messages)
    assert text_of(first.events) == "one"
    await asyncio.wait_for(script.held.wait(), 30)
    script.gate.set()
    rest = [event async for message in messages for event in message.events]
    assert text_of(rest) == "two"


@pytest.mark.parametrize(
    ("word", "reason"),
    [("length", FinishReason.FINISH_REASON_LENGTH), ("content_filter", FinishReason.FINISH_REASON_CONTENT_FILTER)],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_finish_reasons(
    service: TextClient, upstream: Emulator, word: str, reason: FinishReason.ValueType, stream: bool
) -> None:
    """The provider's word for the end becomes the contract's."""
    upstream.scripts.append(Script(finish=word))
    request = chat()
    request.stream = stream
    assert ending_of(await service.ask(request)) == reason


async def test_system_and_turns(service: TextClient, upstream: Emulator) -> None:
    """Instructions and earlier turns are taken by the provider as such."""
    request = chat()
    del request.messages[:]
    request.messages.extend(
        [
            Message(role=Role.ROLE_SYSTEM, parts=[Part(text="Be brief.")]),
            Message(role=Role.ROLE_USER, parts=[Part(text="hi")]),
            Message(role=Role.ROLE_ASSISTANT, parts=[Part(text="hello")]),
            Message(role=Role.ROLE_USER, parts=[Part(text="again")]),
        ]
    )
    assert text_of(await service.ask(request))
    assert "Be brief." in str(upstream.seen[-1].body)


async def test_sampling_and_stop(service: TextClient, upstream: Emulator, subject: Subject) -> None:
    """Temperature, nucleus, stop strings and the bound reach the provider in its own fields."""
    stop = [] if "stop" in subject.lacks else ["END", "끝"]
    request = chat(max_tokens=33, stop=stop, sampling=Sampling(temperature=0.25, top_p=0.5))
    await service.ask(request)
    sent = str(upstream.seen[-1].body)
    assert all(word in sent for word in ("33", *stop, "0.25", "0.5"))


async def test_a_seed_is_sent_or_named(service: TextClient, upstream: Emulator, subject: Subject) -> None:
    """A seed is never dropped in silence."""
    events = await service.ask(chat(sampling=Sampling(seed=4711)))
    assert ignored_of(events) == (["seed"] if "seed" in subject.lacks else [])
    assert ("4711" in str(upstream.seen[-1].body)) is ("seed" not in subject.lacks)


@pytest.mark.parametrize("ability", ["logprobs", "candidates", "stop"])
async def test_what_a_protocol_lacks_is_refused_by_name(service: TextClient, subject: Subject, ability: str) -> None:
    """What changes the answer's meaning is not dropped: the field at fault is named."""
    if ability not in subject.lacks:
        pytest.skip("the protocol has it")
    request = {
        "logprobs": chat(sampling=Sampling(logprobs=True)),
        "candidates": chat(candidates=2),
        "stop": chat(stop=["END"]),
    }[ability]
    with pytest.raises(errors.Unsupported) as refused:
        await service.ask(request)
    assert ability in refused.value.param


HINTS = {
    "top_k": (Sampling(top_k=5), None, "top_k"),
    "budget": (None, ReasoningOptions(budget_tokens=2048), "reasoning.budget_tokens=low"),
}


@pytest.mark.parametrize("ability", HINTS)
async def test_hints_that_a_protocol_lacks_are_named(service: TextClient, subject: Subject, ability: str) -> None:
    """They refuse nothing: the answer says that they had no effect, or which value was used; strict ones refuse."""
    if ability not in subject.lacks:
        pytest.skip("the protocol has it")
    sampling, reasoning, name = HINTS[ability]
    asked = chat(sampling=sampling, reasoning=reasoning)
    asked.model = "thinker"
    events = await service.ask(asked)
    assert ignored_of(events) == [name]
    strict = chat(sampling=sampling, reasoning=reasoning, strict=True)
    strict.model = "thinker"
    with pytest.raises(errors.Unsupported) as refused:
        await service.ask(strict)
    assert refused.value.param == name.partition("=")[0]


async def test_a_model_that_cannot_reason_answers_without(service: TextClient, upstream: Emulator) -> None:
    """An effort is a hint too, and so is a seed for a model that takes none."""
    request = chat(reasoning=ReasoningOptions(effort=ReasoningOptions.EFFORT_HIGH), sampling=Sampling(seed=1))
    request.model = "plain"
    events = await service.ask(request)
    assert ignored_of(events) == ["reasoning.effort", "seed"]
    assert "reason" not in str(upstream.seen[-1].body)


async def test_defaults_change_nothing(service: TextClient, subject: Subject) -> None:
    """What every vendor takes for granted is no wish that could be ignored."""
    asked = chat(sampling=Sampling(temperature=1, top_p=1, presence_penalty=0, frequency_penalty=0), strict=True)
    assert text_of(await service.ask(asked))


@pytest.mark.parametrize("stream", [True, False])
async def test_candidates(service: TextClient, subject: Subject, stream: bool) -> None:
    """Two answers to one question come apart, each with its end."""
    subject.skip_without("candidates")
    request = chat(candidates=2)
    request.stream = stream
    events = await service.ask(request)
    assert [text_of(events, candidate) for candidate in (0, 1)] == ["Hello 안녕 🌍!"] * 2
    assert sorted(e.candidate for e in events if e.HasField("candidate_finished")) == [0, 1]


@pytest.mark.parametrize("stream", [True, False])
async def test_logprobs(service: TextClient, subject: Subject, stream: bool) -> None:
    """Each token's probability comes with its bytes and the likeliest others."""
    subject.skip_without("logprobs")
    request = chat(sampling=Sampling(logprobs=True, top_logprobs=1))
    request.stream = stream
    entries = [entry for e in await service.ask(request) if e.HasField("text") for entry in e.text.logprobs]
    assert b"".join(entry.raw for entry in entries).decode() == "Hello 안녕 🌍!"
    assert all(entry.logprob == -0.5 and len(entry.top) == 1 for entry in entries)


@pytest.mark.parametrize(
    ("ability", "request_", "sent"),
    [
        ("top_k", chat(sampling=Sampling(top_k=37)), "37"),
        ("budget", chat(max_tokens=4000, reasoning=ReasoningOptions(include=True, budget_tokens=1234)), "1234"),
    ],
)
async def test_own_settings(
    service: TextClient, upstream: Emulator, subject: Subject, ability: str, request_: GenerateTextRequest, sent: str
) -> None:
    """What only some protocols have reaches those in their own words."""
    subject.skip_without(ability)
    request_.model = "thinker"
    await service.ask(request_)
    assert sent in str(upstream.seen[-1].body)


@pytest.mark.parametrize("stream", [True, False])
async def test_usage(service: TextClient, upstream: Emulator, subject: Subject, stream: bool) -> None:
    """Prompt, completion, reasoning and cached tokens are the provider's, reasoning included in completion."""
    counts = Counts(prompt=100, completion=50, reasoning=20, cached=40)
    upstream.scripts.append(Script(reasoning=("hm",), counts=counts))
    request = chat(reasoning=ReasoningOptions(include=True))
    request.stream = stream
    request.model = "thinker"
    usage = (await service.ask(request))[-1].finished.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (100, 50, 40)
    assert usage.exact
    if "reasoning_count" not in subject.lacks:
        assert usage.reasoning_tokens == 20


@pytest.mark.parametrize("stream", [True, False])
async def test_missing_usage_is_estimated(service: TextClient, upstream: Emulator, stream: bool) -> None:
    """A provider that says nothing of usage leaves an estimate that is marked as one."""
    upstream.scripts.append(Script(counts=None))
    request = chat()
    request.stream = stream
    usage = (await service.ask(request))[-1].finished.usage
    assert not usage.exact
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0


async def test_json_schema(service: TextClient, upstream: Emulator, subject: Subject) -> None:
    """A schema reaches the provider in its own form, or is refused by name."""
    form = ResponseFormat(
        kind=ResponseFormat.KIND_JSON_SCHEMA,
        name="reply",
        schema_json='{"type": "object", "properties": {"ok_word": {"type": "string"}}}',
    )
    upstream.scripts.append(Script(text=('{"ok_word": ', '"yes"}')))
    if "json_schema" in subject.lacks:
        with pytest.raises(errors.Unsupported, match="response_format"):
            await service.ask(chat(response_format=form))
        return
    assert text_of(await service.ask(chat(response_format=form))) == '{"ok_word": "yes"}'
    assert "ok_word" in str(upstream.seen[-1].body)
