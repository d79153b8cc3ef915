"""Tools that take free text: from OpenAI's dialect to providers of its protocol and back; other models refuse them."""

from __future__ import annotations

import copy
import json
from typing import Any, Final

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionMessageCustomToolCall

from inference.text import tools as own_tools
from inference.text.turns import turns_from
from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.catalogue import Model, Provider
from services.common import errors
from services.common.estimate import prompt_tokens
from services.policies.texts import texts_of
from services.providers.openai.text import count
from services.providers.openai.text import request as openai
from services.providers.text.ignored import Ignored
from services.router.dialects.openai import chat_reply, chat_request
from services.router.dialects.reply import encode, frame
from services.router.domain.held_text import HeldText
from services.router.domain.prompt import Prompt
from services.text import capable
from services.text.targets import ADAPTERS
from tests.emulators.openai import check_chat, check_count
from tests.router.passage import answering
from tests.router.passing import CHAT, MODEL, Json, to_openai

GRAMMAR: Final[Json] = {"type": "grammar", "grammar": {"syntax": "lark", "definition": 'start: "select"'}}
TOOL: Final[Json] = {"type": "custom", "custom": {"name": "sql", "description": "runs it"}}
STRICT_TOOL: Final[Json] = {"type": "custom", "custom": {"name": "sql", "description": "runs it", "format": GRAMMAR}}
FUNCTION: Final[Json] = {"type": "function", "function": {"name": "look"}}
NAMED: Final[Json] = {"type": "custom", "custom": {"name": "sql"}}
TEXT: Final = 'select "안녕"\n{"no": json'
CALL: Final[Json] = {"id": "c1", "type": "custom", "custom": {"name": "sql", "input": TEXT}}
GIVEN_BACK: Final = [
    *CHAT["messages"],
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "1 row"},
]
MODEL_NAMES: Final = frozenset((MODEL.name,))


def asked(**fields: Any) -> GenerateTextRequest:
    """Return the request of a chat with a custom tool."""
    return chat_request.request_from(encode({**CHAT, "tools": [TOOL], **fields})).request


@pytest.mark.parametrize("adapter", ["openai", "azure"])
def test_custom_tools_pass_as_they_came(adapter: str) -> None:
    """With their grammars, choices, earlier calls and results, in the form that OpenAI takes, also of the strict."""
    body = {**CHAT, "messages": GIVEN_BACK, "tools": [STRICT_TOOL, FUNCTION], "tool_choice": NAMED}
    for passes in ("all", "documented"):
        sent = to_openai(body, Ignored(strict=True), passes=passes, adapter=adapter)
        check_chat(sent, models=MODEL_NAMES)
        assert {name: sent[name] for name in ("messages", "tools", "tool_choice")} == {
            name: body[name] for name in ("messages", "tools", "tool_choice")
        }


def test_any_text_is_what_a_custom_tool_takes() -> None:
    """OpenAI's word for that is its default."""
    tool = {"type": "custom", "custom": {**TOOL["custom"], "format": {"type": "text"}}}
    assert to_openai({**CHAT, "tools": [tool]})["tools"] == [TOOL]


def test_custom_tools_are_allowed_by_name() -> None:
    """Those that are not named are not offered."""
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
    sent = to_openai({**CHAT, "tools": [FUNCTION, TOOL], "tool_choice": allowed})
    assert (sent["tools"], sent["tool_choice"]) == ([TOOL], "required")


BROKEN: Final[dict[str, Json]] = {
    "tool_choice.custom": {"tool_choice": {"type": "custom"}},
    "tool_choice.allowed_tools.tools": {
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "custom"}]}}
    },
    "messages[0].tool_calls[0].custom": {
        "messages": [{"role": "assistant", "tool_calls": [{**CALL, "type": "custom", "custom": None}]}]
    },
    "messages[0].tool_calls[0].function": {"messages": [{"role": "assistant", "tool_calls": [{"id": "c1"}]}]},
    "tools[0].custom.format.grammar.syntax": {
        "tools": [
            {
                "type": "custom",
                "custom": {
                    "name": "f",
                    "format": {"type": "grammar", "grammar": {"syntax": "ebnf", "definition": "x"}},
                },
            }
        ]
    },
}


@pytest.mark.parametrize("param", BROKEN)
def test_what_lacks_a_name_is_refused_by_its_place(param: str) -> None:
    """A call without what was called, a choice without a name, a grammar in no known syntax."""
    with pytest.raises(errors.InvalidField) as refused:
        asked(**BROKEN[param])
    assert refused.value.param == param


