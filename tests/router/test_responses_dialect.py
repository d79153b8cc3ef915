"""The Responses dialect's bodies, both ways, held against the official client's own types."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import pytest
from openai.types.responses import Response

from moa.common.v1 import error_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import InvalidField, MoaError, Unsupported
from services.router.dialects.responses import answering, asked, sealed
from services.router.dialects.responses.registration import REGISTRATION
from tests.router.responses_played import ASKED, called, carrying, events, finished, read, thought, whole
from tests.router.test_openai_dialect import Books, answer, ended, message, said

DIALECT = REGISTRATION.dialects["moa.router.v1.ResponsesService"]
ANSWERS: dict[str, list[text_pb2.TextEvent]] = {
    "text": [said("안"), said('녕 "\\\n'), said("!"), *finished(reason=text_pb2.FINISH_REASON_STOP)],
    "nothing": finished(reason=text_pb2.FINISH_REASON_STOP),
    "cut": [said("a"), *finished(reason=text_pb2.FINISH_REASON_LENGTH)],
    "withheld": [said("a"), *finished(reason=text_pb2.FINISH_REASON_CONTENT_FILTER, refusal="no")],
    "refused": finished(reason=text_pb2.FINISH_REASON_STOP, refusal="no"),
    "reasoning": [thought("h"), thought("m"), thought("", b"sig", "anthropic"), thought("2"), said("a"), *ended()],
    "hidden reasoning": [thought("", b"sealed", "openai"), called(0, "{}", id="c", name="f"), *ended()],
    "calls": [
        said("a"),
        called(0, '{"a":', id="c1", name="f"),
        called(1, "x", id="c2", name="g", custom=True),
        called(0, "1}"),
        called(1, "y", custom=True),
        *finished(reason=text_pb2.FINISH_REASON_TOOL_CALLS),
    ],
    "carried": [
        carrying(text_pb2.TextEvent(), {"answer": {"service_tier": "flex", "usage": {"cost": 1}}}),
        carrying(
            said("a"),
            {"message": {"annotations": [{"type": "url_citation", "url_citation": {
                "url": "u", "title": "t", "start_index": 0, "end_index": 1}}]}},
        ),
        carrying(called(0, "{}", id="c", name="f"), {"call": {"extra": 1}}),
        *ended(),
    ],
}  # fmt: skip


@pytest.mark.parametrize("summary", [None, "auto"])
@pytest.mark.parametrize("name", ANSWERS)
def test_every_event_is_one_of_the_clients_types(name: str, summary: str | None) -> None:
    """Each event of a stream validates as the client's type of its name, and their order is the reference's."""
    found = events(read(**ASKED, reasoning={"summary": summary}), *ANSWERS[name])
    joined = "".join(one["delta"] for one in found if one["type"] == "response.output_text.delta")
    final = Response.model_validate(found[-1]["response"])
    assert final.output_text == joined
    assert found[-1]["response"]["store"] is False


@pytest.mark.parametrize("name", ANSWERS)
def test_the_whole_answer_is_the_stream_drained(name: str) -> None:
    """A unary answer validates as the client's type, and is the last event's response."""
    told = read(**ASKED, reasoning={"effort": "low", "summary": "auto"})
    one, other = whole(told, *ANSWERS[name]), events(told, *ANSWERS[name])[-1]["response"]
    for each in (one, other):
        del each["created_at"], each["completed_at"]
    assert one == other
    Response.model_validate(one | {"created_at": 1})


def test_what_a_whole_answer_holds() -> None:
    """Its status, usage and items are the Responses API's, and it repeats what was asked."""
    made = whole(read(**ASKED), *ANSWERS["calls"])
    assert (made["status"], made["store"], made["error"]) == ("completed", False, None)
    assert made["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
    }
    text, call, custom = made["output"]
    assert text["content"][0]["text"] == "a"
    assert (call["type"], call["call_id"], call["name"], call["arguments"]) == ("function_call", "c1", "f", '{"a":1}')
    assert (custom["type"], custom["call_id"], custom["input"]) == ("custom_tool_call", "c2", "xy")
    for name in ("instructions", "tools", "tool_choice", "metadata", "max_output_tokens"):
        assert made[name] == ASKED[name]
    assert made["text"] == {"format": ASKED["text"]["format"], "verbosity": "low"}


