"""Providers that come and go: credentials, rotation, reloads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from yarl import URL

from services.catalogue import CatalogueError, load
from services.common import errors
from services.image.__main__ import SERVICE as IMAGES
from services.providers.hosting.service import Providing
from services.providers.hosting.targets import ACCOUNT_REFUSED, LOOK_EVERY_S, Targets
from services.providers.http.client import Outgoing
from services.text.service import SERVICE
from services.text.settings import TextSettings
from services.text.targets import ADAPTERS
from tests.counters import count_of
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Script
from tests.text.harness import Row, chat, text_of, text_service, write_catalogue

MODELS: list[Row] = [{"id": "m", "provider": "p", "upstream": "gpt-4o-mini"}]


def _row(url: str, **more: object) -> Row:
    return {
        "id": "p",
        "makes": "text",
        "adapter": "openai",
        "base_url": url,
        "credentials": {"api_key": "OPENAI_API_KEY"},
        **more,
    }


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIEmulator]:
    async with OpenAIEmulator() as emulator:
        yield emulator


def _keys(upstream: OpenAIEmulator) -> list[str]:
    return [seen.headers.get("authorization", "") for seen in upstream.seen]


async def test_keys_take_turns(upstream: OpenAIEmulator, tmp_path: Path) -> None:
    """Two good keys share the requests."""
    environment = {"OPENAI_API_KEY": "sk-good, sk-also-good"}
    async with text_service(tmp_path, [_row(upstream.base_url)], MODELS, environment) as service:
        for _ in range(4):
            await service.ask(chat())
    assert _keys(upstream) == ["Bearer sk-good", "Bearer sk-also-good"] * 2


@pytest.mark.parametrize("bad", ["sk-revoked", "sk-limited"])
async def test_a_refused_or_limited_key_is_passed_over(upstream: OpenAIEmulator, tmp_path: Path, bad: str) -> None:
    """The caller does not notice: the next key answers at once, and the bad one rests."""
    environment = {"OPENAI_API_KEY": f"{bad},sk-good"}
    async with text_service(tmp_path, [_row(upstream.base_url)], MODELS, environment) as service:
        for _ in range(3):
            assert text_of(await service.ask(chat()))
    assert _keys(upstream) == ["Bearer sk-good"] * 3
    assert len(upstream.refused) == 1


@pytest.mark.parametrize("keys", ["sk-limited,sk-poor", "sk-poor,sk-limited"])
async def test_when_no_key_is_good_the_refusal_is_told(upstream: OpenAIEmulator, tmp_path: Path, keys: str) -> None:
    """With every key tried once, the refusal that passes by itself is the answer."""
    environment = {"OPENAI_API_KEY": keys}
    async with text_service(tmp_path, [_row(upstream.base_url)], MODELS, environment) as service:
        with pytest.raises(errors.UpstreamRateLimited):
            await service.ask(chat())
    assert len(upstream.refused) == 2


async def test_a_key_from_a_file(upstream: OpenAIEmulator, tmp_path: Path) -> None:
    """A secret may stand in a file that a variable names."""
    file = tmp_path / "key"
    file.write_text("sk-good\n")
    environment = {"OPENAI_API_KEY_FILE": str(file)}
    async with text_service(tmp_path, [_row(upstream.base_url)], MODELS, environment) as service:
        assert text_of(await service.ask(chat()))


async def test_a_key_that_is_replaced_in_its_file_is_used(upstream: OpenAIEmulator, tmp_path: Path) -> None:
    """Rotation needs no restart: a new key in the file is taken up, and an answer under way goes on to its end."""
    file = tmp_path / "key"
    file.write_text("sk-good")
    now = [0.0]
    environment = {"OPENAI_API_KEY_FILE": str(file)}
    targets = Targets(ADAPTERS, makes="text", environment=environment, clock=lambda: now[0])
    catalogue_path = tmp_path / "catalogue.yaml"
    write_catalogue(catalogue_path, [_row(upstream.base_url)], MODELS)
    catalogue = load(catalogue_path, environment)
    outgoing = Outgoing(URL("http://x/"), b"", {})

    async def key() -> str:
        return (await targets.find(catalogue, "m", "p")[1].authority.headers(outgoing))["Authorization"]

    assert [await key(), await key()] == ["Bearer sk-good"] * 2
    file.write_text("sk-also-good")
    os.utime(file, ns=(1, 1))
    assert await key() == "Bearer sk-good"
    now[0] = LOOK_EVERY_S
    assert await key() == "Bearer sk-also-good"
    await targets.close()


async def test_a_server_that_needs_no_key_gets_none(tmp_path: Path) -> None:
    """Without credentials in its row, nothing is sent."""
    async with OpenAIEmulator(needs_key=False) as upstream:
        row = _row(upstream.base_url, credentials={})
        async with text_service(tmp_path, [row], MODELS, {}) as service:
            assert text_of(await service.ask(chat()))
        assert "authorization" not in upstream.seen[0].headers


async def test_a_provider_without_credentials_is_not_configured(tmp_path: Path) -> None:
    """It is not asked, and the catalogue says that it is not configured."""
    async with text_service(tmp_path, [_row("http://127.0.0.1:1/v1")], MODELS, {}) as service:
        with pytest.raises(errors.ProviderNotConfigured):
            await service.ask(chat())
        assert service.watched.now.configured == frozenset()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"stream_usages": False},
            "options: Object contains unknown field `stream_usages`; did you mean 'stream_usage'?",
        ),
        ({"prefill": "prefixed"}, "options.prefill: Invalid enum value 'prefixed'; did you mean 'prefix'?"),
        ({"extensions": ["topk"]}, "options.extensions: Invalid enum value 'topk'; did you mean 'top_k'?"),
    ],
)
async def test_a_service_does_not_start_with_options_that_its_adapter_does_not_know(
    tmp_path: Path, options: dict[str, object], told: str
) -> None:
    """The row, the field, what is wrong, and what was probably meant."""
    path = tmp_path / "catalogue.yaml"
    write_catalogue(path, [_row("http://127.0.0.1:1/v1", options=options)], MODELS)
    config = TextSettings(service_token=SecretStr("t" * 32), catalogue=path, listen="127.0.0.1:0")
    with pytest.raises(CatalogueError) as refused:
        async with SERVICE.serve(config, {}):
            pass
    assert str(refused.value).startswith(f"{path}: provider p: {told}")


@pytest.mark.parametrize("service", [SERVICE, IMAGES])
def test_the_shipped_catalogues_options_are_known(service: Providing) -> None:
    """Every provider's, to the adapter that its row names."""
    catalogue = load(Path("gateway/catalogue.yaml"), {})
    assert [offer.targets({}).fault_in(catalogue) for offer in service.offers] == [""] * len(service.offers)


