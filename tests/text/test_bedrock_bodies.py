"""Bodies of Converse: what of a request is written in them, and what is named as ignored."""

from __future__ import annotations

import pytest

from moa.text.v1.text_pb2 import (
    Message,
    Part,
    ReasoningOptions,
    ReasoningPart,
    Role,
    Sampling,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Provider
from services.common import errors
from services.providers.aws.text.request import body_from, request_from
from services.providers.text.ignored import Ignored
from tests.emulators.bedrock import CLAUDE
from tests.text.harness import chat


def test_reasoning_in_pieces_is_given_back_as_one() -> None:
    """A client of Google's form keeps thoughts as they were streamed, their signature last; Claude takes one block."""
    parts = [
        Part(reasoning=ReasoningPart(text="h")),
        Part(reasoning=ReasoningPart(text="m")),
        Part(reasoning=ReasoningPart(signature=b"U0lH", signer="anthropic")),
        Part(reasoning=ReasoningPart(signature=b"opaque", signer="anthropic")),
        Part(tool_call=ToolCall(id="t1", name="look", arguments_json="{}")),
    ]
    request = chat("look")
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=parts))
    model = Model(id=CLAUDE, provider="bedrock")
    assert [
        block.get("reasoningContent") for block in body_from(request, model, Ignored())["messages"][1]["content"]
    ] == [
        {"reasoningText": {"text": "hm", "signature": "U0lH"}},
        {"redactedContent": "b3BhcXVl"},
        None,
    ]


@pytest.mark.parametrize("why", ["forced", "unsigned"])
def test_reasoning_that_is_left_out_is_named(why: str) -> None:
    """Where Claude cannot think, the effort that asked for it is among what was ignored."""
    request = chat("look", tools=[Tool(name="look")], reasoning=ReasoningOptions(effort=ReasoningOptions.EFFORT_LOW))
    if why == "forced":
        request.tool_choice.mode = ToolChoice.MODE_REQUIRED
    else:
        call = Part(tool_call=ToolCall(id="t1", name="look", arguments_json="{}"))
        result = Part(tool_result=ToolResult(tool_call_id="t1", content="seen"))
        request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[call]))
        request.messages.append(Message(role=Role.ROLE_TOOL, parts=[result]))
    ignored = Ignored()
    able = frozenset(("reasoning", "tools"))
    sent = body_from(request, Model(id=CLAUDE, provider="bedrock", capabilities=able), ignored)
    assert "additionalModelRequestFields" not in sent
    assert ignored.names == ["reasoning.effort"]


def test_a_model_name_is_one_segment_of_the_path() -> None:
    """Colons of a version and slashes of an ARN are escaped."""
    provider = Provider(id="p", adapter="bedrock", makes="text", base_url="https://x")
    model = Model(
        id="m", provider="p", upstream="arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0"
    )
    path = request_from(chat(), model, provider, Ignored()).url.raw_path
    assert path.startswith("/model/arn%3Aaws%3Abedrock")
    assert path.count("/") == 3


_THINKS = ReasoningOptions(budget_tokens=2048)


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (chat(sampling=Sampling(temperature=1.5)), ["temperature=1"]),
        (chat(sampling=Sampling(presence_penalty=1, seed=1)), ["seed", "presence_penalty"]),
        (chat(sampling=Sampling(presence_penalty=0, frequency_penalty=0)), []),
        (chat(tools=[Tool(name="x")], tool_choice=ToolChoice(parallel=False)), ["tool_choice.parallel"]),
        (chat(reasoning=_THINKS, sampling=Sampling(temperature=0.5, top_k=3)), ["temperature", "top_k"]),
        (chat(reasoning=_THINKS, sampling=Sampling(temperature=1, top_p=0.5)), ["top_p"]),
        (chat(reasoning=_THINKS, max_tokens=1000), ["reasoning.budget_tokens"]),
        (chat(reasoning=ReasoningOptions(budget_tokens=5)), ["reasoning.budget_tokens=1024"]),
    ],
)
def test_hints_that_cannot_be_followed_are_named(request_: GenerateTextRequest, names: list[str]) -> None:
    """Nothing is dropped in silence, and a strict request is refused instead."""
    model = Model(id="m", provider="p", upstream=CLAUDE, capabilities=frozenset({"reasoning"}), default_max_tokens=4096)
    ignored = Ignored()
    body_from(request_, model, ignored)
    assert ignored.names == names
    if names:
        with pytest.raises(errors.Unsupported) as refused:
            body_from(request_, model, Ignored(strict=True))
        assert refused.value.param == names[0].partition("=")[0]


def test_several_candidates_are_refused() -> None:
    """They are what an answer is made of."""
    model = Model(id="m", provider="p", upstream=CLAUDE)
    with pytest.raises(errors.Unsupported) as refused:
        body_from(chat(candidates=2), model, Ignored())
    assert refused.value.param == "candidates"


def test_marks_become_cache_points() -> None:
    """After the tool, the instructions and the part that are marked, and no more than Converse takes."""
    model = Model(id="m", provider="p", upstream=CLAUDE)
    point = {"cachePoint": {"type": "default"}}
    request = chat(tools=[Tool(name="x", cache=True)])
    request.messages[0].parts[0].cache = True
    request.messages.insert(0, Message(role=Role.ROLE_SYSTEM, parts=[Part(text="Be brief.", cache=True)]))
    request.messages[1].parts.extend(Part(text=str(number), cache=True) for number in range(3))
    body = body_from(request, model, Ignored())
    assert body["system"] == [{"text": "Be brief."}, point]
    assert body["messages"][0]["content"][:2] == [{"text": "hello"}, point]
    assert str(body).count("cachePoint") == 4
    ignored = Ignored()
    plain = body_from(request, Model(id="m", provider="p", upstream="meta.llama4"), ignored)
    assert "cachePoint" not in str(plain)
    assert ignored.names == ["cache_control"]


_XHIGH = ReasoningOptions(effort=ReasoningOptions.EFFORT_XHIGH)


@pytest.mark.parametrize(
    ("wanted", "most", "budget", "names"),
    [
        (_XHIGH, 64_000, 32_768, []),
        (_XHIGH, 32_768, 24_576, ["reasoning.effort=high"]),
        (_XHIGH, 4_096, 3_072, ["reasoning.effort=low"]),
        (ReasoningOptions(effort=ReasoningOptions.EFFORT_LOW), 1_100, 1_024, []),
        (ReasoningOptions(budget_tokens=1_999), 2_000, 1_500, ["reasoning.budget_tokens=1500"]),
        (ReasoningOptions(budget_tokens=1_400), 2_000, 1_400, []),
    ],
)
def test_a_budget_leaves_room_for_the_answer(
    wanted: ReasoningOptions, most: int, budget: int, names: list[str]
) -> None:
    """A quarter of max_tokens, which the reservation bounds; what was asked for beyond that is named."""
    model = Model(id="m", provider="p", upstream=CLAUDE, capabilities=frozenset({"reasoning"}))
    ignored = Ignored()
    body = body_from(chat(max_tokens=most, reasoning=wanted), model, ignored)
    assert body["additionalModelRequestFields"]["thinking"]["budget_tokens"] == budget
    assert ignored.names == names
