"""What is Azure's own, and the emulator proven by the official SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncAzureOpenAI

from moa.text.v1.text_pb2 import ReasoningOptions
from services.common import errors
from tests import shipped
from tests.emulators.azure import CLIENT_ID, CLIENT_SECRET, IDENTITY_HEADER, TENANT, AzureEmulator
from tests.emulators.script import Call, Script
from tests.text.harness import Row, chat, text_of, text_service

APPLICATION = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT_ID, "AZURE_CLIENT_SECRET": CLIENT_SECRET}
MODELS: list[Row] = [{"id": "m", "provider": "p", "upstream": "chat-deployment"}]


@pytest.fixture
async def upstream() -> AsyncIterator[AzureEmulator]:
    async with AzureEmulator() as emulator:
        yield emulator


def _entra(upstream: AzureEmulator) -> Row:
    """Return the shipped row of Azure, at an emulator's address."""
    rows = shipped.rows()["providers"]
    (row,) = [row for row in rows if row["id"] == "azure-openai-text"]
    return {**row, "id": "p", "base_url": upstream.url, "options": {"login_url": upstream.url}}


async def test_the_sdk_gets_an_answer_and_its_own_errors(upstream: AzureEmulator) -> None:
    """The SDK's Azure client is answered; a filtered prompt and a wrong deployment are raised as its classes."""
    async with AsyncAzureOpenAI(
        azure_endpoint=upstream.url, api_key="azure-good", api_version="2024-10-21", max_retries=0
    ) as sdk:
        messages: list[Any] = [{"role": "user", "content": "hi"}]
        got = await sdk.chat.completions.create(model="chat-deployment", messages=messages)
        assert got.choices[0].message.content == "Hello 안녕 🌍!"
        upstream.scripts.append(Script(refuse="content_policy"))
        with pytest.raises(openai.BadRequestError):
            await sdk.chat.completions.create(model="chat-deployment", messages=messages)
        with pytest.raises(openai.NotFoundError):
            await sdk.chat.completions.create(model="no-deployment", messages=messages)


async def test_one_token_serves_many(upstream: AzureEmulator, tmp_path: Path) -> None:
    """An application's token is fetched once for requests at the same time, and kept."""
    async with text_service(tmp_path, [_entra(upstream)], MODELS, APPLICATION) as service:
        await asyncio.gather(*(service.ask(chat()) for _ in range(8)))
        assert text_of(await service.ask(chat()))
    assert upstream.tokens_given == 1


async def test_a_revoked_token_is_replaced(upstream: AzureEmulator, tmp_path: Path) -> None:
    """A token that is refused is forgotten: the next request brings a new one."""
    async with text_service(tmp_path, [_entra(upstream)], MODELS, APPLICATION) as service:
        await service.ask(chat())
        upstream.tokens.clear()
        with pytest.raises(errors.UpstreamAuth):
            await service.ask(chat())
        assert text_of(await service.ask(chat()))
    assert upstream.tokens_given == 2


async def test_a_wrong_application_is_an_upstream_auth_error(upstream: AzureEmulator, tmp_path: Path) -> None:
    """A refused secret is the gateway's failure, told without it."""
    environment = {**APPLICATION, "AZURE_CLIENT_SECRET": "wrong-secret"}
    async with text_service(tmp_path, [_entra(upstream)], MODELS, environment) as service:
        with pytest.raises(errors.UpstreamAuth) as refused:
            await service.ask(chat())
    assert "wrong-secret" not in refused.value.message


@pytest.mark.parametrize("identity", ["system", CLIENT_ID])
async def test_a_virtual_machines_identity_gets_tokens(upstream: AzureEmulator, tmp_path: Path, identity: str) -> None:
    """The metadata service gives the token of the machine's own identity, or of one that is named; kept while good."""
    environment = {"MOA_AZURE_MANAGED_IDENTITY": identity, "AZURE_POD_IDENTITY_AUTHORITY_HOST": upstream.url}
    async with text_service(tmp_path, [_entra(upstream)], MODELS, environment) as service:
        for _ in range(2):
            assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"
    assert upstream.tokens_given == 1


