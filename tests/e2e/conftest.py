"""One whole gateway for the end-to-end tests: real Envoy, real PostgreSQL, every process, the shipped models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from deploy.local.stack import Stack
from tests import stacks
from tests.authority import Authority
from tests.emulators.issuer import Issuer, running
from tests.emulators.naver import CLIENT_ID, CLIENT_SECRET, Naver


@dataclass(frozen=True)
class Gateway:
    """A running gateway, as a caller sees it."""

    stack: Stack

    @property
    def url(self) -> str:
        return self.stack.url

    @property
    def key(self) -> str:
        return self.stack.api_key

    @property
    def address(self) -> str:
        """`host:port`, for gRPC."""
        return f"127.0.0.1:{self.stack.port}"

    def post(self, path: str, body: object, **more: object) -> requests.Response:
        """Send JSON with the key."""
        return requests.post(self.url + path, json=body, headers={"X-API-Key": self.key}, timeout=60, **more)  # type: ignore[arg-type]

    def get(self, path: str) -> requests.Response:
        """Read with the key."""
        return requests.get(self.url + path, headers={"X-API-Key": self.key}, timeout=60)

    def metrics(self, process: str) -> str:
        """Read a process's metrics at the internal port."""
        answer = requests.get(f"{self.stack.internal_url}/metrics/{process}", timeout=60)
        answer.raise_for_status()
        return answer.text

    def metric(self, process: str, name: str) -> float:
        """Sum a metric over its labels."""
        lines = [line for line in self.metrics(process).splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.fixture(scope="session")
def naver() -> Iterator[Naver]:
    """The shops that the gateway asks."""
    with Naver() as running:
        yield running


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    """The identity provider that the gateway knows."""
    with running(Issuer()) as found:
        yield found


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, naver: Naver, issuer: Issuer) -> Iterator[Gateway]:
    """A gateway with the models that ship, shops and an identity provider, shared by all tests that do not break it.

    Its processes speak TLS among themselves.
    """
    root: Path = tmp_path_factory.mktemp("gateway")
    environment = {
        "MOA_SERVICE_TLS_DIR": str(Authority().certify_processes(tmp_path_factory.mktemp("certificates"))),
        "MOA_NAVER_URL": naver.url,
        "MOA_NAVER_CLIENT_ID": CLIENT_ID,
        "MOA_NAVER_CLIENT_SECRET": CLIENT_SECRET,
        "MOA_OIDC_ISSUER": issuer.url,
        "MOA_OIDC_CLIENT_ID": issuer.client_id,
        "MOA_OIDC_CLIENT_SECRET": issuer.client_secret,
        "MOA_OIDC_NAME": "Example",
        "MOA_OIDC_SIGNUP": "open",
        "MOA_DESK_LORA": "moa",
        "MOA_DESK_LORA_SCALE": "0.5",
    }
    with stacks.gateway(root, environment=environment) as stack:
        yield Gateway(stack)
