"""The credential between services, changed while they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from pydantic import SecretStr

from moa.router.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from services.common import scrub
from services.common.credential import Credential, RotatedCredential, credential_of
from services.common.rpc.client import channel, metadata
from services.common.rpc.server import Server
from services.common.settings import ServiceSettings
from services.quota_client import grants

OLD, NEW = "the-old-credential", "the-new-credential"


class Clock:
    """A clock that stands where it is put: files are looked at a second later."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, *credentials: str) -> Path:
    """Replace a file at once, as a kubelet does."""
    new = path.with_suffix(".new")
    new.write_text("".join(f"{each}\n" for each in credentials))
    new.replace(path)
    return path


class Catalog(catalog_service_pb2_grpc.CatalogServiceServicer):
    """Answers."""

    async def ListModels(self, request: Any, context: Any) -> catalog_service_pb2.ListModelsResponse:
        return catalog_service_pb2.ListModelsResponse()

    async def GetModel(self, request: Any, context: Any) -> catalog_service_pb2.GetModelResponse:
        return catalog_service_pb2.GetModelResponse()


async def test_it_is_changed_without_a_failed_call(tmp_path: Path) -> None:
    """The new one is added on both sides, then sent, then alone: at every step each side is at another, and calls pass;
    what is no longer in the file is refused."""
    clocks = Clock(), Clock()
    files = [write(tmp_path / name, OLD) for name in ("server", "client")]
    server_side, client_side = (RotatedCredential(file, clock=clock) for file, clock in zip(files, clocks, strict=True))
    server = Server(service_token=server_side)
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(Catalog(), server.grpc)
    port = await server.start("127.0.0.1:0")
    async with channel(f"127.0.0.1:{port}") as link:
        ask = catalog_service_pb2_grpc.CatalogServiceStub(link).ListModels

        async def asked(credential: Credential) -> None:
            await ask(catalog_service_pb2.ListModelsRequest(), metadata=metadata(credential, "r"))

        await asked(client_side)
        with pytest.raises(grpc.aio.AioRpcError) as early:
            await asked(NEW)
        assert early.value.code() is grpc.StatusCode.UNAUTHENTICATED
        for lines in ([OLD, NEW], [NEW, OLD], [NEW]):
            for file, clock in zip(files, clocks, strict=True):
                write(file, *lines)
                await asked(client_side)
                clock.now += 1
                await asked(client_side)
        assert client_side.sent == NEW
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await asked(OLD)
        assert late.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await server.stop(0)


def test_what_was_signed_before_is_good_while_the_old_one_is(tmp_path: Path) -> None:
    """A grant counts as long as what signed it is in the file of who reads it, and is signed with the first."""
    clock = Clock()
    file = write(tmp_path / "credentials", OLD)
    credential = RotatedCredential(file, clock=clock)
    acting = grants.ActingFor(account_id="a", key_id="k")
    before = grants.mint(credential, acting)
    write(file, NEW, OLD)
    clock.now += 1
    assert grants.read(credential, before) == acting
    assert grants.read(NEW, grants.mint(credential, acting)) == acting
    write(file, NEW)
    clock.now += 1
    assert grants.read(credential, before) is None


def test_a_file_that_says_nothing_changes_nothing(tmp_path: Path) -> None:
    """An empty or cut file leaves what was read before, and the log says so once and shows no credential."""
    clock = Clock()
    file = write(tmp_path / "credentials", OLD)
    credential = RotatedCredential(file, clock=clock)
    with structlog.testing.capture_logs() as lines:
        for text in ([], ["short"]):
            write(file, *text)
            clock.now += 1
            assert (credential.sent, credential.sent) == (OLD, OLD)
    assert [line["why"] for line in lines] == [f"{file} is empty", f"{file} has a line with less than 16 characters"]
    assert scrub.scrub(f"sent {OLD}") != f"sent {OLD}"


def test_a_bad_file_stops_the_start(tmp_path: Path) -> None:
    """The variable is named; without the file the credential is the variable's own."""
    config = ServiceSettings(service_token=SecretStr("t" * 16), service_token_file=tmp_path / "none")
    with pytest.raises(SystemExit, match=r"^bad setting MOA_SERVICE_TOKEN_FILE: .*none: No such file or directory$"):
        credential_of(config)
    assert credential_of(ServiceSettings(service_token=SecretStr("t" * 16))) == "t" * 16
