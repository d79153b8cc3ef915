"""One inference server for all of these tests, with the models that ship."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def more(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serve the model under another name, and one that reasons and claims no JSON."""
    folder = tmp_path_factory.mktemp("models")
    thinking = folder / "thinking"
    shutil.copytree("inference/models/moa-tiny-chat", thinking)
    template = thinking / "chat_template.jinja"
    template.write_text(template.read_text().replace("{{ '<|assistant|>' }}", "{{ '<|assistant|><think>' }}"))
    models = [
        {"id": name, "provider": "local-text", "capabilities": can, "load": {"source": str(source)}}
        for name, can, source in (
            ("strict", ["candidates", "json", "json_schema", "seed"], Path("inference/models/moa-tiny-chat").resolve()),
            ("thinking", [], thinking),
        )
    ]
    file = folder / "catalogue.yaml"
    providers = [{"id": "local-text", "adapter": "inference", "makes": "text"}]
    file.write_text(json.dumps({"providers": providers, "models": models}))
    server = Running(file)
    yield server
    server.stop()


@pytest.fixture
async def client(running: Running) -> AsyncIterator[Client]:
    one = Client(running.address)
    yield one
    await one.close()
