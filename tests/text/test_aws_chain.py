"""AWS credentials from botocore's chain: found where teams keep them, renewed before they end, hidden when missing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from services.catalogue import Provider, load
from services.common import errors
from services.providers.hosting import checking
from services.text.servicer import OFFER
from tests import shipped
from tests.emulators import aws
from tests.emulators.aws_identity import CONTAINER_TOKEN, IDENTITY_TOKEN, ROLE, AwsIdentityEmulator
from tests.emulators.bedrock import NOVA, BedrockEmulator
from tests.text.harness import Row, TextClient, chat, text_of, text_service

MODELS: list[Row] = [{"id": "m", "provider": "p", "upstream": NOVA}]


def _row(url: str) -> Row:
    """Return the shipped row of Bedrock, at an emulator's address."""
    rows = shipped.rows()["providers"]
    (row,) = [row for row in rows if row["id"] == "aws-bedrock-text"]
    return {**row, "id": "p", "base_url": url, "options": {"region": aws.REGION}}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let botocore find nothing but what a test sets."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_REGION", aws.REGION)


@pytest.fixture
async def identity() -> AsyncIterator[AwsIdentityEmulator]:
    async with AwsIdentityEmulator() as emulator:
        yield emulator
        assert emulator.refused == []


@asynccontextmanager
async def _service(identity: AwsIdentityEmulator, folder: Path) -> AsyncIterator[tuple[TextClient, BedrockEmulator]]:
    async with (
        BedrockEmulator(identity.issued) as upstream,
        text_service(folder, [_row(upstream.url)], MODELS, dict(os.environ)) as service,
    ):
        yield service, upstream


@pytest.fixture
def container(identity: AwsIdentityEmulator, monkeypatch: pytest.MonkeyPatch) -> AwsIdentityEmulator:
    """Let the credentials come from the container's endpoint."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{identity.url}/container")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", CONTAINER_TOKEN)
    return identity


async def test_a_container_role_signs_with_its_session_token(container: AwsIdentityEmulator, tmp_path: Path) -> None:
    """Ten requests at once are signed with one set of temporary credentials, token included."""
    async with _service(container, tmp_path) as (service, upstream):
        answers = await asyncio.gather(*(service.ask(chat()) for _ in range(10)))
        assert {text_of(events) for events in answers} == {"Hello 안녕 🌍!"}
        assert upstream.refused == []
        assert {seen.headers["x-amz-security-token"] for seen in upstream.seen} == {"token-1//=="}
    assert len(container.issued) == 1


async def test_credentials_that_end_soon_are_renewed_first(container: AwsIdentityEmulator, tmp_path: Path) -> None:
    """What ends within minutes signs nothing: the request waits for new ones."""
    container.life_s = 300
    async with _service(container, tmp_path) as (service, upstream):
        await service.ask(chat())
        container.life_s = 3600
        for _ in range(3):
            assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"
        used = [seen.headers["x-amz-security-token"] for seen in upstream.seen]
    assert used[0] != used[1]
    assert len(set(used[1:])) == 1


async def test_renewal_comes_early_and_may_fail(container: AwsIdentityEmulator, tmp_path: Path) -> None:
    """In the last quarter of an hour the old ones sign while new ones are fetched; a failure of that costs nothing."""
    container.life_s = 800
    async with _service(container, tmp_path) as (service, upstream):
        await service.ask(chat())
        first = upstream.seen[-1].headers["x-amz-security-token"]
        container.down = True
        for _ in range(3):
            assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"
        container.down = False
        container.life_s = 3600
        async with asyncio.timeout(20):
            while upstream.seen[-1].headers["x-amz-security-token"] == first:
                await service.ask(chat())
        assert upstream.refused == []


async def test_refused_credentials_are_found_anew(container: AwsIdentityEmulator, tmp_path: Path) -> None:
    """Credentials that AWS refuses, because the role was changed, are forgotten: the next request brings others."""
    async with _service(container, tmp_path) as (service, _):
        await service.ask(chat())
        for access, made in container.issued.items():
            container.issued[access] = replace(made, token="of another role")
        with pytest.raises(errors.UpstreamAuth):
            await service.ask(chat())
        assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"


async def test_an_endpoint_that_fails_is_told_as_such(container: AwsIdentityEmulator, tmp_path: Path) -> None:
    """Without credentials the caller hears that the gateway's fail, and of nothing else."""
    container.down = True
    async with _service(container, tmp_path) as (service, upstream):
        with pytest.raises(errors.UpstreamAuth) as refused:
            await service.ask(chat())
        assert container.url not in refused.value.message
        assert upstream.seen == []
        container.down = False
        assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"


