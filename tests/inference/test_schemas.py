"""Answers of the model that ships that are held to a schema, and what schemas that are made to explode do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from typing import Any

import pytest

from inference.text.constraint import Constraint
from moa.text.v1 import text_pb2
from services.common import errors
from tests.inference.harness import Client, InBand, Running, TextOut

STORY = "Tell me a story about a fox."
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Seoul", "서울", "Paris"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["city", "count", "tags"],
    "additionalProperties": False,
}


def form(schema: object) -> text_pb2.ResponseFormat:
    kind = text_pb2.ResponseFormat.KIND_JSON_SCHEMA
    return text_pb2.ResponseFormat(kind=kind, schema_json=schema if isinstance(schema, str) else json.dumps(schema))


async def test_an_answer_is_held_to_its_schema(more: Running) -> None:
    """Whatever is asked at whatever temperature, the answer is a document of the schema."""
    client = Client(more.address)

    async def ask(seed: int) -> TextOut:
        sampling = text_pb2.Sampling(temperature=1.5, seed=seed)
        return await client.text("Hello", model="strict", sampling=sampling, response_format=form(SCHEMA))

    for out in await asyncio.gather(*(ask(seed) for seed in range(6))):
        held = json.loads(out.text)
        assert set(held) == {"city", "count", "tags"}
        assert held["city"] in ("Seoul", "서울", "Paris")
        assert 0 <= held["count"] <= 99
        assert out.ends[0].reason == text_pb2.FINISH_REASON_STOP
    await client.close()


def nested(levels: int) -> str:
    return '{"type": "array", "items": ' * levels + "{}" + "}" * levels


REFUSED = {
    "not JSON": "{",
    "no schema": '{"type": 3}',
    "another's": '{"$ref": "https://example.com/x"}',
    "itself": '{"$ref": "#"}',
    "nested 2,000 times": nested(2000),
    "many ways": json.dumps(
        {"allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "integer"}}} for j in range(4)]} for i in range(12)]}
    ),
    "long": json.dumps({"const": "x" * 40_000}),
    "wide": json.dumps({"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(5000)}}),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_schema_that_is_none_is_refused(more: Running, case: str) -> None:
    """A schema that does not parse, cannot be enforced, has no document or is too large is the caller's bad field."""
    schema = REFUSED[case]
    client = Client(more.address)
    with pytest.raises(errors.InvalidField) as caught:
        await client.text("Hello", model="strict", response_format=form(schema))
    assert caught.value.param == "response_format"
    await client.close()


