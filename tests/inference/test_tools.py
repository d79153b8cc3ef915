"""Tools that models of one's own call: what they are told, what they may write, and what is read of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.text.calls import CallPiece, CallSplitter
from inference.text.constraint import Constraint
from inference.text.template import Template
from inference.text.tools import BEFORE_ARGUMENTS, BEFORE_NAME, CLOSE, OPEN, Tool, Tools, tools_from
from inference.text.turns import Call, Turn
from moa.common.v1 import vendor_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import errors
from services.router.domain.bounds import prompt_bound
from services.router.domain.prompt import Prompt
from tests import shipped
from tests.inference.harness import CHAT, Client, Running, chat

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Seoul", "서울", "Paris"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = text_pb2.Tool(name="weather", description="Tell the weather.", parameters_json=json.dumps(PARAMETERS))
CLOCK = text_pb2.Tool(name="clock")
TOOLS = (Tool("weather", "Tell the weather.", PARAMETERS, False), Tool("clock", "", {"type": "object"}, False))
REQUIRED = text_pb2.ToolChoice(mode=text_pb2.ToolChoice.MODE_REQUIRED)


def written(name: str, arguments: str) -> str:
    return f"{OPEN}{BEFORE_NAME}{name}{BEFORE_ARGUMENTS}{arguments}{CLOSE}"


def read(pieces: Sequence[str]) -> tuple[str, list[tuple[str, str, str]]]:
    """Return an answer's text and its calls."""
    splitter = CallSplitter(new_id=iter(map(str, range(99))).__next__)
    out = [run for piece in pieces for run in splitter.feed(piece)] + splitter.feed("", last=True)
    calls: dict[int, list[str]] = {}
    for run in out:
        if isinstance(run, CallPiece):
            call = calls.setdefault(run.index, ["", "", ""])
            for at, part in enumerate((run.id, run.name, run.arguments)):
                call[at] += part
    assert splitter.calls == len(calls)
    return "".join(run for run in out if isinstance(run, str)), [(i, n, a) for i, n, a in calls.values()]


ARGUMENTS = [
    '{"a": "}\\n</tool_call>\\n<tool_call>"}',
    '{"q": "\\"{[", "w": {"x": [1, {}]}}',
    "{}",
    '{"도시": "서울 🌧"}',
]


@given(st.lists(st.sampled_from(ARGUMENTS), max_size=3), st.sampled_from(["", "Let me see.\n"]), st.data())
def test_calls_are_read_however_they_are_parted(arguments: list[str], said: str, data: st.DataObject) -> None:
    """Text and calls come out the same in whatever pieces tokens bring them, brackets and tags in strings included."""
    whole = said + "\n".join(written("weather", each) for each in arguments)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    text, calls = read(pieces)
    assert text == said
    assert calls == [(str(at), "weather", each) for at, each in enumerate(arguments)]


def test_text_that_begins_like_a_call_is_text() -> None:
    """An answer that ends within the opening tag keeps its letters."""
    assert read(["a < b <tool", "_ca"]) == ("a < b <tool_ca", [])


def test_a_tool_that_runs_at_a_vendor_is_refused_by_whose_it_is() -> None:
    """Not for a name that its caller never gave."""
    tool = text_pb2.Tool(vendor=vendor_pb2.VendorFields(vendor="google", json=b'{"googleSearch": {}}'))
    with pytest.raises(errors.Unsupported, match="none of the tools that run at google") as refused:
        tools_from([text_pb2.Tool(name="f"), tool], text_pb2.ToolChoice())
    assert refused.value.param == "tools[1]"


async def test_required_calls_obey_their_schemas(client: Client) -> None:
    """At a high temperature every answer is one call of a named tool whose arguments obey its schema."""

    async def ask(seed: int, **fields: Any) -> list[Any]:
        sampling = text_pb2.Sampling(temperature=1.5, seed=seed)
        call = client.text_call("Hello", tools=[WEATHER, CLOCK], tool_choice=REQUIRED, sampling=sampling, **fields)
        return [event async for response in call for event in response.events]

    answers = await asyncio.gather(*(ask(seed) for seed in (0, 2, 4)))
    names = set()
    for events in answers:
        deltas = [event.tool_call for event in events if event.HasField("tool_call")]
        assert not any(event.HasField("text") for event in events)
        assert {delta.call_index for delta in deltas} == {0}
        assert [bool(delta.id) for delta in deltas] == [True] + [False] * (len(deltas) - 1)
        (name,) = {delta.name for delta in deltas if delta.name}
        names.add(name)
        held = json.loads("".join(delta.arguments_json for delta in deltas))
        if name == "weather":
            assert len(deltas) > 2, "arguments come in pieces"
            assert held["city"] in ("Seoul", "서울", "Paris")
            assert 1 <= held["days"] <= 9
        else:
            assert held == {}
        ends = [event.candidate_finished.reason for event in events if event.HasField("candidate_finished")]
        assert ends == [text_pb2.FINISH_REASON_TOOL_CALLS]
    assert names == {"weather", "clock"}


