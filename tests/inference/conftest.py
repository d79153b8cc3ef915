"""One inference server for all of these tests, with the models that ship."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.inference.harness import Client, Running


def pytest_configure(config: pytest.Config) -> None:
    """Overlook what other people's packages deprecate of each other."""
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    server = Running()
    yield server
    server.stop()


@pytest.fixture
async def client(running: Running) -> AsyncIterator[Client]:
    one = Client(running.address)
    yield one
    await one.close()
