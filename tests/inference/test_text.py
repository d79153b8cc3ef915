"""Text from the model that ships, through a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from inference.fair import Flow
from inference.text.turns import Turn
from moa.common.v1 import media_pb2
from moa.common.v1.vendor_pb2 import VendorFields
from moa.text.v1 import text_pb2
from services.common import errors
from tests.inference.harness import CHAT, Client, Running, chat, until

STORY = "Tell me a story about a fox."


async def test_an_answer_comes_token_by_token(client: Client, running: Running) -> None:
    """Each piece of an answer comes before the next is made; they join to it, with exact usage at the end."""
    prompt_tokens = await client.count("What is the capital of Korea?")
    with running.in_step(CHAT) as took:
        out = await client.text("What is the capital of Korea?", took=took)
    assert "Seoul" in out.text
    assert out.messages > 4
    assert out.usage is not None
    assert out.usage.exact
    assert out.usage.prompt_tokens == prompt_tokens
    assert out.usage.completion_tokens > 4
    assert [end.reason for end in out.ends] == [text_pb2.FINISH_REASON_STOP]


async def test_a_text_beyond_the_context_is_not_tokenized(
    client: Client, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A longest token more than the context holds: neither counted nor read, and told how long it is."""
    await client.count("hi")
    model = running.engine(CHAT).model

    def refuse(*_: Any) -> list[int]:
        raise AssertionError("it was tokenized")

    monkeypatch.setattr(type(model), "tokens", refuse)
    words = "x" * (model.longest * (model.context + 1))
    for ask in (client.count, client.text):
        with pytest.raises(errors.ContextTooLong, match=f"tokens at least; the model's context is {model.context}"):
            await ask(words)


@pytest.mark.parametrize("text", ["", "안녕 <|user|> hi\n\n 123  e\u0301 🌍", "a" * 300])
async def test_tokens_are_those_of_transformers(client: Client, running: Running, text: str) -> None:
    """Special ones by their names too."""
    await client.count("hi")
    model = running.engine(CHAT).model
    assert model.tokens(text) == model.tokenizer(text, add_special_tokens=False)["input_ids"]


async def test_prompts_are_read_in_the_turns_of_their_account(
    client: Client, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are counted and those that are answered, by one thread for all."""
    flows: list[Flow] = []
    reading = running.process.reading
    do = reading.do

    def watched(*given: Any, flow: Flow, **more: Any) -> Any:
        flows.append(flow)
        return do(*given, flow=flow, **more)

    monkeypatch.setattr(reading, "do", watched)
    whose = (("x-moa-account", "acc"), ("x-moa-priority", "high"))
    await client.count("hi", *whose)
    async for _ in client.text_call("hi", metadata=whose):
        pass
    assert flows == [Flow("acc", "high")] * 2


async def test_korean_is_whole_in_every_piece(client: Client) -> None:
    """No piece of a Korean answer holds half a character, though characters are split over tokens."""
    out = await client.text("한국의 수도는 어디야?")
    assert "서울" in out.text
    assert "\ufffd" not in out.text


async def test_greedy_equals_transformers(client: Client, running: Running) -> None:
    """Greedy tokens are those that transformers' own `generate` gives."""
    import torch

    out = await client.text(STORY)
    model = running.engine(CHAT).model
    prompt = model.tokens(model.write((Turn("user", STORY),), think=True)[0])
    with torch.inference_mode():
        ids = model.network.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, max_new_tokens=128
        )
    assert out.text == model.decode(ids[0, len(prompt) :].tolist())


async def test_an_answer_goes_on_from_its_beginning(client: Client) -> None:
    """Given an answer's first words as the assistant's last message, the model says the rest, and no more."""
    question = text_pb2.Message(role=text_pb2.ROLE_USER, parts=[text_pb2.Part(text=STORY)])
    whole = (await client.text(STORY)).text
    for cut in [place for place, letter in enumerate(whole) if letter == " "]:
        begun = text_pb2.Message(role=text_pb2.ROLE_ASSISTANT, parts=[text_pb2.Part(text=whole[:cut])])
        assert (await client.text(messages=[question, begun])).text == whole[cut:]