@pytest.mark.parametrize(
    ("name", "status", "why"),
    [
        ("cut", "incomplete", "max_output_tokens"),
        ("withheld", "incomplete", "content_filter"),
        ("refused", "completed", None),
    ],
)
def test_how_an_answer_ends(name: str, status: str, why: str | None) -> None:
    """An answer that was cut or withheld is incomplete, and says why; a refusal is a part of its own."""
    made = whole(read(), *ANSWERS[name])
    assert made["status"] == made["output"][0]["status"] == status
    assert (made["incomplete_details"] or {}).get("reason") == why
    if name != "cut":
        assert made["output"][0]["content"][-1] == {"type": "refusal", "refusal": "no"}


def test_a_failure_ends_the_stream() -> None:
    """The last event of a broken answer is the failed response, with what came before it."""
    error = error_pb2.ErrorDetail(reason=error_pb2.REASON_UPSTREAM_RATE_LIMITED, message="slow down")
    found = events(read(), thought("h", b"s", "x"), said("a"), text_pb2.TextEvent(error=error))
    failed = found[-1]["response"]
    assert failed["status"] == "failed"
    assert (failed["error"]["code"], failed["error"]["message"]) == ("rate_limit_exceeded", "slow down")
    assert [item["type"] for item in failed["output"]] == ["reasoning"]


def test_a_whole_answer_that_fails_is_an_error() -> None:
    """Nothing of it is a response."""
    response = answering.Response("m", "rid", read().echo, streams=False)
    error = error_pb2.ErrorDetail(reason=error_pb2.REASON_UPSTREAM_FAILED, message="gone")
    with pytest.raises(MoaError, match="gone"):
        response.of(message(said("a"), text_pb2.TextEvent(error=error)))


def test_a_stream_that_failed_before_it_began_is_whole() -> None:
    """A client that reads `response.created` first has it, and then the failure."""
    out = answering.Response("m", "rid", read().echo, streams=True).broken(Unsupported("no", param="tools"))
    kinds = [block.partition("\n")[0] for block in out.decode().strip().split("\n\n")]
    assert kinds == ["event: response.created", "event: response.in_progress", "event: response.failed"]


async def test_a_drained_answer_is_settled_by_what_was_reported() -> None:
    """The unary form consumes the answer as any dialect does."""
    books = Books()
    async with answer(books, message(said("hi")), message(*ended())) as play:
        body = json.loads((await answering.drained(play, "rid", read().echo)).whole())
    assert body["usage"]["total_tokens"] == 5
    assert [usage.completion_tokens for usage in books.settled] == [2]


@pytest.mark.parametrize(
    ("signer", "signature"), [("anthropic", b"c2ln"), ("google", bytes(range(256))), ("openai", b"gAAAAA=_-")]
)
@pytest.mark.parametrize("summary", [None, "auto"])
def test_reasoning_comes_back_as_it_was(signer: str, signature: bytes, summary: str | None) -> None:
    """What proves a vendor's reasoning survives a turn, with its text, whatever of the item a client keeps beside."""
    made = whole(read(reasoning={"summary": summary}), thought("hmm"), thought("", signature, signer), *ended())
    item = made["output"][0]
    back = read(input=[{"role": "user", "content": "x"}, item]).request.messages[1].parts[0].reasoning
    assert (back.text, back.signature, back.signer) == ("hmm", signature, signer)
    if signer != "openai":
        bare = {"type": "reasoning", "summary": [], "encrypted_content": item["encrypted_content"]}
        kept = read(input=[bare]).request.messages[0].parts[0].reasoning
        assert (kept.text, kept.signature) == ("hmm", signature)
    else:
        assert item["encrypted_content"] == signature.decode()


