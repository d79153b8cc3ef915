"""TLS between processes: who they are is what their certificates say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY
from pydantic import SecretStr

from services.common.errors import Unavailable
from services.common.rpc.certificates import SETTLE_S, BadCertificate, Certificates
from services.common.rpc.client import ConnectionWatch, channel
from services.common.rpc.server import Server
from services.common.rpc.status import error_from_rpc
from services.common.rpc.tls import Tls, tls_of
from services.common.settings import ServiceSettings
from tests.authority import NAME, Authority

ASK = "/moa.test.v1.Echo/Ask"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def tls(folder: Path, *callers: str, **more: Any) -> Tls:
    return Tls(certificates=Certificates(folder, name=NAME), callers=callers, **more)


class Echo:
    """Answers at once, or streams until it is let go."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def ask(self, request: Empty, context: Any) -> Empty:
        return request

    async def stream(self, request: Empty, context: Any) -> None:
        await context.write(request)
        await self.go_on.wait()
        await context.write(request)


@asynccontextmanager
async def serving(serves: Tls | None, echo: Echo | None = None, port: int = 0) -> AsyncIterator[tuple[Server, int]]:
    """Serve as a process that is known by its certificate; yield the server and the port."""
    echo = echo or Echo()
    server = Server(service_token=None, tls=serves)
    codec: Any = {"request_deserializer": Empty.FromString, "response_serializer": Empty.SerializeToString}
    methods = {
        "Ask": grpc.unary_unary_rpc_method_handler(echo.ask, **codec),
        "Watch": grpc.unary_stream_rpc_method_handler(echo.stream, **codec),
    }
    server.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("moa.test.v1.Echo", methods),))
    started = await server.start(f"127.0.0.1:{port}")
    try:
        yield server, started
    finally:
        await server.stop(0)


def asker(link: grpc.aio.Channel, shape: str = "unary_unary", path: str = ASK) -> Any:
    return getattr(link, shape)(
        path, request_serializer=Empty.SerializeToString, response_deserializer=Empty.FromString
    )


def refusals(why: str) -> float:
    return REGISTRY.get_sample_value("moa_callers_refused_total", {"why": why}) or 0.0


async def refused(link: grpc.aio.Channel) -> grpc.aio.AioRpcError:
    """Return how a call ends that must not be answered."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asker(link)(Empty(), timeout=20)
    return caught.value


async def test_each_side_knows_the_other(authority: Authority, tmp_path: Path) -> None:
    """A process whose row of the table names the callee is answered; another, however certified, is not."""
    before = refusals("certificate")
    auth = tls(authority.certify(tmp_path / "auth", "auth.moa.internal"), "router", "tasks")
    async with serving(auth) as (_, port):
        router = tls(authority.certify(tmp_path / "router", "router.moa.internal"))
        async with channel(f"127.0.0.1:{port}", "auth", router) as link:
            assert await asker(link)(Empty()) == Empty()
        desk = tls(authority.certify(tmp_path / "desk", "desk.moa.internal"))
        async with channel(f"127.0.0.1:{port}", "auth", desk) as link:
            error = await refused(link)
            assert (error.code(), error.details()) == (
                grpc.StatusCode.UNAUTHENTICATED,
                "not a service that may call this one",
            )
            assert isinstance(error_from_rpc(error), Unavailable)
            assert refusals("certificate") == before + 1
            # Whether it serves it is told.
            assert await health_pb2_grpc.HealthStub(link).Check(health_pb2.HealthCheckRequest())


async def test_a_server_with_anothers_name_is_not_believed(authority: Authority, tmp_path: Path) -> None:
    """Who calls auth does not speak to what only has the text service's certificate."""
    text = tls(authority.certify(tmp_path / "text", "text.moa.internal"), "router")
    router = tls(authority.certify(tmp_path / "router", "router.moa.internal"))
    async with serving(text) as (_, port), channel(f"127.0.0.1:{port}", "auth", router) as link:
        error = await refused(link)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "Hostname Verification" in str(error.details())


