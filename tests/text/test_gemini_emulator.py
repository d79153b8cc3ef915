"""The emulator is proven by the official SDK."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from google import genai
from google.genai import errors, types

from tests.emulators.gemini import GeminiEmulator
from tests.emulators.script import Call, Script

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")


@pytest.fixture
async def upstream() -> AsyncIterator[GeminiEmulator]:
    async with GeminiEmulator() as emulator:
        yield emulator


def _client(upstream: GeminiEmulator, key: str = "AIza-good") -> genai.Client:
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=upstream.url, api_version="v1beta"))


async def test_the_sdk_gets_a_whole_answer(upstream: GeminiEmulator) -> None:
    """Text and usage parse into the SDK's types."""
    async with _client(upstream).aio as sdk:
        got = await sdk.models.generate_content(model="gemini-2.5-flash", contents="안녕")
    assert got.text == "Hello 안녕 🌍!"
    assert got.usage_metadata is not None
    assert got.usage_metadata.prompt_token_count == 7


async def test_the_sdk_gets_a_stream_with_a_call(upstream: GeminiEmulator) -> None:
    """Thoughts, text and a call with a schema of arguments come through."""
    upstream.scripts.append(Script(reasoning=("hm",), text=("a",), calls=(Call("", "look", ('{"x": 1}',)),)))
    tool = types.Tool(
        function_declarations=[types.FunctionDeclaration(name="look", parameters_json_schema={"type": "object"})]
    )
    config = types.GenerateContentConfig(
        tools=[tool],
        system_instruction="be brief",
        temperature=0.5,
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=512),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    parts: list[types.Part] = []
    async with _client(upstream).aio as sdk:
        stream = await sdk.models.generate_content_stream(model="gemini-2.5-flash", contents="look", config=config)
        async for chunk in stream:
            assert chunk.candidates
            assert chunk.candidates[0].content
            parts += chunk.candidates[0].content.parts or []
    assert parts[0].thought
    assert parts[2].function_call is not None
    assert parts[2].function_call.args == {"x": 1}


@pytest.mark.parametrize(("reason", "status"), [("upstream_rate_limited", 429), ("upstream_failed", 500)])
async def test_the_sdk_raises_its_own_errors(upstream: GeminiEmulator, reason: str, status: int) -> None:
    """Refusals are raised with Google's code."""
    upstream.scripts.append(Script(refuse=reason))
    async with _client(upstream).aio as sdk:
        with pytest.raises(errors.APIError) as failed:
            await sdk.models.generate_content(model="gemini-2.5-flash", contents="x")
    assert failed.value.code == status


async def test_a_wrong_key_is_refused(upstream: GeminiEmulator) -> None:
    """The SDK's own key is checked."""
    async with _client(upstream, "AIza-bad").aio as sdk:
        with pytest.raises(errors.ClientError, match="API_KEY_INVALID"):
            await sdk.models.generate_content(model="gemini-2.5-flash", contents="x")


async def test_the_sdk_makes_a_batch_and_reads_its_answers(upstream: GeminiEmulator) -> None:
    """Requests go inline with their keys, and each answer has its own; one that was cancelled has none."""
    asked = [types.InlinedRequest(contents="hi", metadata={"key": name}) for name in ("a", "b")]
    config = types.CreateBatchJobConfig(display_name="mine")
    async with _client(upstream).aio as sdk:
        made = [await sdk.batches.create(model="gemini-2.5-flash", src=list(asked), config=config) for _ in range(2)]
        assert made[0].state == types.JobState.JOB_STATE_PENDING
        await sdk.batches.cancel(name=str(made[1].name))
        ended = await sdk.batches.get(name=str(made[0].name))
        states = {job.name: job.state async for job in await sdk.batches.list()}
    assert states == {
        made[0].name: types.JobState.JOB_STATE_SUCCEEDED,
        made[1].name: types.JobState.JOB_STATE_CANCELLED,
    }
    assert ended.dest is not None
    answers = ended.dest.inlined_responses or []
    assert [(each.metadata, each.response and each.response.text) for each in answers] == [
        ({"key": name}, "Hello 안녕 🌍!") for name in ("a", "b")
    ]


HI = {"role": "user", "parts": [{"text": "hi"}]}
BAD: list[dict[str, Any]] = [
    {"surprise": 1},
    {"contents": []},
    {"contents": [{"role": "system", "parts": [{"text": "x"}]}]},
    {"contents": [{"role": "user", "parts": [{"text": "a", "inlineData": {"mimeType": "image/png", "data": "AA=="}}]}]},
    {"contents": [{"role": "user", "parts": [{"inlineData": {"mimeType": "image/gif", "data": "AA=="}}]}]},
    {"contents": [HI, {"role": "model", "parts": [{"text": "x"}]}]},
    {"contents": [{"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]}]},
    {"generationConfig": {"temperature": 3}},
    {"generationConfig": {"stopSequences": ["1", "2", "3", "4", "5", "6"]}},
    {"generationConfig": {"responseModalities": ["SMELL"]}},
    {"generationConfig": {"thinkingConfig": {"thinkingLevel": "HIGH"}}},
    {"generationConfig": {"maxTokens": 5}},
    {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
]


@pytest.mark.parametrize("body", BAD)
async def test_wrong_requests_are_refused(upstream: GeminiEmulator, body: dict[str, Any]) -> None:
    """Unknown fields, wrong enums, ranges and turns are 400 INVALID_ARGUMENT."""
    url = f"{upstream.base_url}/models/gemini-2.5-flash:generateContent"
    async with (
        aiohttp.ClientSession(headers={"x-goog-api-key": "AIza-good"}) as session,
        session.post(url, json={"contents": [HI], **body}) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["status"] == "INVALID_ARGUMENT"