def test_sealed_content_that_was_changed_proves_nothing() -> None:
    """What is shown is left as plain reasoning; nothing fails."""
    for broken in ("moa1.!", "moa1.AAAA", "moa1." + "A" * 99):
        part = sealed.opened(broken, "shown")
        assert (part.text, part.signature, part.signer) == ("shown", b"", "")


def test_a_signed_call_comes_back_as_it_was() -> None:
    """Gemini's signature of a call stands behind its id."""
    made = whole(read(), called(0, "{}", id="c1", name="f", signature=b"\x00sig", signer="google"), *ended())
    call = made["output"][0]
    items = [call, {"type": "function_call_output", "call_id": call["call_id"], "output": "r"}]
    turn, result = read(input=items).request.messages
    assert (turn.parts[0].tool_call.id, turn.parts[0].tool_call.signature) == ("c1", b"\x00sig")
    assert result.parts[0].tool_result.tool_call_id == "c1"


def test_items_become_the_contracts_messages() -> None:
    """What the model made in a turn is one message; results are messages of their own, with what they show behind."""
    items: list[dict[str, Any]] = [
        {"role": "developer", "content": "rules"},
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "low"},
            {"type": "input_file", "file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"},
        ]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [
            {"type": "output_text", "text": "I look", "annotations": [], "logprobs": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "free"},
        {"type": "function_call_output", "call_id": "c1", "output": [
            {"type": "input_text", "text": "seen"}, {"type": "input_image", "image_url": "https://x.example/b.png"}]},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "done"},
        {"role": "user", "content": "and?"},
    ]  # fmt: skip
    told = asked.read(json.dumps({"model": "m", "input": items, "instructions": "be"}).encode())
    roles = [text_pb2.Role.Name(each.role).removeprefix("ROLE_").lower() for each in told.request.messages]
    assert roles == ["system", "system", "user", "assistant", "tool", "tool", "user", "user"]
    turn = told.request.messages[3]
    assert [part.WhichOneof("part") for part in turn.parts] == ["reasoning", "text", "tool_call", "tool_call"]
    assert turn.parts[3].tool_call.custom
    assert told.request.messages[2].parts[2].file.data == b"ABC"
    shown = told.request.messages[6].parts
    assert [part.WhichOneof("part") for part in shown] == ["text", "image"]
    assert told.places[6][1] == "input[6].output[1]"
    assert [len(each.parts) for each in told.request.messages] == [len(each) for each in told.places]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no input": ({"input": ""}, "input"),
    "an item by its id": ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    "no kind of item": ({"input": [{"content": "x"}]}, "input[0].type"),
    "no kind of tool": ({"tools": [{"name": "f"}]}, "tools[0].type"),
    "an earlier answer": ({"previous_response_id": "resp_1"}, "previous_response_id"),
    "a conversation": ({"conversation": "conv_1"}, "conversation"),
    "a stored prompt": ({"prompt": {"id": "p"}}, "prompt"),
    "a task": ({"background": True}, "background"),
    "a stored image": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0].file_id",
    ),
    "a stored file": (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        "input[0].content[0].file_id",
    ),
    "a kind of part": ({"input": [{"role": "user", "content": [{"type": "x"}]}]}, "input[0].content[0].type"),
    "a role": ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
    "no content": ({"input": [{"role": "user", "content": []}]}, "input[0].content"),
    "no call": ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
    "a tool's name": ({"tools": [{"type": "function", "name": "no name"}]}, "tools[0].name"),
    "a choice of none": (
        {"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "function"}},
        "tool_choice.name",
    ),
    "a choice of others": (
        {"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "web_search"}},
        "tool_choice.type",
    ),
    "allowed others": (
        {
            "tools": [{"type": "function", "name": "f"}],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]},
        },
        "tool_choice.tools",
    ),
    "a choice among none": ({"tool_choice": "required"}, "tool_choice"),
    "a choice of one among none": ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
    "no schema": ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    "reasoning that is no object": ({"reasoning": "high"}, "reasoning"),
    "an effort": ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
    "an unknown inclusion": ({"include": ["nonsense"]}, "include[0]"),
    "an unknown truncation": ({"truncation": "sometimes"}, "truncation"),
    "metadata that is no object": ({"metadata": "x"}, "metadata"),
    "metadata of a number": ({"metadata": {"a": 1}}, "metadata.a"),
    "a key of metadata": ({"metadata": {"b": "", "k" * 65: ""}}, "metadata." + "k" * 64),
    "more metadata than is kept": ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named(case: str) -> None:
    """A refusal names the caller's own field, and says what to do instead."""
    fields, param = REFUSED[case]
    with pytest.raises((InvalidField, Unsupported)) as refused:
        read(**fields)
    assert refused.value.param == param
    assert DIALECT.spelled(param) == param
    assert refused.value.message.startswith((param, "images by their id", "files by their id", "items are not"))


