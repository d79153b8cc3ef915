"""A gateway with every kind of model: the local ones, and each cloud protocol by its emulator."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.local.stack import REPOSITORY
from tests import stacks
from tests.emulators.base import Emulator
from tests.emulators.script import Script
from tests.image.harness import shipped_rows
from tests.image.subjects import SUBJECTS as IMAGE_SUBJECTS
from tests.matrix.asker import Asker
from tests.text.subjects import EVERYTHING, SUBJECTS

WAIT_S = 20
CROSSING = [subject for subject in SUBJECTS if subject.crosses]
CLOUDS = [subject.name for subject in CROSSING]
PICTURES = [f"{subject.provider}/{subject.model}" for subject in IMAGE_SUBJECTS]
"""Cloud models that make images, one for each way of speaking."""


@dataclass
class World:
    """The gateway as callers see it, and the providers behind it."""

    url: str
    key: str
    database_url: str
    node: Asker
    """Asks from Node."""
    loop: Loop
    """Where the providers are."""
    emulators: dict[str, Emulator] = field(default_factory=dict)
    """By the cloud's name, those of image providers by the provider's."""
    editors: frozenset[str] = frozenset()
    """Those of PICTURES that change whole images too."""

    def play(self, cloud: str, **how: Any) -> None:
        """Say what a provider answers next."""
        self.emulators[cloud].scripts.append(Script(**how))

    def asked(self, cloud: str) -> Any:
        """Return the body that a provider was sent last."""
        return self.emulators[cloud].seen[-1].body


class Loop:
    """An event loop in a thread, for the emulators."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="emulators")
        self._thread.start()

    def run(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(WAIT_S)

    def call(self, what: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(what)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _catalogue(emulators: dict[str, Emulator]) -> dict[str, Any]:
    models = REPOSITORY / "inference" / "models"
    providers: list[Any] = [
        {"id": "local-text", "adapter": "inference", "makes": "text"},
        {"id": "local-image", "adapter": "inference", "makes": "image"},
    ]
    rows: list[Any] = [
        {
            "id": "local-chat",
            "provider": "local-text",
            "capabilities": ["seed", "logprobs"],
            "default_max_tokens": 24,
            "load": {"source": str(models / "moa-tiny-chat")},
        },
        {
            "id": "local-picture",
            "provider": "local-image",
            "capabilities": ["size", "steps", "seed", "negative_prompt", "edit", "mask", "variation", "preview"],
            "defaults": {"width": 64, "height": 64, "steps": 4, "guidance_scale": 4.0},
            "load": {"source": str(models / "moa-tiny-image")},
        },
    ]
    for subject in CROSSING:
        providers.append({**subject.providers(emulators[subject.name])[0], "id": f"{subject.name}-text"})
        rows.append(
            {
                "id": f"{subject.name}-model",
                "provider": f"{subject.name}-text",
                "upstream": subject.model,
                "capabilities": list(EVERYTHING),
                **subject.model_row,
            }
        )
    for provider, painter in {painter.provider: painter for painter in IMAGE_SUBJECTS}.items():
        emulator = emulators[provider]
        own, models_of = shipped_rows(provider, emulator.url + painter.path, **painter.row(emulator))
        providers += own
        rows += models_of
    return {"providers": providers, "models": rows}


def _editors(catalogue: dict[str, Any]) -> frozenset[str]:
    full = {f"{row['provider']}/{row['id']}": row for row in catalogue["models"]}
    # Nova Canvas changes an image inside a mask only.
    return frozenset(name for name in PICTURES if "edit" in full[name]["capabilities"] and "nova" not in name)


@pytest.fixture(scope="session")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root: Path = tmp_path_factory.mktemp("matrix")
    loop = Loop()
    emulators = {subject.name: subject.emulator() for subject in CROSSING}
    emulators |= {subject.provider: subject.emulator() for subject in IMAGE_SUBJECTS}
    for emulator in emulators.values():
        loop.run(emulator.start)
    catalogue = root / "catalogue.yaml"
    rows = _catalogue(emulators)
    catalogue.write_bytes(msgspec.json.encode(rows))
    environment = {"MOA_CATALOGUE": str(catalogue), "MOA_LEFT_CALL_S": "1"}
    for given in [*(s.environment for s in SUBJECTS), *(s.environment for s in IMAGE_SUBJECTS)]:
        environment |= given
    try:
        names = ("auth", "text", "image", "inference", "router", "edge")
        with (
            stacks.gateway(root / "state", environment=environment, processes=names) as stack,
            contextlib.closing(Asker(stack.url, stack.api_key)) as node,
        ):
            yield World(stack.url, stack.api_key, stack.database_url, node, loop, emulators, _editors(rows))
    finally:
        for emulator in emulators.values():
            loop.run(emulator.stop)
        loop.close()


@pytest.fixture
def world(_world: World) -> World:
    """Return the gateway, its providers with no memory of earlier tests."""
    for emulator in _world.emulators.values():
        emulator.scripts.clear()
        emulator.seen.clear()
    return _world