async def test_a_reload_lets_running_answers_end(upstream: OpenAIEmulator, tmp_path: Path) -> None:
    """A row that changes serves new requests at once, while an answer from the old one goes on to its end."""
    environment = {"OPENAI_API_KEY": "sk-good"}
    async with (
        OpenAIEmulator() as other,
        text_service(tmp_path, [_row(upstream.base_url)], MODELS, environment) as service,
    ):
        script = Script(hold_at=1)
        upstream.scripts.append(script)
        running = asyncio.create_task(service.ask(chat()))
        await asyncio.wait_for(script.held.wait(), 30)
        write_catalogue(service.catalogue_path, [_row(other.base_url)], MODELS)
        service.watched.now = load(service.catalogue_path, environment)
        assert text_of(await service.ask(chat()))
        assert len(other.seen) == 1
        script.gate.set()
        assert text_of(await running) == "Hello 안녕 🌍!"


async def test_a_reload_without_changes_keeps_connections(upstream: OpenAIEmulator, tmp_path: Path) -> None:
    """A new snapshot with the same row goes on with the same connection."""
    environment = {"OPENAI_API_KEY": "sk-good"}
    async with text_service(tmp_path, [_row(upstream.base_url)], MODELS, environment) as service:
        await service.ask(chat())
        service.watched.now = load(service.catalogue_path, environment)
        await service.ask(chat())
    assert len({seen.peer for seen in upstream.seen}) == 1


async def test_an_answer_that_may_be_long_is_streamed_from_the_provider(
    upstream: OpenAIEmulator, tmp_path: Path
) -> None:
    """Nobody can tell a busy provider from a dead one when a long answer comes in one piece."""
    environment = {"OPENAI_API_KEY": "sk-good"}
    async with text_service(tmp_path, [_row(upstream.base_url)], MODELS, environment) as service:
        request = chat(max_tokens=8000)
        request.stream = False
        assert text_of(await service.ask(request)) == "Hello 안녕 🌍!"
        assert upstream.seen[-1].body["stream"] is True