def test_tools_and_choices() -> None:
    """Functions and custom tools are the contract's; allowed tools alone are offered; others are OpenAI's own."""
    tools = [*ASKED["tools"], {"type": "web_search", "filters": {"a": 1}}]
    told = read(tools=tools, tool_choice="required", parallel_tool_calls=False).request
    assert [tool.name for tool in told.tools] == ["f", "g", ""]
    assert told.tools[1].custom.grammar.definition == "a+"
    assert json.loads(told.tools[2].vendor.json) == {"tool": tools[2]}
    assert (told.tools[2].vendor.vendor, list(told.tools[2].vendor.names)) == ("openai.responses", ["web_search"])
    assert told.tool_choice.mode == text_pb2.ToolChoice.MODE_REQUIRED
    assert not told.tool_choice.parallel
    allowed = {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "custom", "name": "g"}, {"type": "web_search"}],
    }
    assert [tool.name for tool in read(tools=tools, tool_choice=allowed).request.tools] == ["g", ""]
    own = read(tools=tools, tool_choice={"type": "web_search"}).request
    assert json.loads(own.vendor.json)["responses"]["tool_choice"] == {"type": "web_search"}


def test_namespaces_of_functions_are_joined_to_their_names() -> None:
    """Any model is offered their functions by one name each, and a caller reads both names, and gives both back."""
    inner = {"type": "function", "name": "spawn", "parameters": {"type": "object"}}
    space = {"type": "namespace", "name": "agents", "description": "d", "tools": [inner]}
    told = read(tools=[space])
    assert [tool.name for tool in told.request.tools] == ["agents__spawn"]
    call = whole(told, called(0, "{}", id="c1", name="agents__spawn"), *ended())["output"][0]
    assert (call["namespace"], call["name"]) == ("agents", "spawn")
    found = events(told, called(0, "{}", id="c1", name="agents__spawn"), *ended())
    assert found[2]["item"]["namespace"] == "agents"
    assert read(input=[call], tools=[space]).request.messages[0].parts[0].tool_call.name == "agents__spawn"
    long = read(tools=[{**space, "name": "a" * 60}]).request.tools[0].name
    assert len(long) == 64
    kept = read(input=[call], tools=[space, {"type": "tool_search"}]).request
    assert [tool.name for tool in kept.tools] == ["", ""]
    assert kept.messages[0].parts[0].tool_call.name == "spawn"
    with pytest.raises(InvalidField, match="namespace needs"):
        read(tools=[{"type": "namespace", "name": "x"}])


def test_what_is_not_stored_is_said() -> None:
    """A caller that wants its answer stored is told that the field has no effect; strictly, it is refused."""
    assert read(store=True).ignored == ["store"]
    assert read(store=False).ignored == []
    with pytest.raises(InvalidField, match="store"):
        asked.read(json.dumps({"model": "m", "input": "x", "store": True}).encode(), strict=True)


