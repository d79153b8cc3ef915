"""Digests of images."""

from __future__ import annotations

import hashlib
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from services.common import images


async def test_an_image_is_hashed_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else the process serves goes on meanwhile."""
    threads: list[int] = []

    def noted(data: bytes) -> Any:
        threads.append(threading.get_ident())
        return hashlib.sha256(data)

    monkeypatch.setattr(images, "hashlib", SimpleNamespace(sha256=noted))
    assert await images.digest(b"a picture") == hashlib.sha256(b"a picture").hexdigest()
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
