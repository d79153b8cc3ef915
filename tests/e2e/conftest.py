"""One whole gateway for the end-to-end tests: real Envoy, real PostgreSQL, every process, the shipped models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from deploy.local.stack import Stack
from tests import stacks


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
        answer = requests.get(f"{self.stack.internal_url}/metrics/{process}", timeout=10)
        answer.raise_for_status()
        return answer.text

    def metric(self, process: str, name: str) -> float:
        """Sum a metric over its labels."""
        lines = [line for line in self.metrics(process).splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the models that ship, shared by all tests that do not break it."""
    root: Path = tmp_path_factory.mktemp("gateway")
    with stacks.gateway(root) as stack:
        yield Gateway(stack)
