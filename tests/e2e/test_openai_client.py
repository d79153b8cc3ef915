"""The official OpenAI client against the gateway."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any

import openai
import pytest
import requests
from PIL import Image

from tests.e2e.conftest import Gateway

MESSAGES: list[Any] = [{"role": "user", "content": "What is 2 + 3?"}]


@pytest.fixture
def client(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.url + "/v1", api_key=gateway.key, max_retries=0)


def test_a_completion(client: openai.OpenAI) -> None:
    """The sync client reads an answer, its usage and its finish reason."""
    answer = client.chat.completions.create(model="moa-tiny-chat", messages=MESSAGES)
    assert "5" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "moa-tiny-chat"
    assert answer.usage is not None
    assert answer.usage.total_tokens > 4
    client.close()


async def test_a_stream_with_usage(gateway: Gateway) -> None:
    """The async client reads chunks as they come, the usage last."""
    async with openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key=gateway.key) as client:
        stream = await client.chat.completions.create(
            model="moa-tiny-chat",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "5" in text
    assert len(chunks) > 3
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 1


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Seoul", "Paris"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def test_a_local_model_calls_a_tool(client: openai.OpenAI) -> None:
    """A required call comes whole and in a stream's deltas, and its result goes back."""
    said: list[Any] = [{"role": "user", "content": "How is the weather?"}]
    asked: Any = {"model": "moa-tiny-chat", "tools": [TOOL], "seed": 3}
    whole = client.chat.completions.create(messages=said, tool_choice="required", **asked).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.content is None
    (call,) = whole.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Seoul", "Paris")
    with client.chat.completions.stream(messages=said, tool_choice="required", **asked) as stream:
        kinds = {event.type for event in stream}
        streamed = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.delta" in kinds
    assert streamed.message.tool_calls
    assert streamed.message.tool_calls[0].function == streamed.message.tool_calls[0].function.model_copy(
        update={"name": "weather", "arguments": call.function.arguments}
    )
    said += [whole.message, {"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
    answered = client.chat.completions.create(messages=said, max_tokens=8, **asked)
    assert answered.usage is not None
    assert answered.usage.prompt_tokens > 200
    client.close()


def test_models(client: openai.OpenAI) -> None:
    """Models are listed and retrieved."""
    assert {m.id for m in client.models.list()} >= {"moa-tiny-chat", "moa-tiny-image"}
    assert client.models.retrieve("moa-tiny-chat").owned_by == "local-text"
    client.close()


def test_a_bound_on_tokens_ends_with_length(client: openai.OpenAI) -> None:
    """`max_tokens` is kept exactly."""
    answer = client.chat.completions.create(model="moa-tiny-chat", messages=MESSAGES, max_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2
    client.close()


def test_errors_raise_the_clients_own_classes(gateway: Gateway) -> None:
    """401, 404 and 400 raise what the client's users catch."""
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key="sk-wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            stranger.models.list()
        assert refused.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key=gateway.key, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(model="gpt-99", messages=MESSAGES)
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(model="moa-tiny-chat", messages=MESSAGES, temperature=9)
        assert bad.value.param == "temperature"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-99")


def test_azures_client_works_too(gateway: Gateway) -> None:
    """It names the model in the path and sends its key as `api-key`: chats, streams, pictures; a caller of its own may
    leave the model out of the body."""
    with openai.AzureOpenAI(azure_endpoint=gateway.url, api_key=gateway.key, api_version="2024-10-21") as client:
        answer = client.chat.completions.create(model="moa-tiny-chat", messages=MESSAGES)
        assert "5" in (answer.choices[0].message.content or "")
        chunks = client.chat.completions.create(model="moa-tiny-chat", messages=MESSAGES, stream=True)
        assert "5" in "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        drawn = client.images.generate(model="moa-tiny-image", prompt="a red circle", response_format="b64_json")
        assert drawn.data
        assert drawn.data[0].b64_json
    for path, body in (
        ("/openai/deployments/moa-tiny-chat/chat/completions?api-version=2024-10-21", {"messages": MESSAGES}),
        ("/openai/v1/chat/completions", {"messages": MESSAGES, "model": "moa-tiny-chat"}),
    ):
        told = requests.post(gateway.url + path, json=body, headers={"api-key": gateway.key}, timeout=60)
        assert told.json()["model"] == "moa-tiny-chat", told.text
    other = {"api-key": gateway.key, "x-api-key": "moa-other"}
    refused = requests.post(gateway.url + path, json=body, headers=other, timeout=60)
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        401,
        "the request carries two different API keys; send one",
    )


def test_a_local_model_has_a_picture_made(client: openai.OpenAI, gateway: Gateway) -> None:
    """By the local image model, partial pictures before it; charged as one image beside the chat's tokens."""
    tool: Any = {"type": "image_generation", "model": "moa-tiny-image", "size": "64x64", "partial_images": 1}
    made_before = gateway.metric("router", "moa_images_total")
    events = list(
        client.responses.create(
            model="moa-tiny-chat",
            input="Draw a red circle.",
            tools=[tool],
            tool_choice={"type": "image_generation"},
            max_tool_calls=1,
            max_output_tokens=90,
            stream=True,
        )
    )
    kinds = [event.type for event in events]
    assert "response.image_generation_call.partial_image" in kinds
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    item = next(each for each in last.response.output if each.type == "image_generation_call")
    with Image.open(BytesIO(base64.b64decode(item.result or ""))) as picture:
        assert picture.size == (64, 64)
    assert last.response.usage is not None
    assert last.response.usage.output_tokens > 0
    made = gateway.metric("router", "moa_images_total") - made_before
    assert made == 1
    client.close()


def test_a_local_model_calls_a_tool_in_responses(client: openai.OpenAI) -> None:
    """Whole and streamed, and its result goes back with the items as they came."""
    tool: Any = {"type": "function", "strict": False, **TOOL["function"]}
    given: list[Any] = [{"role": "user", "content": "How is the weather?"}]
    asked: Any = {"model": "moa-tiny-chat", "tools": [tool]}
    whole = client.responses.create(input=given, tool_choice="required", **asked)
    (call,) = [item for item in whole.output if item.type == "function_call"]
    assert json.loads(call.arguments)["city"] in ("Seoul", "Paris")
    with client.responses.stream(input=given, tool_choice="required", **asked) as stream:
        kinds = {event.type for event in stream}
        streamed = stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    assert [item.arguments for item in streamed.output if item.type == "function_call"] == [call.arguments]
    items: list[Any] = [item.model_dump(exclude_none=True) for item in whole.output]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
    answered = client.responses.create(input=[*given, *items, result], max_output_tokens=16, **asked)
    assert answered.status in ("completed", "incomplete")
    assert answered.usage is not None
    assert answered.usage.input_tokens > 200
    client.close()


def test_a_local_model_calls_a_tool_in_messages(gateway: Gateway) -> None:
    """As above, in Anthropic's words, three turns long: each call that must be made is a block of its own, of the tool
    that is chosen, and in the end it speaks."""
    function = TOOL["function"]
    weather = {"name": function["name"], "input_schema": function["parameters"]}
    now = {"name": "now", "input_schema": {"type": "object", "properties": {}, "additionalProperties": False}}

    def asked(messages: list[Any], **more: Any) -> Any:
        body = {"model": "moa-tiny-chat", "max_tokens": 100, "tools": [weather, now], "messages": messages, **more}
        return gateway.post("/v1/messages", body).json()

    messages: list[Any] = [{"role": "user", "content": "How is the weather?"}]
    for turn, chosen in enumerate((weather, now, weather)):
        called = asked(messages, tool_choice={"type": "tool", "name": chosen["name"]})
        assert called["stop_reason"] == "tool_use", called
        (block,) = [each for each in called["content"] if each["type"] == "tool_use"]
        assert block["name"] == chosen["name"]
        assert block["input"] == {} if chosen is now else block["input"]["city"] in ("Seoul", "Paris")
        result = {"type": "tool_result", "tool_use_id": block["id"], "content": f"It is {turn}."}
        messages += [{"role": "assistant", "content": called["content"]}, {"role": "user", "content": [result]}]
    answered = asked(messages, max_tokens=16, tool_choice={"type": "none"})
    assert answered["type"] == "message", answered
    assert [each["type"] for each in answered["content"]] == ["text"]
    usage = answered["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] > 100