@pytest.mark.parametrize("stranger", ["client", "server"])
async def test_another_authority_is_not_believed(authority: Authority, tmp_path: Path, stranger: str) -> None:
    """A certificate of the right name that another authority signed opens no connection, whoever has it."""
    other = Authority()
    auth = (other if stranger == "server" else authority).certify(
        tmp_path / "auth", "auth.moa.internal", trusts=[authority]
    )
    router = (other if stranger == "client" else authority).certify(
        tmp_path / "router", "router.moa.internal", trusts=[authority]
    )
    async with serving(tls(auth, "router")) as (_, port), channel(f"127.0.0.1:{port}", "auth", tls(router)) as link:
        assert (await refused(link)).code() is grpc.StatusCode.UNAVAILABLE


async def test_without_a_certificate_nobody_is_answered(authority: Authority, tmp_path: Path) -> None:
    """A caller that speaks no TLS is not heard; who asks for health at the port for it is answered that alone."""
    auth = tls(authority.certify(tmp_path / "auth", "auth.moa.internal"), "router", health_listen="127.0.0.1:0")
    async with serving(auth) as (server, port):
        async with channel(f"127.0.0.1:{port}") as link:
            assert (await refused(link)).code() is grpc.StatusCode.UNAVAILABLE
        async with channel(f"127.0.0.1:{server.health_port}") as link:
            said = await health_pb2_grpc.HealthStub(link).Check(health_pb2.HealthCheckRequest())
            assert said.status == health_pb2.HealthCheckResponse.SERVING
            assert (await refused(link)).code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("late", ["client", "server"])
async def test_an_expired_certificate_is_refused(authority: Authority, tmp_path: Path, late: str) -> None:
    """It opens no connection, and the log of its own process says that it has expired, and when it did."""
    days = {"client": 1.0, "server": 1.0, late: -1.0}
    with structlog.testing.capture_logs() as lines:
        auth = tls(authority.certify(tmp_path / "auth", "auth.moa.internal", days=days["server"]), "router")
        router = tls(authority.certify(tmp_path / "router", "router.moa.internal", days=days["client"]))
        async with serving(auth) as (_, port), channel(f"127.0.0.1:{port}", "auth", router) as link:
            assert (await refused(link)).code() is grpc.StatusCode.UNAVAILABLE
    expired = [line for line in lines if line["event"] == "certificate.expired"]
    (name,) = {name for line in expired for name in line["names"]}
    assert name == {"client": "router.moa.internal", "server": "auth.moa.internal"}[late]
    assert expired[0]["until"] == (auth if late == "server" else router).certificates.held().until.isoformat()
    # Whoever calls is told by its own log why there is no connection.
    assert any(line["event"] == "connection.failed" for line in lines)


async def test_certificates_are_renewed_under_a_stream(authority: Authority, tmp_path: Path) -> None:
    """Both sides get new certificates, of a new authority too, while calls run: none fails, a stream ends as it would,
    and what is new is asked over a connection with the new ones."""
    echo, heir = Echo(), Authority()
    auth_folder, router_folder = tmp_path / "auth", tmp_path / "router"
    both = [authority, heir]
    auth = tls(authority.certify(auth_folder, "auth.moa.internal", trusts=both), "router")
    router = tls(authority.certify(router_folder, "router.moa.internal", trusts=both))
    seen: list[str] = []
    async with serving(auth, echo) as (_, port), channel(f"127.0.0.1:{port}", "auth", router) as link:
        watch = asker(link, "unary_stream", "/moa.test.v1.Echo/Watch")(Empty())
        await watch.read()
        peer = auth.certificates.held().chain
        heir.certify(auth_folder, "auth.moa.internal", trusts=[heir])
        heir.certify(router_folder, "router.moa.internal", trusts=[heir])
        # What is held is looked at anew at most once a second: here at once.
        assert router.certificates.held().authorities == heir.pem
        ask = asker(link)
        async with asyncio.timeout(20):
            while auth.certificates.held(looks=False).chain == peer or link_of(link) is not router.certificates.held():
                await ask(Empty())
                seen.append("answered")
        echo.go_on.set()
        assert await watch.read() == Empty()
        assert await watch.read() is grpc.aio.EOF
        await ask(Empty())
    assert seen


def test_metrics_tell_when_the_files_say_that_it_expires(authority: Authority, tmp_path: Path) -> None:
    """Whoever reads them has the files looked at: connections may stand for weeks without a handshake."""
    at = 0.0
    folder = authority.certify(tmp_path / "auth", "auth.moa.internal", days=1)
    held = Certificates(folder, clock=lambda: at)

    def told() -> float | None:
        return REGISTRY.get_sample_value("moa_certificate_expires_timestamp_seconds")

    first = told()
    authority.certify(folder, "auth.moa.internal", days=2)
    at += 2
    second = told()
    assert first is not None
    assert second == held.held().until.timestamp() > first


