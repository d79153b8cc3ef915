"""Schemas, choices and tools in Google's dialect, by the official client through the real edge."""

from __future__ import annotations

import json

import pytest
import requests
from google.genai import errors, types

from moa.text.v1 import text_pb2
from tests.router.google_clients import SCHEMA, client_of
from tests.router.rig import KEY, Played, called, ended, said, text, thought

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:google")


def test_a_json_schema_and_thinking_off(url: str, played: Played) -> None:
    """`response_json_schema` comes through as it is; a budget of 0 is no thinking."""
    config = types.GenerateContentConfig(
        response_mime_type="application/json",
        response_json_schema=SCHEMA,
        thinking_config=types.ThinkingConfig(thinking_budget=0),
    )
    with client_of(url) as client:
        client.models.generate_content(model="smart", contents="hi", config=config)
    asked = played.texts[0]
    assert json.loads(asked.response_format.schema_json) == SCHEMA
    assert asked.reasoning.effort == text_pb2.ReasoningOptions.EFFORT_NONE


def test_an_enum_is_a_choice(url: str, played: Played) -> None:
    """`text/x.enum` asks for one of the schema's words, on `/v1alpha` as elsewhere; without words it is wrong."""
    schema = types.Schema(type=types.Type.STRING, enum=["Brass", "String"])
    config = types.GenerateContentConfig(response_mime_type="text/x.enum", response_schema=schema)
    played.script = [text(said("Brass")), ended()]
    with client_of(url, version="v1alpha") as client:
        response = client.models.generate_content(model="smart", contents="hi", config=config)
        assert response.text == "Brass"
        with pytest.raises(errors.ClientError, match="needs an enum of strings"):
            client.models.generate_content(model="smart", contents="hi", config={"response_mime_type": "text/x.enum"})
    asked = played.texts[0].response_format
    assert asked.kind == text_pb2.ResponseFormat.KIND_CHOICE
    assert list(asked.choices) == ["Brass", "String"]
    assert len(played.texts) == 1


def test_tools_and_their_signatures_round_trip(url: str, played: Played) -> None:
    """Parallel calls come whole with ids and signatures, and go back with the results that answer them."""
    declared = types.FunctionDeclaration(
        name="weather",
        description="the weather",
        parameters=types.Schema(type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}),
    )
    mode = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["weather"])
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])],
        tool_config=types.ToolConfig(function_calling_config=mode),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        thinking_config=types.ThinkingConfig(include_thoughts=True),
    )
    played.script = [
        text(thought("hm"), thought("m"), called(0, "weather", '{"ci', "c1", b"\xfb\xff1")),
        text(called(0, arguments='ty":"서울"}'), called(1, "weather", '{"city":"부산"}', "c2")),
        ended(text_pb2.FINISH_REASON_TOOL_CALLS),
    ]
    with client_of(url) as client:
        first = client.models.generate_content(model="smart", contents="날씨?", config=config)
        calls = first.function_calls
        assert calls
        assert [(c.id, c.name, c.args) for c in calls] == [
            ("c1", "weather", {"city": "서울"}),
            ("c2", "weather", {"city": "부산"}),
        ]
        assert first.candidates
        turn = first.candidates[0].content
        assert turn
        assert turn.parts
        assert (turn.parts[0].text, turn.parts[0].thought) == ("hmm", True)
        assert turn.parts[1].thought_signature == b"\xfb\xff1"
        results = [types.Part.from_function_response(name="weather", response={"result": n}) for n in ("맑음", "흐림")]
        history = [types.Content(role="user", parts=[types.Part(text="날씨?")]), turn]
        history.append(types.Content(role="user", parts=results))
        client.models.generate_content(model="smart", contents=history, config=config)
    asked = played.texts[1]
    assert asked.tools[0].name == "weather"
    assert json.loads(asked.tools[0].parameters_json)["properties"] == {"city": {"type": "string"}}
    assert (asked.tool_choice.mode, asked.tool_choice.name) == (text_pb2.ToolChoice.MODE_NAMED, "weather")
    answered = asked.messages[1].parts
    assert answered[0].reasoning.text == "hmm"
    assert answered[1].tool_call.signature == b"\xfb\xff1"
    assert asked.messages[2].role == text_pb2.ROLE_TOOL
    given = [(p.tool_result.tool_call_id, json.loads(p.tool_result.content)) for p in asked.messages[2].parts]
    assert given == [("c1", {"result": "맑음"}), ("c2", {"result": "흐림"})]


@pytest.mark.parametrize("stream", [False, True])
def test_interleaved_calls_are_kept_apart(url: str, played: Played, stream: bool) -> None:
    """Pieces of several calls may alternate; each call is given once, whole, with its own arguments and signature."""
    played.script = [
        text(called(0, "f", '{"a":', "c0", b"s0")),
        text(called(1, "g", '{"b"', "c1")),
        text(called(0, arguments='"\\ud83e')),
        text(called(1, arguments=":["), called(0, arguments='\\udd8a"}')),
        text(called(2, "f", "", "c2")),
        text(called(1, arguments="2]}")),
        ended(text_pb2.FINISH_REASON_TOOL_CALLS),
    ]
    with client_of(url) as client:
        if stream:
            answers = list(client.models.generate_content_stream(model="smart", contents="x"))
        else:
            answers = [client.models.generate_content(model="smart", contents="x")]
    contents = [c.content for answer in answers for c in answer.candidates or () if c.content]
    parts = [part for content in contents for part in content.parts or ()]
    calls = {call.id: (call.name, call.args, part.thought_signature) for part in parts if (call := part.function_call)}
    assert len(parts) == 3
    assert calls == {"c0": ("f", {"a": "🦊"}, b"s0"), "c1": ("g", {"b": [2]}, None), "c2": ("f", {}, None)}
    assert [c.finish_reason for c in answers[-1].candidates or ()] == [types.FinishReason.STOP]


def test_a_function_is_called_by_the_client_itself(url: str, played: Played) -> None:
    """The client's automatic function calling drives a whole turn."""

    def double(number: int) -> int:
        """Double a number."""
        return 2 * number

    played.script = [text(called(0, "double", '{"number": 21}', "c1")), ended(text_pb2.FINISH_REASON_TOOL_CALLS)]
    with client_of(url) as client:
        config = types.GenerateContentConfig(tools=[double])
        response = client.models.generate_content(model="smart", contents="double 21", config=config)
    assert response.text == "Hello 안녕"
    result = played.texts[1].messages[2].parts[0].tool_result
    assert (result.tool_call_id, json.loads(result.content)) == ("c1", {"result": 42})


def test_arguments_that_are_no_object_are_said_to_be_malformed(url: str, played: Played) -> None:
    """Google's form has no place for broken arguments; it has a finish reason, and a message that tells them."""
    played.script = [text(called(0, "f", '{"a":', "c1")), ended(text_pb2.FINISH_REASON_TOOL_CALLS)]
    with client_of(url) as client:
        response = client.models.generate_content(model="smart", contents="x")
    assert response.candidates
    assert response.candidates[0].finish_reason == types.FinishReason.MALFORMED_FUNCTION_CALL
    played.script = [text(called(0, "f", '{"a":', "c1")), ended(text_pb2.FINISH_REASON_TOOL_CALLS)]
    body = {"contents": [{"parts": [{"text": "x"}]}]}
    got = requests.post(
        f"{url}/v1/models/smart:generateContent", json=body, headers={"x-goog-api-key": KEY}, timeout=60
    )
    assert got.json()["candidates"][0]["finishMessage"] == 'Malformed function call: f({"a":)'
