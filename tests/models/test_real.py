"""The real weights that the catalogue takes out of packages. `make test-models` fetches them; without them it fails."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import math
import re
import struct
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.syntax import parsed
from moa.embedding.v1 import embedding_service_pb2, embedding_service_pb2_grpc
from moa.text.v1 import text_pb2
from services.common.rpc import client as rpc
from tests.inference.harness import TOKEN, Client, Running

pytestmark = pytest.mark.timeout(600)  # dozens of answers of a real model, on cores that are shared
CHAT, ENCODER = "smollm2-135m", "all-minilm-l6-v2"
REFERENCE = json.loads(Path(__file__).with_name("minilm_vectors.json").read_text())


@pytest.fixture(scope="module")
def real() -> Iterator[Running]:
    """Serve the shipped catalogue with its packages' weights."""
    server = Running(fetch="asked")
    now = server.process.catalogue.now
    try:
        for model in map(now.find, (CHAT, ENCODER)):
            assert model.load is not None
            while (standing := server.process.packages.want(model.load)).state == "loading":
                time.sleep(0.2)
            assert standing.state == "ready", f"{model.id} is not here: {standing.detail}"
        yield server
    finally:
        server.stop()


@pytest.fixture
async def asking(real: Running) -> AsyncIterator[Client]:
    one = Client(real.address)
    yield one
    await one.close()


async def test_it_answers_a_question(asking: Client) -> None:
    """A plain question has its answer."""
    out = await asking.text("Why is the sky blue?", model=CHAT, max_tokens=60)
    assert "scatter" in out.text


async def test_it_writes_python_that_compiles(asking: Client) -> None:
    """Asked for a small function, it writes one in a code block."""
    out = await asking.text("Write a Python function that adds two numbers.", model=CHAT, max_tokens=200)
    found = re.search(r"```python\n(.*?)```", out.text, re.DOTALL)
    assert found
    assert any(isinstance(node, ast.FunctionDef) for node in ast.walk(parsed(found[1])))


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["kind", "tall", "old"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


async def test_its_json_always_parses(asking: Client) -> None:
    """Forty answers at a high temperature are documents of the schema."""
    form = text_pb2.ResponseFormat(kind=text_pb2.ResponseFormat.KIND_JSON_SCHEMA, schema_json=json.dumps(SCHEMA))

    def ask(seed: int) -> Any:
        sampling = text_pb2.Sampling(temperature=1.5, seed=seed)
        return asking.text("Describe a person.", model=CHAT, sampling=sampling, response_format=form, max_tokens=200)

    for out in await asyncio.gather(*(ask(seed) for seed in range(40))):
        held = json.loads(out.text)
        assert set(held) == {"name", "age", "tags"}
        assert 0 <= held["age"] <= 120
        assert out.ends[0].reason == text_pb2.FINISH_REASON_STOP


TOOLS = [
    text_pb2.Tool(
        name="get_weather",
        description="Tell the weather of a city.",
        parameters_json=json.dumps(
            {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 30},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city", "unit"],
                "additionalProperties": False,
            }
        ),
    ),
    text_pb2.Tool(name="get_time", description="Tell the time."),
]


async def called(
    asking: Client, messages: list[text_pb2.Message], mode: Any, **sampling: Any
) -> tuple[str, str, list[Any]]:
    """Return the arguments and the text of an answer, and how it ended."""
    arguments = text = ""
    ends = []
    async for response in asking.text_call(
        messages=messages,
        model=CHAT,
        tools=TOOLS,
        tool_choice=text_pb2.ToolChoice(mode=mode),
        sampling=text_pb2.Sampling(**sampling),
        max_tokens=120,
    ):
        for event in response.events:
            arguments += event.tool_call.arguments_json
            text += event.text.text
            ends += [event.candidate_finished.reason] if event.HasField("candidate_finished") else []
    return arguments, text, ends