def test_what_handshakes_begin_with_is_replaced_only_at_a_change(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC frees what it made of a certificate that is replaced, under handshakes that begin at that moment: processes
    ended by signal 11. One that is as before is not replaced, and before another is given, those have moved on."""
    asked: list[Callable[[], grpc.ServerCertificateConfiguration | None]] = []
    monkeypatch.setattr(grpc, "dynamic_ssl_server_credentials", lambda _, changed, __: asked.append(changed))
    slept: list[float] = []
    folder = authority.certify(tmp_path / "auth", "auth.moa.internal")
    Certificates(folder, sleep=slept.append).server_credentials()
    (changed,) = asked
    assert (changed(), changed(), slept) == (None, None, [])
    authority.certify(folder, "auth.moa.internal")
    assert isinstance(changed(), grpc.ServerCertificateConfiguration)
    assert slept == [SETTLE_S]
    assert (changed(), slept) == (None, [SETTLE_S])


def link_of(link: Any) -> Any:
    """Return with what a channel's connection was made."""
    return link.link().held


async def test_files_that_do_not_fit_change_nothing(authority: Authority, tmp_path: Path) -> None:
    """Half of a pair, or no certificate at all, leaves the one before in force, and the log says what is wrong."""
    folder = authority.certify(tmp_path / "auth", "auth.moa.internal")
    held = Certificates(folder)
    before = held.held()
    other = authority.certify(tmp_path / "other", "auth.moa.internal")
    with structlog.testing.capture_logs() as lines:
        (other / "tls.key").replace(folder / "tls.key")
        assert held.held() is before
        assert held.held() is before
    assert [(line["event"], line["why"]) for line in lines] == [
        ("certificate.refused", f"{folder / 'tls.key'} is not the key of {folder / 'tls.crt'}")
    ]
    (other / "tls.crt").replace(folder / "tls.crt")
    assert held.held().chain == (folder / "tls.crt").read_bytes()


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("tls.crt", None, "tls.crt: No such file or directory"),
        ("tls.crt", b"nothing", "tls.crt has no certificate in PEM"),
        ("ca.crt", b"", "ca.crt has no certificate in PEM"),
        ("tls.key", b"nothing", "tls.key is no private key in PEM without a password"),
    ],
)
def test_bad_files_stop_the_start(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: bytes | None, why: str
) -> None:
    """The variable and the file are named."""
    folder = authority.certify(tmp_path / "auth", "auth.moa.internal")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(BadCertificate):
        Certificates(folder)
    config = ServiceSettings(service_token=SecretStr("t" * 16), service_tls_dir=folder, service_callers="router")
    with pytest.raises(SystemExit, match=f"^bad setting MOA_SERVICE_TLS_DIR: .*{why}$"):
        tls_of(config)


def test_who_may_call_must_be_named(authority: Authority, tmp_path: Path) -> None:
    """TLS without callers would let nobody in, or everybody: the start says which variable names them."""
    folder = authority.certify(tmp_path / "auth", "auth.moa.internal")
    with pytest.raises(SystemExit, match=r"^bad setting MOA_SERVICE_CALLERS"):
        tls_of(ServiceSettings(service_token=SecretStr("t" * 16), service_tls_dir=folder))
    assert tls_of(ServiceSettings(service_token=SecretStr("t" * 16))) is None


async def test_a_process_that_comes_back_is_waited_for(authority: Authority, tmp_path: Path) -> None:
    """Over TLS, too, callers know that a process went and that it is there again, with another certificate even."""
    folder = tmp_path / "auth"
    auth = tls(authority.certify(folder, "auth.moa.internal"), "router")
    router = tls(authority.certify(tmp_path / "router", "router.moa.internal"))
    async with serving(auth) as (_, port):
        link: Any = channel(f"127.0.0.1:{port}", "auth", router)
        connections = ConnectionWatch(link)
        await link.channel_ready()
        assert not connections.is_restarting
    async with asyncio.timeout(20):
        while not connections.is_restarting:
            await asyncio.sleep(0.01)
        again = tls(authority.certify(folder, "auth.moa.internal"), "router")
        async with serving(again, port=port):
            await connections.returned()
            assert not connections.is_restarting
            await connections.aclose()
            await link.close()
