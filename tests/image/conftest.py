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
async def impatient(subject: Subject, upstream: Emulator, tmp_path: Path) -> AsyncIterator[ImageClient]:
    """A service whose provider has to begin within moments."""
    row = subject.row(upstream, connect_s=0.5, first_token_s=0.2)
    rows = shipped_rows(subject.provider, upstream.url + subject.path, **row)
    async with image_service(tmp_path, *rows, subject.environment) as client:
        yield client


@pytest.fixture
async def restless(subject: Subject, upstream: Emulator, tmp_path: Path) -> AsyncIterator[ImageClient]:
    """A service whose provider may be silent for a second between two pieces."""
    rows = shipped_rows(subject.provider, upstream.url + subject.path, **subject.row(upstream, idle_s=1))
    async with image_service(tmp_path, *rows, subject.environment) as client:
        yield client


@pytest.fixture
def ask(subject: Subject) -> GenerateImageRequest:
    return GenerateImageRequest(model=subject.model, provider=subject.provider, prompt="A 바다 at night 🌊")
