"""Providers' stored keys, from auth to what a provider is sent: without a restart, and never over the environment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from moa.operator.v1 import operator_store_service_pb2 as pb
from moa.operator.v1 import operator_store_service_pb2_grpc
from moa.provider.v1 import provider_state_service_pb2 as states_pb
from moa.provider.v1 import provider_state_service_pb2_grpc
from services.catalogue import Environment, Provider, storable_forms
from services.common.rpc.client import channel, metadata
from services.common.rpc.server import Server
from services.text.service import SERVICE
from services.text.settings import TextSettings
from tests.emulators.openai import OpenAIEmulator
from tests.text.harness import TOKEN, Row, write_catalogue

INTERNAL = metadata(TOKEN, "r")


class Auth(operator_store_service_pb2_grpc.OperatorStoreServiceServicer):
    """Plays auth's store of keys."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}
        self.version = 1

    def store(self, **stored: str) -> None:
        self.stored, self.version = stored, self.version + 1

    async def nothing(self, request: Any, context: Any) -> Any:
        raise AssertionError("the text service asks for keys alone")

    AuthorizeOperator = AuditOperation = ReportTraffic = ReadTraffic = nothing

    async def ListProviderKeys(self, request: Any, context: Any) -> pb.ListProviderKeysResponse:
        if request.known_version == self.version:
            return pb.ListProviderKeysResponse(version=self.version, unchanged=True)
        keys = [
            pb.StoredProviderKey(variable=name, value=value, unreadable=not value)
            for name, value in self.stored.items()
        ]
        return pb.ListProviderKeysResponse(version=self.version, keys=keys)


def row(name: str, url: str, key: str = "") -> Row:
    credentials = {"credentials": {"api_key": key}} if key else {}
    return {"id": name, "adapter": "openai", "makes": "text", "base_url": url, **credentials}


@asynccontextmanager
async def service(folder: Path, auth: Auth, url: str, environment: Mapping[str, str]) -> AsyncIterator[Any]:
    """Serve the text service of three providers until the block ends; yield what asks for their states."""
    rows = [row("p", url, "P_KEY"), row("q", url, "Q_KEY"), row("free", url)]
    write_catalogue(folder / "catalogue.yaml", rows, [{"id": "m", "provider": "p"}])
    played = Server(service_token=TOKEN)
    operator_store_service_pb2_grpc.add_OperatorStoreServiceServicer_to_server(auth, played.grpc)
    port = await played.start("127.0.0.1:0")
    config = TextSettings(
        service_token=SecretStr(TOKEN),
        catalogue=folder / "catalogue.yaml",
        listen="127.0.0.1:0",
        auth_address=f"127.0.0.1:{port}",
        drain_s=0,
    )
    try:
        async with SERVICE.serve(config, environment) as served, channel(f"127.0.0.1:{served.port}") as opened:
            yield provider_state_service_pb2_grpc.ProviderStateServiceStub(opened)
    finally:
        await played.stop(0)


async def test_a_stored_key_is_taken_without_a_restart(tmp_path: Path) -> None:
    """A test of the provider takes the key as it is stored by then: none, a good one, a revoked one, none again. The
    environment's own key wins over a stored one."""
    auth = Auth()
    async with OpenAIEmulator() as upstream, service(tmp_path, auth, upstream.base_url, {"Q_KEY": "sk-good"}) as states:

        async def tested(provider: str) -> tuple[int, str]:
            request = states_pb.TestProviderRequest(provider=provider)
            answer = await states.TestProvider(request, metadata=INTERNAL)
            return answer.outcome, answer.detail

        async def state(provider: str) -> states_pb.ProviderState:
            answer = await states.ListProviderStates(states_pb.ListProviderStatesRequest(), metadata=INTERNAL)
            found: states_pb.ProviderState = next(each for each in answer.providers if each.provider == provider)
            return found

        assert await tested("p") == (states_pb.TEST_OUTCOME_NOT_CONFIGURED, "needs P_KEY")
        assert (await state("p")).why == "needs P_KEY"
        auth.store(P_KEY="sk-good", Q_KEY="sk-stored-and-not-taken")
        assert (await tested("p"))[0] == states_pb.TEST_OUTCOME_ANSWERED
        assert (await tested("q"))[0] == states_pb.TEST_OUTCOME_ANSWERED
        found = await state("p")
        assert (found.configured, found.key_source, found.why) == (True, states_pb.KEY_SOURCE_STORED, "")
        assert (await state("q")).key_source == states_pb.KEY_SOURCE_ENVIRONMENT
        assert (await state("free")).key_source == states_pb.KEY_SOURCE_NONE_NEEDED
        auth.store(P_KEY="sk-revoked-long-ago", Q_KEY="sk-stored-and-not-taken")
        outcome, detail = await tested("p")
        assert outcome == states_pb.TEST_OUTCOME_FAILED
        assert "sk-revoked" not in detail
        auth.store(P_KEY="")
        with capture_logs() as lines:
            assert await tested("p") == (states_pb.TEST_OUTCOME_NOT_CONFIGURED, "needs P_KEY")
        assert [line["variables"] for line in lines if line["event"] == "provider_keys.unreadable"] == [["P_KEY"]]
        auth.store()
        assert (await tested("p"))[0] == states_pb.TEST_OUTCOME_NOT_CONFIGURED
        with pytest.raises(grpc.aio.AioRpcError, match="asks no provider 'nobody'"):
            await tested("nobody")