@pytest.mark.parametrize("field", [{"parameters_json": "{}"}, {"strict": True}])
def test_a_custom_tool_has_no_arguments(field: Json) -> None:
    """A caller of the typed API is told; nothing is left out in silence."""
    request = asked()
    request.tools[0].MergeFrom(text_pb2.Tool(**field))
    with pytest.raises(errors.InvalidField, match="custom tool") as refused:
        openai.body_from(request, MODEL, openai.Options(), Ignored())
    assert refused.value.param == f"tools[0].{next(iter(field))}"


def read(request: GenerateTextRequest, *pieces: Json) -> tuple[list[text_pb2.TextEvent], errors.MoaError | None]:
    """Return what the reader makes of an answer's pieces."""
    kind = "text/event-stream" if request.stream else "application/json"
    reader = ADAPTERS["openai"].reader(request, MODEL, {"content-type": kind})
    events: list[text_pb2.TextEvent] = []
    for piece in pieces:
        if reader.failure is None:
            events += reader.feed(frame(piece) if request.stream else encode(piece))
    return (events if reader.failure else [*events, *reader.end()]), reader.failure


def piece(*calls: Json, finish: str | None = None) -> Json:
    """Return a chunk with pieces of calls."""
    delta = {"tool_calls": [{"index": 0, **call} for call in calls]} if calls else {}
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


