"""The contract suite's services: one of each adapter, before its emulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model
from tests import shipped
from tests.emulators.base import Emulator
from tests.image.harness import ImageClient, image_service, shipped_rows
from tests.image.subjects import SUBJECTS, Subject
from tests.seconds import Seconds


@pytest.fixture(params=SUBJECTS, ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    assert isinstance(request.param, Subject)
    return request.param


@pytest.fixture
def model(subject: Subject) -> Model:
    return shipped.catalogue().find(subject.model, provider=subject.provider)


@pytest.fixture
async def upstream(subject: Subject) -> AsyncIterator[Emulator]:
    async with subject.emulator() as emulator:
        yield emulator
        assert emulator.refused == [], "the adapter sent something that the real service would refuse"


@pytest.fixture
async def service(subject: Subject, upstream: Emulator, tmp_path: Path) -> AsyncIterator[ImageClient]:
    rows = shipped_rows(subject.provider, upstream.url + subject.path, **subject.row(upstream))
    async with image_service(tmp_path, *rows, subject.environment) as client:
        yield client


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    """Return the clock of the service's calls to providers, which stands still."""
    return Seconds(monkeypatch)


@pytest.fixture
def ask(subject: Subject) -> GenerateImageRequest:
    return GenerateImageRequest(model=subject.model, provider=subject.provider, prompt="A 바다 at night 🌊")