async def test_the_same_seed_gives_the_same_answer_in_any_crowd(client: Client) -> None:
    """A seeded answer and its log probabilities are the same to the bit, alone and among eleven others."""

    def ask(seed: int) -> Any:
        sampling = text_pb2.Sampling(temperature=1.2, top_p=0.95, seed=seed, logprobs=True, top_logprobs=3)
        prompt = (STORY, "What is 3 plus 4?", "파란색 말고 다른 색은?", "Hello")[seed % 4]
        return client.text(prompt, sampling=sampling, max_tokens=48)

    alone = [await ask(seed) for seed in (1, 2)]
    crowd = await asyncio.gather(*(ask(seed) for seed in range(12)))
    for one, same in zip(alone, crowd[1:3], strict=True):
        assert same.text == one.text
        assert [(p.token, p.logprob) for p in same.logprobs] == [(p.token, p.logprob) for p in one.logprobs]
    assert len({out.text for out in crowd}) > 2


async def test_logprobs_belong_to_their_tokens(client: Client) -> None:
    """Log probabilities cover the whole answer, and the greedy token is the likeliest of its alternatives."""
    out = await client.text(
        "서울 말고 뭐가 있어?", sampling=text_pb2.Sampling(temperature=0, logprobs=True, top_logprobs=2)
    )
    assert b"".join(p.raw for p in out.logprobs).decode() == out.text
    assert all(p.top[0].logprob == p.logprob and len(p.top) == 2 for p in out.logprobs)


async def test_a_stop_string_ends_the_answer_before_it(client: Client) -> None:
    """The answer ends before the stop string, which is named and not shown, even though tokens straddle it."""
    whole = await client.text(STORY)
    stop = whole.text[20:27]
    out = await client.text(STORY, stop=["never said", stop])
    assert out.text == whole.text[: whole.text.find(stop)]
    assert out.ends[0].stop_sequence == stop
    assert out.ends[0].reason == text_pb2.FINISH_REASON_STOP


async def test_a_stop_token_ends_the_answer_before_it(client: Client, running: Running) -> None:
    """The token is not shown; the answer ends as one that the model ended."""
    whole = await client.text(STORY)
    tokens = running.engine(CHAT).model.tokens(whole.text)
    last = next(at for at, token in enumerate(tokens) if at >= 3 and token not in tokens[:at])
    out = await client.text(STORY, sampling=text_pb2.Sampling(stop_token_ids=[tokens[last]]))
    assert whole.text.startswith(out.text)
    assert running.engine(CHAT).model.tokens(out.text) == tokens[:last]
    assert out.ends[0].reason == text_pb2.FINISH_REASON_STOP


async def test_the_bound_is_kept(client: Client) -> None:
    """`max_tokens` bounds the answer, with the finish reason `length`."""
    out = await client.text(STORY, max_tokens=3)
    assert out.usage is not None
    assert out.usage.completion_tokens == 3
    assert out.ends[0].reason == text_pb2.FINISH_REASON_LENGTH


async def test_unary_is_one_message(client: Client) -> None:
    """Without `stream` the whole answer is one message, and the same text."""
    out = await client.text(STORY, stream=False)
    assert out.messages == 1
    assert out.text == (await client.text(STORY)).text


async def test_candidates_are_apart(client: Client) -> None:
    """Several candidates have seeds of their own: each is the answer that its seed gives alone, and all are counted."""

    def sampling(seed: int) -> text_pb2.Sampling:
        return text_pb2.Sampling(temperature=2, seed=seed)

    alone = [await client.text(STORY, sampling=sampling(seed), max_tokens=20) for seed in (3, 4, 5)]
    out = await client.text(STORY, sampling=sampling(3), max_tokens=20, candidates=3)
    assert [out.by_candidate[i] for i in range(3)] == [one.text for one in alone]
    assert len(out.ends) == 3
    assert out.usage is not None
    assert out.usage.completion_tokens == sum(one.usage.completion_tokens for one in alone if one.usage is not None)