async def test_one_provider_is_tested_at_a_time(tmp_path: Path) -> None:
    """Whoever tests another meanwhile is told to wait, so that nobody floods a provider by it."""
    asked, answer = asyncio.Event(), asyncio.Event()

    class Slow(Auth):
        async def ListProviderKeys(self, request: Any, context: Any) -> pb.ListProviderKeysResponse:
            asked.set()
            await answer.wait()
            return await super().ListProviderKeys(request, context)

    async with service(tmp_path, Slow(), "http://127.0.0.1:9", {}) as states:
        await asked.wait()
        request = states_pb.TestProviderRequest(provider="p")
        calls = [asyncio.ensure_future(states.TestProvider(request, metadata=INTERNAL)) for _ in range(2)]
        done, (running,) = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(grpc.aio.AioRpcError, match="another provider is being tested") as refused:
            await done.pop()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        answer.set()
        assert (await running).outcome == states_pb.TEST_OUTCOME_NOT_CONFIGURED


async def test_a_catalogue_is_checked_for_the_service(tmp_path: Path) -> None:
    """What the text service would refuse is told with its place, without a file of it: also what only it knows."""
    async with service(tmp_path, Auth(), "http://127.0.0.1:9", {}) as states:

        async def fault(text: str) -> str:
            answer = await states.CheckCatalogue(states_pb.CheckCatalogueRequest(text=text), metadata=INTERNAL)
            return str(answer.fault)

        good = "providers:\n- {id: p, adapter: openai, makes: text, base_url: http://x}\nmodels: []\n"
        assert await fault(good) == ""
        assert await fault(good.replace("http://x", "http://x, options: {max_tokens_feld: a}")) == (
            "catalogue.yaml: provider p: options: Object contains unknown field `max_tokens_feld`;"
            " did you mean 'max_tokens_field'?"
        )
        assert "did you mean 'makes'" in await fault(good.replace("makes", "mks"))
        assert (await fault("providers: [")).startswith("catalogue.yaml: ")


def test_only_lasting_credentials_can_be_stored() -> None:
    """Ways that take what is temporary, or what something else on the machine finds, are not offered."""
    provider = Provider(
        id="p",
        adapter="bedrock",
        makes="text",
        credentials={"access_key": "A", "secret_key": "B", "session_token": "C"},
        alternatives=({"access_key": "A", "secret_key": "B"}, {"api_key": "D"}, {"profile": "E"}, {"role_arn": "F"}),
    )
    assert storable_forms(provider) == [{"access_key": "A", "secret_key": "B"}, {"api_key": "D"}]


def test_the_process_is_told_more_than_the_store() -> None:
    """A variable, or a file for it, wins over what is stored; an empty one says nothing."""
    environment = Environment({"A": "own", "B_FILE": "/run/b", "C": ""})
    assert environment.store({"A": "s", "B": "s", "C": "s", "D": "s"}) == frozenset("ABCD")
    assert {name: environment.get(name) for name in "ABCDE"} == {"A": "own", "B": None, "C": "s", "D": "s", "E": None}
    assert environment.store({"D": "t"}) == frozenset("ABCD")
    assert (environment.get("C"), environment.get("D"), environment.version) == ("", "t", 2)
    assert environment.store({"D": "t"}) == frozenset()
    assert (sorted(environment), len(environment), environment.version) == (["A", "B_FILE", "C", "D"], 4, 2)
