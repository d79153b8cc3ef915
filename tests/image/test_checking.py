"""`python -m services.image check`, which `make providers` runs, as a person runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests import shipped
from tests.image.subjects import SUBJECTS

BY_PROVIDER = {subject.provider: subject for subject in SUBJECTS}


@pytest.fixture
async def catalogue(tmp_path: Path) -> AsyncIterator[Path]:
    """Write the shipped rows of every cloud image provider, each at its emulator's address."""
    rows = {row["id"]: row for row in shipped.rows()["providers"]}
    async with AsyncExitStack() as stack:
        providers = []
        for name, subject in BY_PROVIDER.items():
            emulator = await stack.enter_async_context(subject.emulator())
            options = subject.options if subject.options is not None else rows[name].get("options", {})
            providers.append({**rows[name], "base_url": emulator.url + subject.path, "options": options})
        path = tmp_path / "catalogue.yaml"
        shipped.written(path, providers, [])
        yield path


async def _check(path: Path, environment: Mapping[str, str]) -> tuple[int | None, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.image",
        "check",
        env={**inherited, "PYTHONPATH": f"gen{os.pathsep}.", "MOA_CATALOGUE": str(path), **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


def _good() -> dict[str, str]:
    return {name: value for subject in SUBJECTS for name, value in subject.environment.items()}


async def test_good_credentials_are_told(catalogue: Path) -> None:
    """Every provider answers its cheapest call, which makes no image; the exit is 0."""
    code, out = await _check(catalogue, _good())
    assert [line.split()[:2] for line in out.splitlines()] == [["ok", name] for name in BY_PROVIDER]
    assert code == 0


async def test_wrong_credentials_are_told(catalogue: Path) -> None:
    """Every provider refuses, the secrets are not shown, and the exit is 1."""
    wrong = dict.fromkeys(_good(), "a-wrong-secret")
    code, out = await _check(catalogue, wrong)
    assert [line.split()[:2] for line in out.splitlines()] == [["FAILED", name] for name in BY_PROVIDER]
    assert "a-wrong-secret" not in out
    assert code == 1


async def test_missing_credentials_are_told(catalogue: Path) -> None:
    """Every provider is hidden, with what it needs; that is no failure."""
    code, out = await _check(catalogue, {})
    assert [line.split()[:2] for line in out.splitlines()] == [["hidden", name] for name in BY_PROVIDER]
    assert all("needs" in line for line in out.splitlines())
    assert code == 0