async def test_an_app_services_identity_gets_tokens(upstream: AzureEmulator, tmp_path: Path) -> None:
    """App Service's endpoint tells only when a token ends; it is kept until then."""
    environment = {"IDENTITY_ENDPOINT": f"{upstream.url}/msi/token", "IDENTITY_HEADER": IDENTITY_HEADER}
    async with text_service(tmp_path, [_entra(upstream)], MODELS, environment) as service:
        for _ in range(2):
            assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"
    assert upstream.tokens_given == 1


async def test_a_workload_identity_proves_itself_anew_each_time(upstream: AzureEmulator, tmp_path: Path) -> None:
    """The federated token is read from its file for each fetch: what Kubernetes renews is used."""
    file = tmp_path / "federated"
    file.write_text(upstream.federated)
    environment = {
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": CLIENT_ID,
        "AZURE_FEDERATED_TOKEN_FILE": str(file),
    }
    upstream.token_life_s = 0
    async with text_service(tmp_path, [_entra(upstream)], MODELS, environment) as service:
        assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"
        upstream.federated = "the-second-federated-token"
        file.write_text(upstream.federated)
        assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"
    assert upstream.tokens_given == 2


async def test_a_token_that_someone_else_renews_is_read_again(upstream: AzureEmulator, tmp_path: Path) -> None:
    """A given token is taken from its file, and from what is written there later, without a restart."""
    file = tmp_path / "token"
    upstream.tokens = {"given-1"}
    file.write_text("given-1\n")
    environment = {"AZURE_OPENAI_AD_TOKEN_FILE": str(file)}
    async with text_service(tmp_path, [_entra(upstream)], MODELS, environment) as service:
        assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"
        upstream.tokens = {"given-2"}
        file.write_text("given-2\n")
        async with asyncio.timeout(30):
            while True:
                try:
                    assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"
                    break
                except errors.UpstreamAuth:  # files are looked at once a second
                    await asyncio.sleep(0.05)


async def test_a_row_may_name_the_responses_api(upstream: AzureEmulator, tmp_path: Path) -> None:
    """At Azure's path without a version, with a key or an Entra token; tools, reasoning and refusals as at OpenAI's."""
    rows: list[Row] = [
        {
            "id": "m",
            "provider": "p",
            "upstream": "thinking-deployment",
            "capabilities": ["tools", "reasoning"],
            "limits": {"method": "responses"},
        },
        {"id": "gone", "provider": "p", "upstream": "no-deployment", "limits": {"method": "responses"}},
    ]
    upstream.scripts.append(
        Script(reasoning=("h", "m"), calls=(Call("c1", "f", ('{"a":', "1}")),), finish="tool_calls", text=())
    )
    async with text_service(tmp_path, [_entra(upstream)], rows, {"AZURE_OPENAI_API_KEY": "azure-good"}) as service:
        request = chat()
        request.tools.add(name="f", parameters_json='{"type": "object"}')
        request.reasoning.effort, request.reasoning.include = ReasoningOptions.EFFORT_LOW, True
        events = await service.ask(request)
        pieces = [event.tool_call for event in events if event.HasField("tool_call")]
        assert "".join(piece.arguments_json for piece in pieces) == '{"a":1}'
        assert any(event.reasoning.signature for event in events)
        seen = upstream.seen[-1]
        assert (seen.path, seen.body["model"], seen.body["store"]) == ("/openai/v1/responses", "o4-mini", False)
        upstream.scripts.append(Script(refuse="content_policy"))
        with pytest.raises(errors.ContentPolicy):
            await service.ask(chat())
        gone = chat()
        gone.model = "gone"
        with pytest.raises(errors.ModelNotFound):
            await service.ask(gone)
    async with text_service(tmp_path, [_entra(upstream)], rows, APPLICATION) as service:
        assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"
