"""The OpenAI dialect's bodies, both ways, held against the official client's own types."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from moa.common.v1 import error_pb2, usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import InvalidField, Malformed, MoaError, Unsupported
from services.router.background import Background
from services.router.dialects.openai import chat_reply, chat_request
from services.router.operations.text import TextAnswer
from tests.router.answering import text_answer
from tests.router.test_native_dialect import png

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class Script:
    """A source that plays messages."""

    def __init__(self, *messages: text_service_pb2.GenerateTextResponse) -> None:
        self._left = list(messages)

    async def read(self) -> text_service_pb2.GenerateTextResponse | None:
        return self._left.pop(0) if self._left else None

    def cancel(self) -> None:
        self._left = []

    def close(self) -> None:
        self._left = []


class Books:
    """A reservation that remembers."""

    account_id, reservation_id, tokens, priority = "a", "r", 100, "normal"
    verified_key: Any = None

    def __init__(self) -> None:
        self.settled: list[usage_pb2.Usage] = []
        self.released = 0

    def follow(self, so_far: Any) -> None: ...

    def report(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        pass

    def settle(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        self.settled.append(usage)

    def release(self) -> None:
        self.released += 1

    def void(self) -> None:
        self.released += 1


def message(*events: text_pb2.TextEvent) -> text_service_pb2.GenerateTextResponse:
    return text_service_pb2.GenerateTextResponse(events=events)


def said(text: str) -> text_pb2.TextEvent:
    return text_pb2.TextEvent(text=text_pb2.TextDelta(text=text))


def ended(
    reason: text_pb2.FinishReason.ValueType = text_pb2.FINISH_REASON_STOP,
) -> tuple[text_pb2.TextEvent, text_pb2.TextEvent]:
    usage = usage_pb2.Usage(prompt_tokens=3, completion_tokens=2, exact=True)
    return (
        text_pb2.TextEvent(candidate_finished=text_pb2.CandidateFinished(reason=reason)),
        text_pb2.TextEvent(finished=text_pb2.Finished(usage=usage)),
    )


def answer(
    books: Books, first: text_service_pb2.GenerateTextResponse, *more: Any, background: Background | None = None
) -> TextAnswer:
    return text_answer(books, Script(*more), first, request_id="rid", background=background)


async def chunks(play: TextAnswer, *, include_usage: bool = True) -> list[str]:
    render = chat_reply.Chunks(play, "rid", include_usage=include_usage)
    out = b""
    async with play:
        while (piece := await play.next()) is not None:
            out += render.of(piece)
    return [line.removeprefix("data: ") for line in out.decode().split("\n\n") if line]


async def test_chunks_are_what_the_official_client_parses() -> None:
    """Every event of a stream validates as the client's chunk type, and joins to the text."""
    call = text_pb2.TextEvent(tool_call=text_pb2.ToolCallDelta(call_index=0, id="c1", name="f", arguments_json='{"a":'))
    more = text_pb2.TextEvent(tool_call=text_pb2.ToolCallDelta(call_index=0, arguments_json="1}"))
    think = text_pb2.TextEvent(reasoning=text_pb2.ReasoningDelta(text="hm"))
    books = Books()
    lines = await chunks(answer(books, message(think, said("안"), said('녕 "\\\n')), message(call, more, *ended())))
    assert lines[-1] == "[DONE]"
    parsed = [ChatCompletionChunk.model_validate_json(line) for line in lines[:-1]]
    deltas = [c.choices[0].delta for c in parsed if c.choices]
    assert deltas[0].role == "assistant"
    assert "".join(d.content or "" for d in deltas) == '안녕 "\\\n'
    pieces = [t for d in deltas for t in d.tool_calls or ()]
    assert pieces[0].id == "c1"
    assert "".join((p.function.arguments or "") if p.function else "" for p in pieces) == '{"a":1}'
    assert parsed[-1].usage is not None
    assert parsed[-1].usage.total_tokens == 5
    assert [u.completion_tokens for u in books.settled] == [2]


async def test_the_whole_answer_is_the_stream_drained() -> None:
    """A unary answer validates as the client's type and holds what the chunks held."""
    books = Books()
    play = answer(books, message(said("a"), said("b")), message(*ended(text_pb2.FINISH_REASON_LENGTH)))
    async with play:
        body = await chat_reply.whole(play, "rid")
    parsed = ChatCompletion.model_validate_json(json.dumps(body))
    assert parsed.choices[0].message.content == "ab"
    assert parsed.choices[0].finish_reason == "length"
    assert parsed.usage is not None
    assert parsed.usage.prompt_tokens == 3


async def test_a_broken_stream_ends_with_one_error_and_is_charged_for_what_came() -> None:
    """A stream that breaks off gives an in-band error, no `[DONE]`, and is billed by the pieces delivered."""
    books = Books()
    lines = await chunks(answer(books, message(said("a"), said("b"))))
    assert json.loads(lines[-1])["error"]["code"] == "upstream_broken"
    assert [(u.prompt_tokens, u.completion_tokens) for u in books.settled] == [(7, 2)]


async def test_a_caller_that_leaves_is_charged_for_what_was_delivered() -> None:
    """Leaving mid-stream settles by the prompt and the pieces so far, once."""
    books, background = Books(), Background()
    play = answer(books, message(said("a")), message(said("b"), *ended()), background=background)
    async with play:
        await play.next()
    play.settle()
    await background.drain()
    assert [(u.prompt_tokens, u.completion_tokens) for u in books.settled] == [(9, 1)]
    assert books.released == 0


