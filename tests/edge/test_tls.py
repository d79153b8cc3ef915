"""The public port with a certificate."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import requests
from pydantic import ValidationError

from deploy.local.stack import REPOSITORY, Stack, StackError
from gateway.settings import EdgeSettings
from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from tests import forking
from tests.authority import Authority
from tests.edge.upstream import TIMEOUT_S, Upstream

CLUSTER_EXPIRES = "envoy_cluster_ssl_certificate_expiration_unix_time_seconds"


@pytest.fixture(scope="module")
def secure(
    certificate: tuple[Path, Path], _running: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    environment = {
        "MOA_ROUTER_ADDRESSES": f"127.0.0.1:{_running.port}",
        "MOA_TLS_CERT": str(certificate[0]),
        "MOA_TLS_KEY": str(certificate[1]),
    }
    with Stack(
        tmp_path_factory.mktemp("secure"), processes=["edge"], start=forking.spawn, environment=environment
    ) as stack:
        yield stack


def test_https(secure: Stack, certificate: tuple[Path, Path]) -> None:
    """REST works over TLS with the certificate that was given, and plain HTTP does not."""
    assert secure.url.startswith("https://")
    answer = requests.get(secure.url + "/providers", verify=str(certificate[0]), timeout=TIMEOUT_S)
    assert answer.json() == {"providers": []}
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{secure.port}/providers", timeout=TIMEOUT_S)


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_alpn(secure: Stack, certificate: tuple[Path, Path], protocol: str) -> None:
    """Both HTTP/2 and HTTP/1.1 are agreed on by ALPN."""
    context = ssl.create_default_context(cafile=str(certificate[0]))
    context.set_alpn_protocols([protocol])
    address = ("127.0.0.1", secure.port)
    plain = socket.create_connection(address, timeout=TIMEOUT_S)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as link:
        assert link.selected_alpn_protocol() == protocol


def test_grpc_over_tls(secure: Stack, certificate: tuple[Path, Path]) -> None:
    """gRPC works over TLS on the same port."""
    credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{secure.port}", credentials) as channel:
        stub = text_service_pb2_grpc.TextServiceStub(channel)
        answer = stub.CountTokens(text_service_pb2.CountTokensRequest(), timeout=TIMEOUT_S)
    assert answer.prompt_tokens == 7


def test_what_alerts_watch_is_told(secure: Stack) -> None:
    """Envoy's metrics that the operator's alerts name are there; the one left out needs TLS between processes too."""
    alerts = (REPOSITORY / "deploy" / "helm" / "moa" / "files" / "alerts.yaml").read_text()
    watched = set(re.findall(r"\b(envoy_[a-z_]+)\{", alerts)) - {CLUSTER_EXPIRES}
    told = requests.get(secure.internal_url + "/metrics/edge", timeout=TIMEOUT_S).text
    assert "envoy_listener_ssl_certificate_expiration_unix_time_seconds" in watched
    assert watched <= set(re.findall(r"^(envoy_[a-z_]+)\{", told, re.MULTILINE))


def test_half_a_pair(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    """A certificate without its key stops the start with a clear sentence."""
    environment = {"MOA_TLS_CERT": str(certificate[0]), "MOA_ROUTER_ADDRESSES": "127.0.0.1:9"}
    stack = Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment)
    with pytest.raises(StackError, match="MOA_TLS_CERT and MOA_TLS_KEY belong together"):
        stack.start()


def test_a_certificate_for_services_must_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable and the file that is missing are named."""
    folder = Authority().certify(tmp_path, "edge.moa.internal")
    monkeypatch.setenv("MOA_SERVICE_TLS_DIR", str(folder))
    assert EdgeSettings().service_tls_dir == folder
    (folder / "ca.crt").unlink()
    with pytest.raises(ValidationError, match=r"MOA_SERVICE_TLS_DIR has no file ca\.crt"):
        EdgeSettings()


def test_a_file_that_is_not_there(
    certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable that names no file is named, not only the file."""
    monkeypatch.setenv("MOA_ROUTER_ADDRESSES", "127.0.0.1:9")
    monkeypatch.setenv("MOA_TLS_CERT", str(certificate[0]))
    monkeypatch.setenv("MOA_TLS_KEY", str(tmp_path / "none.pem"))
    with pytest.raises(ValidationError, match=r"MOA_TLS_KEY names no file: .*none\.pem"):
        EdgeSettings()