BEGUN: Final = {"id": "c1", "type": "custom", "custom": {"name": "sql", "input": ""}}
PIECES: Final = (
    piece(BEGUN),
    piece({"custom": {"input": TEXT[:9]}}),
    piece({"type": "custom", "custom": {"input": TEXT[9:]}}),
    piece({"index": 1, "id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}}),
    piece(finish="tool_calls"),
)
SECOND: Final = {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.mark.parametrize("vendor", ["openai", ""])
async def test_a_custom_call_comes_back_whole_and_is_taken_back(vendor: str) -> None:
    """As OpenAI's clients know it; what they append is what the provider sees."""
    request = asked()
    request.vendor.vendor = vendor
    message = {"role": "assistant", "content": None, "tool_calls": [CALL, SECOND]}
    events, failure = read(request, {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    assert failure is None
    async with answering(events) as answer:
        whole = await chat_reply.whole(answer, "r")
    parsed = ChatCompletion.model_validate(whole).choices[0]
    assert parsed.message.tool_calls is not None
    assert isinstance(parsed.message.tool_calls[0], ChatCompletionMessageCustomToolCall)
    assert (parsed.finish_reason, whole["choices"][0]["message"]["tool_calls"]) == ("tool_calls", [CALL, SECOND])
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "1"} for call in (CALL, SECOND)]
    turns = [*CHAT["messages"], whole["choices"][0]["message"], *results]
    sent = to_openai({**CHAT, "tools": [TOOL, FUNCTION], "messages": turns})
    check_chat(sent, models=MODEL_NAMES)
    assert sent["messages"][1]["tool_calls"] == [CALL, SECOND]


@pytest.mark.parametrize("vendor", ["openai", ""])
async def test_a_custom_call_comes_in_pieces(vendor: str) -> None:
    """Each is told as the provider writes it: id, type and name once, then the text's pieces."""
    request = asked(stream=True)
    request.vendor.vendor = vendor
    events, failure = read(request, *PIECES)
    assert failure is None
    async with answering(events) as answer:
        chunks, out = chat_reply.Chunks(answer, "r", include_usage=False), b""
        while (message := await answer.next()) is not None:
            out += chunks.of(message)
    shown = [json.loads(line[6:])["choices"][0] for line in out.splitlines() if line.startswith(b"data: {")]
    calls = [call for choice in shown for call in choice["delta"].get("tool_calls", ())]
    assert calls == [
        {"index": 0, **BEGUN},
        {"index": 0, "custom": {"input": TEXT[:9]}},
        {"index": 0, "custom": {"input": TEXT[9:]}},
        {"index": 1, **SECOND},
    ]
    assert shown[-1]["finish_reason"] == "tool_calls"


SPOILT: Final[dict[str, tuple[Json, ...]]] = {
    "a plain piece of arguments": (piece(BEGUN), piece({"function": {"arguments": "x"}})),
    "a custom piece of a function": (piece(SECOND), piece({"custom": {"input": "x"}})),
    "a custom piece of a function without a name": (
        piece({"id": "c2", "function": {"arguments": ""}}),
        piece({"custom": {"input": "x"}}),
    ),
    "both": (piece({**BEGUN, "function": {"name": "f", "arguments": "x"}}),),
    "a text of another type": (piece({**BEGUN, "custom": {"name": "sql", "input": ["x"]}}),),
    "no name": (piece({"id": "c1", "type": "custom", "custom": {"input": "x"}}),),
    "a text by another name": (piece(BEGUN), piece({"words": "x"})),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_piece_of_a_custom_call_that_cannot_be_read_fails_the_answer(name: str) -> None:
    """A dropped piece never ends in success."""
    _, failure = read(asked(stream=True), *SPOILT[name], piece(finish="tool_calls"))
    assert type(failure) is errors.UpstreamBroken


def test_a_custom_call_that_nobody_asked_for_fails_the_answer() -> None:
    """A caller that sent functions alone, of any dialect, has no form for it."""
    _, failure = read(asked(stream=True, tools=[FUNCTION]), *PIECES)
    assert type(failure) is errors.Unsupported


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("adapter", ["gemini", "bedrock", "anthropic"])
@pytest.mark.parametrize("tool", [TOOL, STRICT_TOOL])
def test_other_vendors_refuse_custom_tools(adapter: str, tool: Json, strict: bool) -> None:
    """By name, with what the model can do, for chats and counts."""
    ignored = Ignored(strict=strict)
    request = asked(tools=[FUNCTION, tool])
    with pytest.raises(errors.Unsupported, match="calls functions only") as refused:
        capable.check(request, MODEL, ADAPTERS[adapter], ignored)
    assert (refused.value.param, ignored.names) == ("tools[1].custom", [])
    with pytest.raises(errors.Unsupported, match="calls functions only"):
        capable.check_custom(CountTokensRequest(tools=request.tools), MODEL, ADAPTERS[adapter])


def test_own_models_refuse_custom_tools() -> None:
    """Likewise."""
    with pytest.raises(errors.Unsupported, match="call functions only") as refused:
        own_tools.tools_from(asked(tools=[TOOL]).tools, text_pb2.ToolChoice())
    assert refused.value.param == "tools[0].custom"


def test_earlier_custom_calls_are_calls_of_functions_elsewhere() -> None:
    """A conversation goes on with any model: the text is the argument `input`."""
    request = asked(messages=GIVEN_BACK, tools=[FUNCTION])
    own = copy.deepcopy(request)
    capable.check(request, MODEL, ADAPTERS["gemini"], Ignored())
    call = request.messages[1].parts[0].tool_call
    assert (json.loads(call.arguments_json), call.custom) == ({"input": TEXT}, False)
    assert json.loads(turns_from(own.messages)[1].calls[0].arguments) == {"input": TEXT}


def test_a_custom_tool_is_counted_in_openais_words() -> None:
    """With its grammar, calls and results, as the protocol's method for counts takes them."""
    request = asked(messages=GIVEN_BACK, tools=[STRICT_TOOL, FUNCTION])
    made = CountTokensRequest(messages=request.messages, tools=request.tools)
    options = {"counts_tokens": True}
    provider = Provider(id="p", makes="text", adapter="openai", base_url="https://x/v1", options=options)
    model = Model(id="m", provider="p", upstream="gpt-4o-mini")
    body = json.loads(bytes(count.count_request_from(made, model, provider).body))
    check_count(body)
    assert [item.get("type") for item in body["input"]] == [None, "custom_tool_call", "custom_tool_call_output"]
    assert (body["input"][1]["input"], body["tools"][0]["format"]["syntax"]) == (TEXT, "lark")


def test_a_grammar_is_part_of_the_prompt() -> None:
    """Bounds and guesses count it, and policies see it."""
    plain, grammar = asked(), asked(tools=[STRICT_TOOL])
    assert Prompt.of(grammar).bound - Prompt.of(plain).bound == len(GRAMMAR["grammar"]["definition"])
    assert prompt_tokens(grammar) > prompt_tokens(plain)
    assert GRAMMAR["grammar"]["definition"] in list(texts_of(grammar))


def test_a_custom_calls_text_that_is_held_back_stays_one() -> None:
    """Whatever a policy holds back of it goes on as a piece of the same kind."""
    held = HeldText(4)
    called = text_pb2.ToolCallDelta(id="c1", name="sql", arguments_json=TEXT, custom=True)
    front = held.split(text_pb2.TextEvent(tool_call=called))
    (tail,) = held.due_before(text_pb2.TextEvent(finished=text_pb2.Finished()), "finished")
    assert front is not None
    assert front.tool_call.arguments_json + tail.tool_call.arguments_json == TEXT
    assert tail.tool_call.custom