async def test_an_answer_of_nothing_costs_nothing() -> None:
    """An error before any piece gives the reservation back."""
    books = Books()
    failed = text_pb2.TextEvent(error=error_pb2.ErrorDetail(reason=error_pb2.REASON_UPSTREAM_FAILED, message="x"))
    play = answer(books, message(text_pb2.TextEvent(usage=usage_pb2.Usage())), message(failed))
    with pytest.raises(MoaError):
        async with play:
            await chat_reply.whole(play, "rid")
    assert (books.settled, books.released) == ([], 1)


def test_every_kind_of_message_arrives() -> None:
    """Parts, images, tools, results and choices arrive where the contract keeps them."""
    image = "data:image/png;base64," + base64.b64encode(png()).decode()
    body = {
        "model": "m",
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what?"},
                    {"type": "image_url", "image_url": {"url": image, "detail": "low"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "42"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "x": 1.0}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
        "n": 2,
        "stop": ["a", "b"],
        "seed": -5,
        "logprobs": True,
        "top_logprobs": 3,
        "logit_bias": {"50256": -100},
        "max_completion_tokens": 9,
        "reasoning_effort": "low",
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": "u",
        "store": True,
    }
    request, include_usage, *_ = chat_request.request_from(json.dumps(body).encode())
    assert include_usage
    assert request.vendor.names == ["store", "messages[].content[].image_url.detail"]
    assert request.messages[0].role == text_pb2.ROLE_SYSTEM
    assert request.messages[1].parts[1].image.data == png()
    assert request.messages[2].parts[0].tool_call.name == "f"
    assert request.messages[3].parts[0].tool_result.content == "42"
    assert json.loads(request.tools[0].parameters_json) == {"type": "object", "x": 1.0}
    assert (request.tool_choice.mode, request.tool_choice.name) == (text_pb2.ToolChoice.MODE_NAMED, "f")
    assert request.tool_choice.parallel is False
    assert request.response_format.kind == text_pb2.ResponseFormat.KIND_JSON_SCHEMA
    assert (request.candidates, list(request.stop), request.sampling.seed) == (2, ["a", "b"], -5)
    assert (request.sampling.top_logprobs, request.sampling.logit_bias[50256]) == (3, -100)
    assert (request.max_tokens, request.user) == (9, "u")


TWO_TOOLS = {"tools": [{"type": "function", "function": {"name": name}} for name in ("f", "g")]}


def allowing(mode: str, *names: str) -> dict[str, Any]:
    """Return a choice among some of the tools, in OpenAI's form."""
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {**TWO_TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}}


@pytest.mark.parametrize(
    ("word", "mode"), [("auto", text_pb2.ToolChoice.MODE_AUTO), ("required", text_pb2.ToolChoice.MODE_REQUIRED)]
)
def test_only_the_tools_that_are_allowed_are_offered(word: str, mode: text_pb2.ToolChoice.Mode.ValueType) -> None:
    """Every model can do so, for no vendor's own word is needed."""
    request = chat_request.request_from(json.dumps({**HELLO, **allowing(word, "g")}).encode()).request
    assert ([tool.name for tool in request.tools], request.tool_choice.mode) == (["g"], mode)


REFUSED = {
    "no tool allowed": (allowing("auto"), InvalidField),
    "a tool that there is not allowed": (allowing("auto", "f", "h"), InvalidField),
    "nothing allowed": ({**TWO_TOOLS, "tool_choice": {"type": "allowed_tools"}}, InvalidField),
    "no function named": ({**TWO_TOOLS, "tool_choice": {"type": "function"}}, InvalidField),
    "a sound that is none": (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        InvalidField,
    ),
    "a stored file": (
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
        Unsupported,
    ),
    "a file's image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///y.png"}}]}]},
        InvalidField,
    ),
    "functions": ({"functions": []}, Unsupported),
    "modalities": ({"modalities": ["text", "audio"]}, Unsupported),
    "empty content": ({"messages": [{"role": "user", "content": []}]}, InvalidField),
    "tool without id": ({"messages": [{"role": "tool", "content": "x"}]}, InvalidField),
    "schema missing": ({"response_format": {"type": "json_schema"}}, InvalidField),
    "top_logprobs alone": ({"top_logprobs": 1}, InvalidField),
    "temperature": ({"temperature": -0.1}, InvalidField),
}


def test_of_two_bounds_the_smaller_holds() -> None:
    """Some clients send both, for servers that know only one of the names."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    for other, bound in ((3, 3), (5, 5), (9, 5)):
        body["max_completion_tokens"] = other
        assert chat_request.request_from(json.dumps(body).encode()).request.max_tokens == bound


@pytest.mark.parametrize(("change", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_done_is_refused(change: dict[str, Any], error: type[MoaError]) -> None:
    """Nothing is dropped in silence: what is not supported is refused by name."""
    with pytest.raises(error) as caught:
        chat_request.request_from(json.dumps({**HELLO, **change}).encode())
    assert type(caught.value) is error
    assert caught.value.param


def test_a_bottomless_body_is_refused() -> None:
    """Nesting without end is bad JSON, not a crash."""
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"metadata":' + b"[" * 100_000
    with pytest.raises(Malformed):
        chat_request.request_from(body)
