"""The emulator is proven by the official SDK."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Call, Script


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIEmulator]:
    async with OpenAIEmulator() as emulator:
        yield emulator


@pytest.fixture
async def sdk(upstream: OpenAIEmulator) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=upstream.base_url, api_key="sk-good", max_retries=0) as client:
        yield client


async def test_the_sdk_gets_a_whole_answer(sdk: AsyncOpenAI) -> None:
    """Text, finish reason and usage parse into the SDK's types."""
    got = await sdk.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
    assert got.choices[0].message.content == "Hello 안녕 🌍!"
    assert got.choices[0].finish_reason == "stop"
    assert got.usage is not None
    assert got.usage.total_tokens == 12


async def test_the_sdk_counts(sdk: AsyncOpenAI, upstream: OpenAIEmulator) -> None:
    """A prompt is counted, and a wrong one refused."""
    got = await sdk.responses.input_tokens.count(
        model="gpt-4o-mini", input=[{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]
    )
    assert got.input_tokens == 31
    wrong: Any = [{"role": "nobody", "content": "hi"}]
    with pytest.raises(openai.BadRequestError):
        await sdk.responses.input_tokens.count(model="gpt-4o-mini", input=wrong)


async def test_the_sdk_gets_a_stream(sdk: AsyncOpenAI, upstream: OpenAIEmulator) -> None:
    """The SDK's own accumulator puts text and tool calls together."""
    upstream.scripts.append(Script(text=("a", "b"), calls=(Call("call_1", "look", ('{"x"', ": 1}")),)))
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {}}}
    async with sdk.chat.completions.stream(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}], tools=[tool]
    ) as stream:
        final = await stream.get_final_completion()
    message = final.choices[0].message
    assert message.content == "ab"
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == '{"x": 1}'


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("upstream_auth", openai.AuthenticationError),
        ("model_not_found", openai.NotFoundError),
        ("context_too_long", openai.BadRequestError),
        ("upstream_rate_limited", openai.RateLimitError),
        ("upstream_failed", openai.InternalServerError),
    ],
)
async def test_the_sdk_raises_its_own_errors(
    sdk: AsyncOpenAI, upstream: OpenAIEmulator, reason: str, error: type[Exception]
) -> None:
    """Refusals are raised as the SDK's classes."""
    upstream.scripts.append(Script(refuse=reason))
    with pytest.raises(error):
        await sdk.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])


USER = {"role": "user", "content": "hi"}
BAD: list[tuple[str, dict[str, Any]]] = [
    ("surprise", {"surprise": 1}),
    ("temperature", {"temperature": 3}),
    ("max_tokens", {"max_tokens": "many"}),
    ("stop", {"stop": ["a", "b", "c", "d", "e"]}),
    ("stream_options", {"stream_options": {"include_usage": True}}),
    ("tool_choice", {"tool_choice": "auto"}),
    ("top_logprobs", {"top_logprobs": 2}),
    ("messages", {"messages": []}),
    ("messages.[0].role", {"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}),
    ("messages[0].content[0].image_url.url", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),  # noqa: E501
    ("reasoning_effort", {"reasoning_effort": "low"}),
    ("max_tokens", {"model": "o4-mini", "max_tokens": 5}),
    ("messages", {"response_format": {"type": "json_object"}}),
    ("response_format.type", {"response_format": {"type": "xml"}}),
]  # fmt: skip


@pytest.mark.parametrize(("param", "body"), BAD)
async def test_wrong_requests_are_refused(upstream: OpenAIEmulator, param: str, body: dict[str, Any]) -> None:
    """Unknown fields, wrong types, ranges and combinations are 400 with the field's name."""
    whole = {"model": "gpt-4o-mini", "messages": [USER], **body}
    async with (
        aiohttp.ClientSession(headers={"Authorization": "Bearer sk-good"}) as session,
        session.post(f"{upstream.base_url}/chat/completions", json=whole) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["param"] == param
    assert upstream.seen == []


async def test_a_wrong_key_is_refused(upstream: OpenAIEmulator) -> None:
    """Without a known key nothing is answered."""
    async with AsyncOpenAI(base_url=upstream.base_url, api_key="sk-bad", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