def test_hints_are_carried_for_openai_and_named_for_others() -> None:
    """What OpenAI's chats know stands where they have it, the rest apart; what it takes for granted is no wish."""
    vendor = read(
        metadata={"a": "b"}, truncation="auto", include=["web_search_call.results", "reasoning.encrypted_content"],
        service_tier="auto", text={"verbosity": "low"}, reasoning={"summary": "concise"}, max_tool_calls=3, other=1,
    ).request.vendor  # fmt: skip
    assert json.loads(vendor.json) == {
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "verbosity": "low",
        "other": 1,
        "responses": {
            "truncation": "auto",
            "max_tool_calls": 3,
            "include": ["web_search_call.results"],
            "reasoning": {"summary": "concise"},
        },
    }
    named = {"metadata", "text.verbosity", "truncation", "max_tool_calls", "include", "other"}
    assert set(vendor.names) == named
    bare = read(truncation="disabled", text={"verbosity": "medium"}, metadata={}).request.vendor
    assert list(bare.names) == []


def test_log_probabilities_are_asked_for_by_name() -> None:
    """`include` asks for them; each text event has those of its tokens."""
    told = read(include=["message.output_text.logprobs"], top_logprobs=1)
    assert (told.request.sampling.logprobs, told.request.sampling.top_logprobs) == (True, 1)
    token = text_pb2.TokenLogprob(token="a", logprob=-1.0, raw=b"a")
    token.top.add(token="b", logprob=-2.0, raw=b"b")
    found = events(told, text_pb2.TextEvent(text=text_pb2.TextDelta(text="a", logprobs=[token])), *ended())
    (delta,) = (one for one in found if one["type"] == "response.output_text.delta")
    wanted = {"token": "a", "logprob": -1.0, "bytes": [97]}
    assert delta["logprobs"] == [wanted | {"top_logprobs": [{"token": "b", "logprob": -2.0, "bytes": [98]}]}]
    part = Response.model_validate(found[-1]["response"]).output[0]
    assert part.type == "message"
    assert part.content[0].type == "output_text"
    assert part.content[0].logprobs


def test_another_model_that_goes_on_is_named() -> None:
    """The response names who answered last."""
    started = text_pb2.TextEvent(started=text_pb2.Started(model="other"))
    assert whole(read(), said("a"), started, said("b"), *ended())["model"] == "other"


def test_a_sign_of_life_is_no_event() -> None:
    """A message without events renders nothing."""
    response = answering.Response("m", "rid", read().echo, streams=True)
    assert response.of(text_service_pb2.GenerateTextResponse()) == b""


def changed(value: Any, dice: random.Random) -> Any:
    """Return a value in which one place holds another kind of value, or nothing."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        name = dice.choice(sorted(value))
        return {**value, name: changed(value[name], dice)}
    if isinstance(value, list) and value and dice.random() < 0.8:
        place = dice.randrange(len(value))
        return [*value[:place], changed(value[place], dice), *value[place + 1 :]]
    return dice.choice([None, 3, -1.5, True, "x", [], {}, [3], {"type": "x"}, 2**70])


ITEMS: list[dict[str, Any]] = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]},
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "h"}],
        "encrypted_content": "moa1.x",
    },
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "namespace": "s"},
    {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "x"}]},
    {"type": "web_search_call", "id": "ws_1"},
]
SPACE: dict[str, Any] = {"type": "namespace", "name": "s", "tools": [{"type": "function", "name": "g"}]}


@pytest.mark.parametrize("seed", range(2))
def test_bodies_of_other_types_are_refused(seed: int) -> None:
    """Whatever stands in a body, it is read and its answer written, or its caller is told what is wrong."""
    dice = random.Random(seed)
    body = {
        **ASKED,
        "input": ITEMS,
        "tools": [*ASKED["tools"], SPACE],
        "reasoning": {"effort": "low", "summary": "auto"},
    }
    for _ in range(300):
        with contextlib.suppress(MoaError):
            told = asked.read(json.dumps(changed(body, dice)).encode())
            whole(told, *ANSWERS["calls"])
