"""A law: what a dialect and a provider's own API both can say comes through the contract unchanged.

The router's dialect reads OpenAI's or Google's JSON to the contract; the text service's adapter writes the contract as
the same vendor's JSON, and back the other way for answers. Any field lost on the way is a difference here.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa.common.v1 import usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Model
from services.providers.google.text import read as gemini_read
from services.providers.google.text import request as gemini_request
from services.providers.openai.text import read as openai_read
from services.providers.openai.text import request as openai_request
from services.providers.text.ignored import Ignored
from services.router.dialects.google import bodies as google_bodies
from services.router.dialects.google import reply as google_reply
from services.router.dialects.google import text_request
from services.router.dialects.google.spelling import parse_either
from services.router.dialects.openai import chat_reply, chat_request
from services.router.dialects.reply import encode, frame
from services.router.operations.text import TextAnswer
from tests.laws import tries
from tests.router.answering import text_answer
from tests.router.played_books import Books, Reservation, VerifiedKey
from tests.router.rig import MessageStream, picture

Json = dict[str, Any]

MODEL = Model(id="m", provider="p", capabilities=frozenset({"reasoning"}))
LAW = settings(deadline=None, max_examples=tries(60))

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)
names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,20}", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, values, max_size=3)
schemas = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(names, st.just({"type": "string"}), max_size=2)}
)
unit = st.floats(0, 1)
penalty = st.floats(-2, 2)
PNG = base64.b64encode(picture()).decode()


def some(required: Json, optional: Json) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries(required, optional=optional)


# OpenAI.

texts = st.builds(lambda text: {"type": "text", "text": text}, words)
images = st.just({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}})
calls = st.builds(
    lambda i, name, arguments: {"id": i, "type": "function", "function": {"name": name, "arguments": arguments}},
    names,
    names,
    objects.map(json.dumps),
)
messages = st.one_of(
    some({"role": st.just("system"), "content": words}, {}),
    some({"role": st.just("user"), "content": words}, {"name": names}),
    some({"role": st.just("user"), "content": st.lists(texts | images, min_size=2, max_size=3)}, {}),
    some({"role": st.just("assistant"), "content": words}, {"reasoning_content": words}),
    some(
        {"role": st.just("assistant"), "content": st.none(), "tool_calls": st.lists(calls, min_size=1, max_size=3)},
        {"reasoning_content": words},
    ),
    some({"role": st.just("tool"), "tool_call_id": names, "content": words}, {}),
)
functions = some({"name": names}, {"description": words, "parameters": schemas, "strict": st.booleans()})
openai_bodies = some(
    {
        "model": st.just("m"),
        "messages": st.lists(messages, min_size=1, max_size=4),
        "max_completion_tokens": st.integers(1, 2**31 - 1),
    },
    {
        "stop": st.lists(words, min_size=1, max_size=4),
        "n": st.integers(2, 8),
        "user": words,
        "temperature": st.floats(0, 2),
        "top_p": unit,
        "top_k": st.integers(1, 1000),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "presence_penalty": penalty,
        "frequency_penalty": penalty,
        "logit_bias": st.dictionaries(st.integers(0, 10**6).map(str), st.floats(-100, 100), min_size=1, max_size=3),
        "tools": st.lists(st.builds(lambda f: {"type": "function", "function": f}, functions), min_size=1, max_size=3),
        "tool_choice": st.sampled_from(["none", "auto", "required"])
        | st.builds(lambda name: {"type": "function", "function": {"name": name}}, names),
        "parallel_tool_calls": st.booleans(),
        "response_format": st.just({"type": "json_object"})
        | st.builds(
            lambda schema: {"type": "json_schema", "json_schema": schema},
            some({"name": names, "schema": schemas}, {"strict": st.booleans()}),
        ),
        "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh"]),
    },
)


@LAW
@given(openai_bodies, st.booleans(), st.integers(0, 20) | st.none())
def test_openais_request_comes_through(body: Json, stream: bool, top: int | None) -> None:
    """Every parameter of a chat that OpenAI's own API would be sent is the one that was given."""
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if top is not None:
        body["logprobs"] = True
        body |= {"top_logprobs": top} if top else {}
    read = chat_request.request_from(json.dumps(body).encode())
    options = openai_request.Options(
        max_tokens_field="max_completion_tokens",
        reasoning_input="reasoning_content",
        extensions=frozenset({"top_k"}),
    )
    written = through(openai_request.body_from(read.request, MODEL, options, Ignored()))
    for message in written["messages"]:
        if isinstance(message["content"], list) and [part["type"] for part in message["content"]] == ["text"]:
            # A list of one text and the text alone are the same to the API.
            message["content"] = message["content"][0]["text"]
    if "tools" not in body:
        # A choice among no tools is none.
        body = {name: value for name, value in body.items() if name not in ("tool_choice", "parallel_tool_calls")}
    assert written == body


# Google.