def _refusals(why: str) -> float:
    return count_of(ACCOUNT_REFUSED.labels("p", why))


async def test_an_account_without_credit_is_said_to_be_that(upstream: OpenAIEmulator, tmp_path: Path) -> None:
    """Not a rate that passes: 502's reason, no time to try again, and the operator's metric and log line.

    The caller hears which provider; what it said is the operator's to read.
    """
    before = _refusals("credit"), _refusals("credentials")
    async with text_service(tmp_path, [_row(upstream.base_url)], MODELS, {"OPENAI_API_KEY": "sk-poor"}) as service:
        with pytest.raises(errors.UpstreamAuth) as refused, capture_logs() as lines:
            await service.ask(chat())
    assert refused.value.message == "the gateway's account with the provider p has no credit left"
    (line,) = [line for line in lines if line["event"] == "provider.account_refused"]
    told = {name: line[name] for name in ("log_level", "provider", "why", "status", "words", "model")}
    assert told == {
        "log_level": "warning",
        "provider": "p",
        "why": "credit",
        "status": 429,
        "words": "You exceeded your quota.",
        "model": "m",
    }
    assert refused.value.retry_after_s is None
    assert (_refusals("credit"), _refusals("credentials")) == (before[0] + 1, before[1])


async def test_an_account_without_credit_is_passed_over_for_another(upstream: OpenAIEmulator, tmp_path: Path) -> None:
    """Of several keys, another one's account may have some."""
    environment = {"OPENAI_API_KEY": "sk-poor,sk-good"}
    async with text_service(tmp_path, [_row(upstream.base_url)], MODELS, environment) as service:
        assert text_of(await service.ask(chat()))


@pytest.mark.parametrize(
    ("adapter", "status", "body"),
    [
        ("openai", 429, {"error": {"code": "insufficient_quota", "type": "insufficient_quota", "message": "x"}}),
        ("openai", 429, {"error": {"code": None, "type": "insufficient_quota", "message": "x"}}),
        ("openai", 402, {"error": {"message": "Insufficient Balance"}}),
        ("openai", 402, "no JSON"),
        ("azure", 400, {"error": {"code": "billing_hard_limit_reached"}}),
        ("gemini", 403, {"error": {"status": "PERMISSION_DENIED", "details": [{"reason": "BILLING_DISABLED"}]}}),
        ("bedrock", 402, {"message": "x"}),
        ("anthropic", 402, {"type": "error", "error": {"type": "billing_error", "message": "x"}}),
    ],
)
def test_every_protocols_word_for_no_credit(adapter: str, status: int, body: object) -> None:
    """By the provider's typed code, or by the status alone."""
    error = ADAPTERS[adapter].error_from(status, {"retry-after": "7"}, msgspec.json.encode(body))
    assert isinstance(error, errors.UpstreamUnpaid)
    assert error.reason == errors.UpstreamAuth.reason
    assert (error.retry_after_s, "try again" in error.message) == (None, False)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (errors.UpstreamAuth, "the provider p refused the gateway's credentials"),
        (errors.UpstreamUnpaid, "the gateway's account with the provider p has no credit left"),
        (errors.UpstreamFailed, "as it was"),
    ],
)
async def test_a_refusal_amid_an_answer_is_told_like_one_before(
    tmp_path: Path, kind: type[errors.MoaError], said: str
) -> None:
    """Some providers put it into the stream: it is counted and worded all the same, and other failures stay."""
    path = tmp_path / "catalogue.yaml"
    write_catalogue(path, [_row("http://127.0.0.1:9")], MODELS)
    targets = Targets(ADAPTERS, makes="text", environment={"OPENAI_API_KEY": "sk-x"})
    _, target = targets.find(load(path, {"OPENAI_API_KEY": "sk-x"}), "m", "p")
    before = _refusals("credit") + _refusals("credentials")
    judged = target.judged(kind("as it was"), 200)
    assert (type(judged), judged.message) == (kind, said)
    assert _refusals("credit") + _refusals("credentials") - before == (kind is not errors.UpstreamFailed)
    await targets.close()
