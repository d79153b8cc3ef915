"""The contract suite's services: one of each adapter, before its emulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.text import generation
from tests.emulators.base import Emulator
from tests.seconds import Seconds
from tests.text.harness import TextClient, text_service
from tests.text.subjects import SUBJECTS, Subject


@pytest.fixture(params=SUBJECTS, ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    assert isinstance(request.param, Subject)
    return request.param


@pytest.fixture
async def upstream(subject: Subject) -> AsyncIterator[Emulator]:
    async with subject.emulator() as emulator:
        yield emulator
        assert emulator.refused == [], "the adapter sent something that the real service would refuse"


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    """Return the clock of the service's calls to providers, which stands still."""
    return Seconds(monkeypatch, generation)


@pytest.fixture
async def service(subject: Subject, upstream: Emulator, tmp_path: Path) -> AsyncIterator[TextClient]:
    async with text_service(tmp_path, subject.providers(upstream), subject.models(), subject.environment) as client:
        yield client