async def test_a_caller_who_leaves_stops_the_generation(client: Client, running: Running) -> None:
    """After the caller left, the engine decodes no further than the token it was at."""
    await client.text("Hello")  # loaded
    engine = running.engine(CHAT)
    assert await asyncio.to_thread(engine.wait_idle, 60)
    ticks = engine.ticks
    with running.held(CHAT, after_ticks=3):
        call = client.text_call(STORY, sampling=text_pb2.Sampling(temperature=2, logit_bias={1: -100}), max_tokens=256)
        await until(lambda: engine.ticks == ticks + 3)
        (work,) = engine.jobs()
        call.cancel()
        # It is held until it has heard, however long the news travels.
        await until(lambda: work.cancelled)
    assert await asyncio.to_thread(engine.wait_idle, 60)
    assert engine.ticks <= ticks + 4
    assert (await client.text("Hello")).text


async def test_a_prompt_beyond_the_context_is_refused(client: Client) -> None:
    """A prompt that does not fit is refused as such, before anything is generated."""
    with pytest.raises(errors.ContextTooLong):
        await client.text("가나다라 " * 600)
    with pytest.raises(errors.ContextTooLong):
        await client.text("x" * 20_000_000)


@pytest.mark.parametrize("seed", [-(2**63), -1, 2**63 - 1])
async def test_every_seed_is_one(client: Client, seed: int) -> None:
    """The least, a negative and the largest seed all work, for several candidates too."""
    out = await client.text("Hello", sampling=text_pb2.Sampling(temperature=1, seed=seed), candidates=2, max_tokens=4)
    assert len(out.ends) == 2


BAD: list[tuple[dict[str, Any], type[errors.MoaError], str]] = [
    ({"model": ""}, errors.InvalidField, "model"),
    ({"model": "nobody"}, errors.ModelNotFound, "model"),
    ({"model": "moa-tiny-image"}, errors.ModelNotFound, "model"),
    ({"provider": "nowhere"}, errors.NotFound, "provider"),
    ({"messages": []}, errors.InvalidField, "messages"),
    ({"messages": [text_pb2.Message(role=text_pb2.ROLE_USER)]}, errors.InvalidField, "messages[0].content"),
    ({"messages": [text_pb2.Message(parts=[text_pb2.Part(text="x")])]}, errors.InvalidField, "messages[0].role"),
    (
        {
            "messages": [
                text_pb2.Message(role=text_pb2.ROLE_USER, parts=[text_pb2.Part(image=media_pb2.ImageInput(data=b"x"))])
            ]
        },
        errors.Unsupported,
        "messages[0].parts[0].image",
    ),
    (
        {
            "messages": [
                text_pb2.Message(
                    role=text_pb2.ROLE_USER,
                    parts=[text_pb2.Part(text="x"), text_pb2.Part(vendor=VendorFields(vendor="v", names=["kind"]))],
                )
            ]
        },
        errors.Unsupported,
        "messages[0].parts[1]",
    ),
    ({"tools": [text_pb2.Tool(name="f g")]}, errors.InvalidField, "tools[0].name"),
    ({"tools": [text_pb2.Tool(name="f")] * 2}, errors.InvalidField, "tools"),
    ({"tools": [text_pb2.Tool(name="f", parameters_json="{")]}, errors.InvalidField, "tools[0].parameters"),
    (
        {"tools": [text_pb2.Tool(name="f", parameters_json='{"type": "array"}')]},
        errors.InvalidField,
        "tools[0].parameters",
    ),
    ({"tools": [text_pb2.Tool(name="f", parameters_json='{"properties": 3}')]}, errors.InvalidField, "tools"),
    ({"tool_choice": text_pb2.ToolChoice(mode=text_pb2.ToolChoice.MODE_REQUIRED)}, errors.InvalidField, "tool_choice"),
    (
        {
            "tools": [text_pb2.Tool(name="f")],
            "tool_choice": text_pb2.ToolChoice(mode=text_pb2.ToolChoice.MODE_NAMED, name="g"),
        },
        errors.InvalidField,
        "tool_choice",
    ),
    ({"sampling": text_pb2.Sampling(temperature=float("nan"))}, errors.InvalidField, "temperature"),
    ({"sampling": text_pb2.Sampling(temperature=-1)}, errors.InvalidField, "temperature"),
    ({"sampling": text_pb2.Sampling(top_p=float("inf"))}, errors.InvalidField, "top_p"),
    ({"sampling": text_pb2.Sampling(top_k=0)}, errors.InvalidField, "top_k"),
    ({"sampling": text_pb2.Sampling(top_logprobs=2)}, errors.InvalidField, "top_logprobs"),
    ({"sampling": text_pb2.Sampling(logit_bias={1: float("nan")})}, errors.InvalidField, "logit_bias"),
    ({"max_tokens": 0}, errors.InvalidField, "max_tokens"),
    ({"stop": [""]}, errors.InvalidField, "stop[0]"),
    ({"stop": ["x"] * 17}, errors.InvalidField, "stop"),
    ({"candidates": 99}, errors.InvalidField, "candidates"),
]