HOSTILE = {
    "without end": '{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}',
    "nested 50 times": nested(50),
    "a pattern that backtracks": json.dumps({"type": "string", "pattern": "^(a+)+$"}),
    "a pattern with many states": json.dumps({"type": "string", "pattern": "(a|b)*a(a|b){18}"}),
    "repeated": json.dumps({"type": "string", "pattern": "[a-z]{1,100000}"}),
    "as long as it likes": json.dumps({"type": "string", "maxLength": 10**9}),
    "a million things": json.dumps({"type": "array", "items": {"type": "integer"}, "minItems": 10**6}),
    "doubling": json.dumps(
        {
            "$ref": "#/$defs/d0",
            "$defs": {
                f"d{i}": {"type": "object", "properties": {p: {"$ref": f"#/$defs/d{i + 1}"} for p in "xy"}}
                for i in range(30)
            }
            | {"d30": {"type": "integer"}},
        }
    ),
    "wide": json.dumps({"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(600)}}),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_hostile_schema_holds_nobody_up(more: Running, case: str) -> None:
    """A schema made to explode is answered or refused, and who is served beside it gets the same answer as alone."""
    client = Client(more.address)
    alone = await client.text(STORY, model="strict", max_tokens=24)

    async def hostile() -> None:
        sampling = text_pb2.Sampling(temperature=1, seed=1)
        with contextlib.suppress(errors.InvalidField, InBand):
            await client.text(
                "Hello", model="strict", max_tokens=24, sampling=sampling, response_format=form(HOSTILE[case])
            )

    async with asyncio.timeout(90):
        helper, _ = await asyncio.gather(client.text(STORY, model="strict", max_tokens=24), hostile())
    assert helper.text == alone.text
    await client.close()


async def test_a_schema_that_becomes_too_hard_fails_alone(more: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """When following a schema fails midway, that request ends with its error, and nobody else's does."""
    client = Client(more.address)
    await client.text("Hello", model="strict", max_tokens=1)  # now it is loaded
    engine = more.engine("strict")
    steps = itertools.count()
    allowed = Constraint.allowed

    def failing(constraint: Constraint) -> Any:
        if next(steps) > 6:
            raise errors.InvalidField("too large to follow", param="response_format")
        return allowed(constraint)

    monkeypatch.setattr(Constraint, "allowed", failing)
    helper, outcome = await asyncio.gather(
        client.text(STORY, model="strict", max_tokens=24),
        client.text("Hello", model="strict", candidates=2, response_format=form(SCHEMA)),
        return_exceptions=True,
    )
    assert isinstance(outcome, InBand | errors.InvalidField)
    assert isinstance(helper, TextOut)
    assert helper.text
    assert await asyncio.to_thread(engine.wait_idle, 60)
    await client.close()


@pytest.mark.parametrize(
    ("model", "fields", "param", "told"),
    [
        ("thinking", {"response_format": None}, "response_format.kind", "json_schema (it can do: plain requests only)"),
        ("thinking", {"tools": [text_pb2.Tool(name="f")]}, "tools", "tools (it can do: plain requests only)"),
        (
            "strict",
            {"sampling": text_pb2.Sampling(logprobs=True)},
            "logprobs",
            "logprobs (it can do: candidates, json, json_schema, seed)",
        ),
        ("thinking", {"candidates": 2}, "candidates", "candidates (it can do: plain requests only)"),
    ],
)
async def test_what_the_catalogue_does_not_offer_is_refused_with_what_it_does(
    more: Running, model: str, fields: dict[str, Any], param: str, told: str
) -> None:
    """A refusal names the field, what the model does not support, and what it can do."""
    if "response_format" in fields:
        fields = {"response_format": form(SCHEMA)}
    client = Client(more.address)
    with pytest.raises(errors.Unsupported) as caught:
        await client.text("Hello", model=model, **fields)
    assert caught.value.param == param
    assert caught.value.message == f"model '{model}' does not support {told}"
    await client.close()


async def test_the_shipped_model_is_held_to_json(client: Client) -> None:
    """As the catalogue says, its answer is a document of the schema."""
    out = await client.text("Hello", response_format=form(SCHEMA))
    assert set(json.loads(out.text)) == {"city", "count", "tags"}


async def test_an_object_comes_from_a_model_without_the_capability_too(more: Running) -> None:
    """JSON is the grammar's work, not the model's: what ends well is an object, also after reasoning."""
    client = Client(more.address)
    form = text_pb2.ResponseFormat(kind=text_pb2.ResponseFormat.KIND_JSON_OBJECT)
    done = 0
    for seed in range(8):
        sampling = text_pb2.Sampling(temperature=1.5, seed=seed)
        out = await client.text("Hello", model="thinking", max_tokens=48, sampling=sampling, response_format=form)
        if out.ends[0].reason == text_pb2.FINISH_REASON_STOP:
            assert isinstance(json.loads(out.text), dict)
            done += 1
        else:
            assert out.ends[0].reason == text_pb2.FINISH_REASON_LENGTH
            assert not out.text or out.text.startswith("{")
    assert done, "no answer ended, so nothing was held to anything"
    await client.close()


async def test_an_answer_is_one_of_the_words(more: Running) -> None:
    """Whatever is asked at whatever temperature; too many are refused."""
    client = Client(more.address)
    words = ["Brass", "현악기", 'with "quotes"\n']
    kind = text_pb2.ResponseFormat.KIND_CHOICE
    chosen = text_pb2.ResponseFormat(kind=kind, choices=words)
    for seed in range(3):
        sampling = text_pb2.Sampling(temperature=1.5, seed=seed)
        out = await client.text("Hello", model="strict", sampling=sampling, response_format=chosen)
        assert out.text in words
    many = text_pb2.ResponseFormat(kind=kind, choices=[f"{'x' * 100}{number}" for number in range(400)])
    with pytest.raises(errors.InvalidField) as caught:
        await client.text("Hello", model="strict", response_format=many)
    assert caught.value.param == "response_format"
    await client.close()