async def calls_of(client: Client, **fields: Any) -> tuple[list[str], str, list[int]]:
    """Return the names that an answer calls, its text and how its candidates ended."""
    names, text, ends = [], "", []
    async for response in client.text_call(**fields):
        for event in response.events:
            names += [event.tool_call.name] if event.tool_call.name else []
            text += event.text.text
            ends += [event.candidate_finished.reason] if event.HasField("candidate_finished") else []
    return names, text, ends


async def test_a_choice_is_kept(client: Client, running: Running) -> None:
    """A named tool is called, several only if asked for, none where none shall be; a bound ends by length."""
    named = text_pb2.ToolChoice(mode=text_pb2.ToolChoice.MODE_NAMED, name="clock")
    got = await calls_of(client, prompt="Hi", tools=[WEATHER, CLOCK], tool_choice=named)
    assert got == (["clock"], "", [text_pb2.FINISH_REASON_TOOL_CALLS])
    ends = running.engine(CHAT).model.ends
    # An answer that may not end calls again where it may.
    endless = text_pb2.Sampling(temperature=0, logit_bias=dict.fromkeys(ends, -100.0))
    for parallel, calls in ((True, 2), (False, 1)):
        many = text_pb2.ToolChoice(mode=text_pb2.ToolChoice.MODE_REQUIRED, parallel=parallel)
        got = await calls_of(client, prompt="Hi", tools=[CLOCK], tool_choice=many, sampling=endless, max_tokens=90)
        assert len(got[0]) == calls
    never = text_pb2.ToolChoice(mode=text_pb2.ToolChoice.MODE_NONE)
    plain = await calls_of(client, prompt="What is 2 + 3?")
    assert await calls_of(client, prompt="What is 2 + 3?", tools=[CLOCK], tool_choice=never) == plain
    short = await calls_of(client, prompt="Hi", tools=[WEATHER], tool_choice=REQUIRED, max_tokens=6)
    assert short[2] == [text_pb2.FINISH_REASON_LENGTH]


async def test_results_are_read(client: Client) -> None:
    """A call and its result are part of the next turn's prompt, and counted as CountTokens counts them."""
    said = chat("How is Seoul?").messages
    said.add(role=text_pb2.ROLE_ASSISTANT).parts.add().tool_call.CopyFrom(
        text_pb2.ToolCall(id="call_1", name="weather", arguments_json='{"city": "Seoul", "days": 1}')
    )
    before = await client.text(messages=said[:1], tools=[WEATHER])
    said.add(role=text_pb2.ROLE_TOOL).parts.add().tool_result.CopyFrom(
        text_pb2.ToolResult(tool_call_id="call_1", content="Rain all day.")
    )
    after = await client.text(messages=said, tools=[WEATHER])
    assert before.usage is not None
    assert after.usage is not None
    assert after.usage.prompt_tokens > before.usage.prompt_tokens + 20
    counting = text_service_pb2.CountTokensRequest(model=CHAT, messages=said, tools=[WEATHER])
    counted = await client.text_stub.CountTokens(counting, metadata=client.metadata)
    assert counted.prompt_tokens == after.usage.prompt_tokens
    # What a router reserves before it asks is enough.
    model, asked = shipped.catalogue().find(CHAT), chat("", messages=said, tools=[WEATHER])
    assert after.usage.prompt_tokens <= prompt_bound(Prompt.of(asked), asked, [model])


async def test_misplaced_calls_and_results_are_refused(client: Client) -> None:
    """A user's message holds no call, and a tool's message holds results only."""
    call = text_pb2.Part(tool_call=text_pb2.ToolCall(name="f"))
    for role, part in ((text_pb2.ROLE_USER, call), (text_pb2.ROLE_TOOL, text_pb2.Part(text="x"))):
        with pytest.raises(errors.InvalidField):
            await client.text(messages=[text_pb2.Message(role=role, parts=[part])])