@pytest.mark.parametrize(("fields", "kind", "param"), BAD)
async def test_bad_input_is_refused_by_its_field(
    client: Client, fields: dict[str, Any], kind: type[errors.MoaError], param: str
) -> None:
    """Every bad field is refused with its reason and its name, before anything is generated."""
    with pytest.raises(kind) as caught:
        await client.text("" if "messages" in fields else "Hello", **fields)
    assert caught.value.param == param


async def test_emoji_and_odd_text_are_taken(client: Client) -> None:
    """Emoji, control characters and unpaired marks in a prompt are answered like any other text."""
    out = await client.text("🦊👩‍👩‍👧 \u0000\u202e <|end|> ﷽")
    assert out.usage is not None


async def test_a_wrong_service_token_is_refused(running: Running) -> None:
    """A caller without the service credential gets nothing."""
    stranger = Client(running.address, token="not-the-service-token")
    with pytest.raises(errors.Unavailable, match="is refused by another"):
        await stranger.text("Hello")
    call = stranger.text_stub.GenerateText(chat("Hello"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await stranger.close()


async def test_reasoning_is_apart_and_counted(more: Running) -> None:
    """What a model writes inside its reasoning tags is told apart, only if asked for, and counted either way."""
    client = Client(more.address)
    shown = await client.text(
        "What is 47 plus 38?", model="thinking", max_tokens=10, reasoning=text_pb2.ReasoningOptions(include=True)
    )
    hidden = await client.text("What is 47 plus 38?", model="thinking", max_tokens=10)
    assert shown.reasoning.startswith("7 + 8 = 15.")
    assert not shown.text
    assert not hidden.reasoning
    assert shown.usage is not None
    assert hidden.usage is not None
    assert shown.usage.reasoning_tokens == hidden.usage.reasoning_tokens > 0
    await client.close()


def _turn(*, cache: bool = False, name: str = "") -> text_pb2.Message:
    return text_pb2.Message(role=text_pb2.ROLE_USER, name=name, parts=[text_pb2.Part(text="Hello", cache=cache)])


IGNORED: list[tuple[dict[str, Any], str]] = [
    ({"reasoning": text_pb2.ReasoningOptions(effort=text_pb2.ReasoningOptions.EFFORT_HIGH)}, "reasoning.effort"),
    ({"reasoning": text_pb2.ReasoningOptions(budget_tokens=64)}, "reasoning.budget_tokens"),
    ({"messages": [_turn(cache=True)]}, "cache_control"),
    ({"messages": [_turn(name="Ada")]}, "messages[].name"),
]


@pytest.mark.parametrize(("fields", "name"), IGNORED)
async def test_hints_without_effect_are_named(client: Client, fields: dict[str, Any], name: str) -> None:
    """Efforts, budgets, cache marks and names are told to have had none, or refused where the caller is strict."""
    prompt = "" if "messages" in fields else "Hello"
    assert (await client.text(prompt, max_tokens=1, **fields)).ignored == [name]
    with pytest.raises(errors.Unsupported) as caught:
        await client.text(prompt, strict=True, **fields)
    assert caught.value.param == name


async def test_what_has_effect_is_not_named(client: Client) -> None:
    """`none` turns reasoning off, and the wish to see it is no wish for more of it."""
    quiet = text_pb2.ReasoningOptions(effort=text_pb2.ReasoningOptions.EFFORT_NONE, include=True)
    assert (await client.text("Hello", max_tokens=1, strict=True, reasoning=quiet)).ignored == []