signatures = st.binary(min_size=1, max_size=8).map(lambda data: base64.b64encode(data).decode())
user_parts = st.lists(
    some({"text": words}, {}) | st.just({"inlineData": {"mimeType": "image/png", "data": PNG}}), min_size=1, max_size=3
)
model_parts = st.lists(
    some({"text": words}, {})
    | some({"text": words, "thought": st.just(True)}, {"thoughtSignature": signatures})
    | some({"text": st.just(""), "thoughtSignature": signatures}, {}),
    min_size=1,
    max_size=3,
)


@st.composite
def turns(draw: st.DrawFn) -> list[Json]:
    """A conversation: each model turn with calls is answered by a turn with their results."""
    contents: list[Json] = [{"role": "user", "parts": draw(user_parts)}]
    for number in range(draw(st.integers(0, 2))):
        parts = draw(model_parts)
        results: list[Json] = []
        for index in range(draw(st.integers(0, 3))):
            name, call_id = draw(names), f"c{number}.{index}"
            call = {"name": name, "id": call_id, "args": draw(objects)}
            parts.append({"functionCall": call, **draw(some({}, {"thoughtSignature": signatures}))})
            answer = draw(objects.filter(lambda o: set(o) != {"error"}) | st.builds(lambda w: {"error": w}, words))
            results.append({"functionResponse": {"name": name, "response": answer, "id": call_id}})
        contents.append({"role": "model", "parts": parts})
        contents.append({"role": "user", "parts": results or draw(user_parts)})
    return contents


declarations = st.lists(
    some({"name": names}, {"description": words, "parametersJsonSchema": schemas}), min_size=1, max_size=3
)
google_configs = some(
    {"maxOutputTokens": st.integers(1, 2**31 - 1)},
    {
        "temperature": st.floats(0, 2),
        "topP": unit,
        "topK": st.integers(1, 1000),
        "candidateCount": st.integers(2, 8),
        "stopSequences": st.lists(words, min_size=1, max_size=4),
        "seed": st.integers(-(2**31), 2**31 - 1),
        "presencePenalty": penalty,
        "frequencyPenalty": penalty,
        "thinkingConfig": some({"includeThoughts": st.just(True)}, {"thinkingBudget": st.integers(0, 10_000)}),
    },
)
google_choices = some({"mode": st.sampled_from(["AUTO", "ANY", "NONE"])}, {})


@LAW
@given(
    some(
        {"contents": turns(), "generationConfig": google_configs},
        {
            "systemInstruction": st.builds(lambda text: {"parts": [{"text": text}]}, words),
            "tools": declarations.map(lambda made: [{"functionDeclarations": made}]),
            "toolConfig": google_choices.map(lambda choice: {"functionCallingConfig": choice}),
        },
    ),
    st.none() | schemas | st.just({}),
    st.booleans(),
)
@pytest.mark.timeout(300)  # seconds of CPU, more where the cores are shared
def test_googles_request_comes_through(body: Json, schema: Json | None, snake: bool) -> None:
    """Every field of a request that Google's own API would be sent is the one that was given, in either spelling."""
    if schema is not None:
        body["generationConfig"]["responseMimeType"] = "application/json"
        if schema:
            body["generationConfig"]["responseJsonSchema"] = schema
    sent = snaked(body, google_bodies.GenerateContentBody) if snake else body
    read = parse_either(json.dumps(sent).encode(), msgspec.json.Decoder(google_bodies.GenerateContentBody))
    request = text_request.request_from(read, "m", stream=False)
    if "tools" not in body:
        # A choice among no functions is none.
        body.pop("toolConfig", None)
    assert through(gemini_request.body_from(request, MODEL, Ignored())) == body


def snaked(value: Any, kind: type[msgspec.Struct]) -> Any:
    """Respell the typed keys, as a client that writes the protos' own names does."""
    if isinstance(value, list):
        return [snaked(each, kind) for each in value]
    out = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name in value:
            inner = [k for k in flat(field.type) if isinstance(k, type) and issubclass(k, msgspec.Struct)]
            given_value = value[field.encode_name]
            out[field.name] = snaked(given_value, inner[0]) if inner else given_value
    return out