@pytest.fixture
async def walked(client: Client, running: Running) -> Any:
    """Return what follows a grammar with the shipped model's tokens."""
    await client.text("Hello", max_tokens=1)
    engine = running.engine(CHAT)

    def walk(tools: Tools, text: str, schema: str | None = None) -> tuple[str, bool]:
        """Return how much of a text is allowed, and whether it may end there."""
        constraint: Constraint = engine.grammars().calling(tools, schema)
        allowed: list[int] = []
        for token in engine.model.tokenizer(text, add_special_tokens=False)["input_ids"]:
            if not constraint.allowed()[token]:
                break
            constraint.accept(token)
            allowed.append(token)
        return engine.model.decode(allowed), any(constraint.allowed()[end] for end in engine.model.ends)

    return walk


GOOD = written("weather", '{"city": "Paris", "days": 2}')


def test_an_answer_is_text_or_calls(walked: Any) -> None:
    """Where the model decides, any text is allowed, and a call only if it obeys; nothing follows the last call."""
    auto = Tools(TOOLS, parallel=True)
    for text in ("Plain text.", "x <tool_cal", f"I look.\n{GOOD}", GOOD, f"{GOOD}\n{written('clock', '{}')}"):
        assert walked(auto, text) == (text, True)
    assert walked(auto, GOOD[:-1]) == (GOOD[:-1], False)
    for text in (written("nobody", "{}"), written("weather", '{"city": "Rome"}'), f"{GOOD} And more.", f"{OPEN}{{}}"):
        assert walked(auto, text)[0] != text
    assert walked(Tools(TOOLS, parallel=False), f"{GOOD}\n{GOOD}") == (GOOD, True)
    assert walked(Tools(TOOLS, required=True, parallel=True), "Plain")[0] == ""
    schema = '{"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": false}'
    assert walked(auto, '{"a":1}', schema) == ('{"a":1}', True)
    assert walked(auto, GOOD, schema) == (GOOD, True)
    assert walked(auto, "Plain", schema)[0] == ""


def test_what_cannot_be_enforced_is_refused_where_it_is_strict(walked: Any) -> None:
    """A schema with a keyword that the library does not enforce is held to the rest of it, or refused if strict."""
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}, "required": ["a"]}
    assert walked(Tools((Tool("f", "", schema, False),)), written("f", '{"a": []}'))[1]
    with pytest.raises(errors.InvalidField, match="uniqueItems"):
        walked(Tools((Tool("f", "", schema, True),)), "")


SAID = (
    Turn("system", "Be brief."),
    Turn("user", "Weather?"),
    Turn("assistant", "", (Call("1", "weather", '{"city": "Paris"}'), Call("2", "clock", "{}"))),
    Turn("tool", "Rain", name="weather", call_id="1"),
    Turn("tool", "Noon", name="clock", call_id="2"),
    Turn("user", "And?"),
)
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
TAUGHT = """\
{%- for t in tools or [] %}{{ t.function.name }};{% endfor %}
{%- for m in messages %}[{{ m.role }}]{{ m.content }}
{%- for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }} {{ c.function.arguments.city }}</tool_call>
{%- endfor %}{% endfor %}"""


def test_a_template_that_knows_tools_tells_of_them() -> None:
    """Tools, calls with their arguments as objects, and results reach a template that has words for them."""
    template = Template(TAUGHT, bos="", eos="")
    assert template.takes_tools
    assert template.render(SAID, TOOLS, think=True, goes_on=False) == (
        "weather;clock;[system]Be brief.[user]Weather?[assistant]<tool_call>weather Paris</tool_call>"
        "<tool_call>clock </tool_call>[tool]Rain[tool]Noon[user]And?"
    )


def test_another_template_is_told_in_words() -> None:
    """Else the system's turn offers the tools, calls are written out, and results share the user's turn."""
    template = Template(PLAIN, bos="", eos="")
    assert not template.takes_tools
    text = template.render(SAID, TOOLS, think=True, goes_on=False)
    offered, rest = text.split("[user]", 1)
    assert offered.startswith("[system]Be brief.\n\n")
    assert json.dumps(PARAMETERS, ensure_ascii=False) in offered
    calls = written("weather", '{"city": "Paris"}'), written("clock", "{}")
    assert rest == (
        f"Weather?[assistant]{calls[0]}\n{calls[1]}"
        "[user]<tool_response>\nRain\n</tool_response>\n<tool_response>\nNoon\n</tool_response>\nAnd?"
    )
    alone = template.render(SAID[1:2], TOOLS, think=True, goes_on=False)
    assert alone.startswith("[system]You can call these tools")
    assert template.render(SAID[1:2], think=True, goes_on=False) == "[user]Weather?"