async def test_a_web_identity_assumes_its_role(
    identity: AwsIdentityEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token file and a role, as Kubernetes gives them, become temporary credentials."""
    token = tmp_path / "token"
    token.write_text(IDENTITY_TOKEN)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"{identity.url}/sts/")
    async with _service(identity, tmp_path) as (service, upstream):
        assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"
        assert upstream.refused == []


async def test_a_profile_is_read(
    identity: AwsIdentityEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile of the shared files signs, here one whose program prints the credentials."""
    config = tmp_path / "config"
    printed = msgspec.json.encode({"Version": 1, "AccessKeyId": aws.ACCESS_KEY, "SecretAccessKey": aws.SECRET_KEY})
    (tmp_path / "printed.json").write_bytes(printed)
    config.write_text(f"[profile team]\ncredential_process = cat {tmp_path}/printed.json\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "team")
    async with _service(identity, tmp_path) as (service, upstream):
        assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"
        assert upstream.refused == []


async def test_the_instance_is_asked_only_when_told_to(
    identity: AwsIdentityEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metadata service signs with MOA_AWS_INSTANCE_ROLE; a profile without credentials never gets that far."""
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", identity.url)
    config = tmp_path / "config"
    config.write_text("[profile empty]\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with monkeypatch.context() as profile:
        profile.setenv("AWS_PROFILE", "empty")
        async with _service(identity, tmp_path) as (service, _):
            with pytest.raises(errors.UpstreamAuth):
                await service.ask(chat())
        assert identity.issued == {}
    monkeypatch.setenv("MOA_AWS_INSTANCE_ROLE", "1")
    async with _service(identity, tmp_path) as (service, upstream):
        assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"
        assert upstream.refused == []


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        ({}, None),
        ({"AWS_ACCESS_KEY_ID": "a"}, None),
        ({"AWS_ROLE_ARN": "r"}, None),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}, {"access_key", "secret_key"}),
        (
            {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "AWS_PROFILE": "p"},
            {"access_key", "secret_key", "session_token"},
        ),
        ({"AWS_BEARER_TOKEN_BEDROCK": "b", "AWS_PROFILE": "p"}, {"api_key"}),
        ({"AWS_ROLE_ARN": "r", "AWS_WEB_IDENTITY_TOKEN_FILE": "/f"}, {"role_arn", "web_identity"}),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2"}, {"container"}),
        ({"AWS_PROFILE": "p"}, {"profile"}),
        ({"MOA_AWS_INSTANCE_ROLE": "1"}, {"instance_role"}),
    ],
)
def test_which_credentials_are_used(environment: dict[str, str], chosen: set[str] | None) -> None:
    """The first way whose variables are all set is used; with none, both Bedrock providers are hidden."""
    catalogue = load(shipped.SHIPPED, environment)
    for name in ("aws-bedrock-text", "aws-bedrock-image"):
        assert (name in catalogue.configured) == (chosen is not None)
        if chosen is not None:
            provider: Provider = catalogue.provider(name)
            assert set(provider.credentials) == chosen


async def test_what_is_missing_is_said_in_every_way_there_is() -> None:
    """The check names the variables of each way to be configured."""
    findings = await checking.check_all(OFFER.targets({}), shipped.catalogue(), "text")
    (found,) = [finding for finding in findings if finding.provider == "aws-bedrock-text"]
    assert found.state == "hidden"
    assert "or AWS_ACCESS_KEY_ID + AWS_SECRET_ACCESS_KEY, or" in found.why
    assert "or AWS_PROFILE" in found.why
