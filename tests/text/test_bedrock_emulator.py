"""The emulator is proven by the official SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any

import aiohttp
import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from tests.emulators.aws import ACCESS_KEY, REGION, SECRET_KEY
from tests.emulators.bedrock import CLAUDE, BedrockEmulator
from tests.emulators.script import Call, Script

HI = [{"role": "user", "content": [{"text": "안녕"}]}]


@pytest.fixture
async def upstream() -> AsyncIterator[BedrockEmulator]:
    async with BedrockEmulator() as emulator:
        yield emulator


async def _with_sdk(upstream: BedrockEmulator, use: Callable[[Any], Any], secret: str = SECRET_KEY) -> Any:
    def work() -> Any:
        sdk = boto3.client(
            "bedrock-runtime",
            region_name=REGION,
            endpoint_url=upstream.url,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}),
        )
        try:
            return use(sdk)
        finally:
            sdk.close()

    return await asyncio.to_thread(work)


def _drained(sdk: Any) -> list[Any]:
    with closing(sdk.converse_stream(modelId=CLAUDE, messages=HI)["stream"]) as stream:
        return list(stream)


async def test_the_sdk_gets_a_whole_answer(upstream: BedrockEmulator) -> None:
    """A request that boto3 signs is accepted, and the answer parses."""
    got = await _with_sdk(upstream, lambda sdk: sdk.converse(modelId=CLAUDE, messages=HI))
    assert got["output"]["message"]["content"] == [{"text": "Hello 안녕 🌍!"}]
    assert got["usage"]["totalTokens"] == 12


async def test_the_sdk_gets_a_stream(upstream: BedrockEmulator) -> None:
    """Reasoning, text and a call come through boto3's own parser of event streams."""
    upstream.scripts.append(Script(reasoning=("hm",), text=("a", "b"), calls=(Call("t1", "look", ('{"x": ', "1}")),)))
    tools = {"tools": [{"toolSpec": {"name": "look", "inputSchema": {"json": {"type": "object"}}}}]}

    def ask(sdk: Any) -> list[dict[str, Any]]:
        return list(sdk.converse_stream(modelId=CLAUDE, messages=HI, toolConfig=tools)["stream"])

    events = await _with_sdk(upstream, ask)
    deltas = [e["contentBlockDelta"]["delta"] for e in events if "contentBlockDelta" in e]
    assert "".join(d["text"] for d in deltas if "text" in d) == "ab"
    assert "".join(d["toolUse"]["input"] for d in deltas if "toolUse" in d) == '{"x": 1}'
    assert {"messageStop": {"stopReason": "tool_use"}} in events


async def test_the_sdk_raises_its_own_errors(upstream: BedrockEmulator) -> None:
    """Refusals and exceptions inside a stream are raised by boto3's names."""
    upstream.scripts.append(Script(refuse="upstream_rate_limited"))
    with pytest.raises(ClientError) as refused:
        await _with_sdk(upstream, lambda sdk: sdk.converse(modelId=CLAUDE, messages=HI))
    assert refused.value.response["Error"]["Code"] == "ThrottlingException"
    upstream.scripts.append(Script(fail_at=1))
    with pytest.raises(EventStreamError, match="modelStreamErrorException"):
        await _with_sdk(upstream, _drained)


async def test_a_wrong_signature_is_refused(upstream: BedrockEmulator) -> None:
    """A request signed with another secret, or not at all, is not answered."""
    with pytest.raises(ClientError, match="InvalidSignatureException"):
        await _with_sdk(upstream, lambda sdk: sdk.converse(modelId=CLAUDE, messages=HI), secret="wrong")
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{upstream.url}/model/{CLAUDE}/converse", json={"messages": HI}) as response,
    ):
        assert response.status == 403


BAD: list[dict[str, Any]] = [
    {"messages": []},
    {"messages": [{"role": "assistant", "content": [{"text": "x"}]}]},
    {"messages": [*HI, *HI]},
    {"messages": [{"role": "user", "content": [{"text": " "}]}]},
    {"messages": [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": b"GIF89a"}}}]}]},
    {"messages": [{"role": "user", "content": [{"toolResult": {"toolUseId": "x", "content": [{"text": "y"}]}}]}]},
    {"additionalModelRequestFields": {"surprise": 1}},
    {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 100}}},
    {"modelId": "anthropic.claude-sonnet-4-5-20250929-v1:0"},
    {"modelId": "anthropic.unknown"},
]


@pytest.mark.parametrize("wrong", BAD)
async def test_wrong_requests_are_refused(upstream: BedrockEmulator, wrong: dict[str, Any]) -> None:
    """What the service model allows and the service does not is a ValidationException."""
    asked = {"modelId": CLAUDE, "messages": HI, **wrong}
    with pytest.raises(ClientError, match="ValidationException"):
        await _with_sdk(upstream, lambda sdk: sdk.converse(**asked))


@pytest.mark.parametrize(
    "body",
    [
        {"surprise": 1},
        {"inferenceConfig": {"temperature": 2}},
        {"inferenceConfig": {"maxTokens": "5"}},
        {"messages": [{"role": "robot", "content": [{"text": "x"}]}]},
        {"messages": [{"role": "user", "content": [{"text": "x", "image": {}}]}]},
        {"toolConfig": {"tools": []}},
        {"toolConfig": {"tools": [{"toolSpec": {"name": "has space", "inputSchema": {"json": {}}}}]}},
    ],
)
async def test_what_boto3_would_not_send_is_refused_too(upstream: BedrockEmulator, body: dict[str, Any]) -> None:
    """Shapes are checked by the service model: unknown members, ranges, enums, patterns, unions."""

    def send(sdk: Any) -> None:
        # Past boto3's own checks: its signer, our body.
        def replace(request: Any, **_: Any) -> None:
            request.data = json.dumps({"messages": HI, **body}).encode()

        sdk.meta.events.register("before-sign.bedrock-runtime.Converse", replace)
        sdk.converse(modelId=CLAUDE, messages=HI)

    with pytest.raises(ClientError, match="ValidationException"):
        await _with_sdk(upstream, send)