async def test_its_calls_always_parse(asking: Client) -> None:
    """Twenty required calls at a high temperature have arguments of the tool's schema; it answers from a result."""
    said = [
        text_pb2.Message(role=text_pb2.ROLE_USER, parts=[text_pb2.Part(text="What is the weather in Paris, celsius?")])
    ]
    modes = text_pb2.ToolChoice
    cities = set()
    answers = await asyncio.gather(
        *(called(asking, said, modes.MODE_REQUIRED, temperature=1, seed=seed) for seed in range(20))
    )
    for arguments, text, ends in answers:
        held = json.loads(arguments)
        assert held == {} or set(held) == {"city", "unit"}
        assert (text, ends) == ("", [text_pb2.FINISH_REASON_TOOL_CALLS])
        cities.add(held.get("city"))
    assert "Paris" in cities
    call = text_pb2.ToolCall(id="c1", name="get_weather", arguments_json='{"city": "Paris", "unit": "celsius"}')
    result = text_pb2.ToolResult(tool_call_id="c1", content='{"sky": "rain", "celsius": 11}')
    said += [
        text_pb2.Message(role=text_pb2.ROLE_ASSISTANT, parts=[text_pb2.Part(tool_call=call)]),
        text_pb2.Message(role=text_pb2.ROLE_TOOL, parts=[text_pb2.Part(tool_result=result)]),
    ]
    _, text, _ = await called(asking, said, modes.MODE_AUTO, temperature=0)
    assert "rain" in text


async def test_an_answer_has_the_same_bits_in_any_crowd(asking: Client) -> None:
    """A seeded answer and its log probabilities are the same alone and among others of all lengths."""

    def ask(seed: int) -> Any:
        sampling = text_pb2.Sampling(temperature=1.0, seed=seed, logprobs=True)
        return asking.text("Tell me of the sea. " * (1 + 7 * seed), model=CHAT, sampling=sampling, max_tokens=16)

    alone = await ask(2)
    crowd = await asyncio.gather(*(ask(seed) for seed in range(8)))
    assert [(p.token, p.logprob) for p in crowd[2].logprobs] == [(p.token, p.logprob) for p in alone.logprobs]


async def test_a_second_turn_reads_a_quarter_at_most(asking: Client) -> None:
    """Of a conversation that begins with a thousand tokens, the second turn reads no more than a quarter of those."""
    system = " ".join(f"Fact {number}: the fox number {number} jumps over the dog." for number in range(78))

    def said(*texts: str) -> list[text_pb2.Message]:
        roles = [text_pb2.ROLE_SYSTEM, text_pb2.ROLE_USER, text_pb2.ROLE_ASSISTANT, text_pb2.ROLE_USER]
        return [
            text_pb2.Message(role=role, parts=[text_pb2.Part(text=text)])
            for role, text in zip(roles, texts, strict=False)
        ]

    first = await asking.text(messages=said(system, "What does the fox do?"), model=CHAT, max_tokens=100)
    second = await asking.text(
        messages=said(system, "What does the fox do?", first.text, "And the dog?"), model=CHAT, max_tokens=4
    )
    assert first.usage is not None
    assert second.usage is not None
    assert first.usage.prompt_tokens >= 1000
    assert second.usage.prompt_tokens - second.usage.cached_tokens <= first.usage.prompt_tokens / 4


async def test_vectors_are_those_of_sentence_transformers(real: Running) -> None:
    """Each vector lies on the one that sentence-transformers computes, to a cosine of 0.9999."""
    channel = rpc.channel(real.address)
    stub = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)
    request = embedding_service_pb2.EmbedTextsRequest(model=ENCODER, texts=REFERENCE["texts"], truncate=True)
    out = await stub.EmbedTexts(request, metadata=rpc.metadata(TOKEN, "test"))
    assert len(out.embeddings) == len(REFERENCE["texts"])
    for text, found, packed in zip(
        REFERENCE["texts"], out.embeddings, REFERENCE["vectors_float32_base64"], strict=True
    ):
        wanted = struct.unpack("<384f", base64.b64decode(packed))
        product = sum(a * b for a, b in zip(found.values, wanted, strict=True))
        assert product / (math.hypot(*found.values) * math.hypot(*wanted)) >= 0.9999, text[:40]
        assert math.isclose(math.hypot(*found.values), 1, rel_tol=1e-5)
    await channel.close()