def flat(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from flat(inner)


def through(body: Any) -> Any:
    """Return a body as its JSON says it."""
    return json.loads(encode(body))


# Answers.

reasons = st.sampled_from(
    [text_pb2.FINISH_REASON_STOP, text_pb2.FINISH_REASON_LENGTH, text_pb2.FINISH_REASON_CONTENT_FILTER]
)
usages = st.builds(
    lambda prompt, cached, said, thought: usage_pb2.Usage(
        prompt_tokens=prompt + cached,
        cached_tokens=cached,
        completion_tokens=said + thought,
        reasoning_tokens=thought,
        exact=True,
    ),
    st.integers(1, 1000),
    st.integers(0, 100),
    st.integers(1, 1000),
    st.integers(0, 1000),
)


@st.composite
def answers(draw: st.DrawFn) -> list[text_service_pb2.GenerateTextResponse]:
    """One candidate's answer, in pieces that are cut anywhere."""
    events = [text_pb2.TextEvent(reasoning=text_pb2.ReasoningDelta(text=t)) for t in draw(st.lists(words, max_size=2))]
    events += [text_pb2.TextEvent(text=text_pb2.TextDelta(text=t)) for t in draw(st.lists(words, max_size=3))]
    called = draw(st.integers(0, 3))
    for index in range(called):
        arguments = json.dumps(draw(objects))
        cut = draw(st.integers(0, len(arguments)))
        first = text_pb2.ToolCallDelta(
            call_index=index, id=f"c{index}", name=draw(names), arguments_json=arguments[:cut]
        )
        more = text_pb2.ToolCallDelta(call_index=index, arguments_json=arguments[cut:])
        events += [text_pb2.TextEvent(tool_call=first), text_pb2.TextEvent(tool_call=more)]
    reason = text_pb2.FINISH_REASON_TOOL_CALLS if called else draw(reasons)
    events.append(text_pb2.TextEvent(candidate_finished=text_pb2.CandidateFinished(reason=reason)))
    events.append(text_pb2.TextEvent(finished=text_pb2.Finished(usage=draw(usages))))
    cuts = sorted(draw(st.lists(st.integers(1, len(events)), max_size=3)))
    parts = [events[a:b] for a, b in zip([0, *cuts], [*cuts, len(events)], strict=True)]
    return [text_service_pb2.GenerateTextResponse(events=part) for part in parts if part]


def summed(events: list[text_pb2.TextEvent]) -> Json:
    """Return what an answer comes to, however it was cut."""
    found: Json = {"text": "", "reasoning": "", "calls": {}, "reason": None, "usage": None}
    for event in events:
        kind = event.WhichOneof("event")
        if kind in ("text", "reasoning"):
            found[kind] += getattr(event, kind).text
        elif kind == "tool_call":
            piece = event.tool_call
            call = found["calls"].setdefault(piece.call_index, ["", "", ""])
            for place, text in enumerate((piece.id, piece.name, piece.arguments_json)):
                call[place] += text
        elif kind == "candidate_finished":
            found["reason"] = event.candidate_finished.reason
        elif kind == "finished":
            found["usage"] = event.finished.usage
    found["calls"] = {n: (i, name, json.loads(arguments)) for n, (i, name, arguments) in found["calls"].items()}
    return found


def playing(script: list[text_service_pb2.GenerateTextResponse]) -> TextAnswer:
    copies = [text_service_pb2.GenerateTextResponse.FromString(message.SerializeToString()) for message in script]
    return text_answer(Reservation(VerifiedKey("acc1"), 1, Books()), MessageStream(copies[1:]), copies[0], model=MODEL)


ASKED = text_service_pb2.GenerateTextRequest(
    candidates=1, stream=True, reasoning=text_pb2.ReasoningOptions(include=True)
)


@LAW
@given(answers())
@pytest.mark.timeout(300)  # seconds of CPU, more where the cores are shared
def test_openais_answer_comes_through(script: list[text_service_pb2.GenerateTextResponse]) -> None:
    """An answer read back from the chunks, or from the whole, is the answer that was given."""

    async def rendered() -> tuple[bytes, bytes]:
        async with playing(script) as answer:
            chunks = chat_reply.Chunks(answer, "r", include_usage=True)
            streamed = b""
            while (message := await answer.next()) is not None:
                streamed += chunks.of(message)
        async with playing(script) as answer:
            return streamed, encode(await chat_reply.whole(answer, "r"))

    streamed, whole = asyncio.run(rendered())
    wanted = summed([event for message in script for event in message.events])
    for data, is_stream in ((streamed, True), (whole, False)):
        reader = openai_read.OpenAIReader(ASKED, streamed=is_stream)
        events = [*reader.feed(data), *reader.end()]
        assert reader.failure is None
        assert summed(events) == wanted


@LAW
@given(answers())
def test_googles_answer_comes_through(script: list[text_service_pb2.GenerateTextResponse]) -> None:
    """The same for Google's responses."""

    async def rendered() -> tuple[bytes, bytes]:
        async with playing(script) as answer:
            reply, streamed, more = google_reply.TextReply(answer, "r", thoughts=True), b"", True
            while more:
                more = await reply.advance()
                shown = reply.render(last=not more)
                streamed += frame(shown) if shown else b""
        async with playing(script) as answer:
            reply = google_reply.TextReply(answer, "r", thoughts=True)
            while await reply.advance():
                pass
            return streamed, encode(reply.render(last=True))

    streamed, whole = asyncio.run(rendered())
    wanted = summed([event for message in script for event in message.events])
    for data, is_stream in ((streamed, True), (whole, False)):
        reader = gemini_read.GeminiReader(ASKED, streamed=is_stream)
        events = [*reader.feed(data), *reader.end()]
        assert reader.failure is None
        assert summed(events) == wanted
