"""The image clouds together, in a loop of their own: for tests that call the gateway without one."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self

from tests.emulators import ideogram, stability
from tests.emulators.gemini import KEYS as GEMINI_KEYS
from tests.emulators.gemini_images import GeminiImagesEmulator
from tests.emulators.ideogram import IdeogramEmulator
from tests.emulators.openai import KEYS as OPENAI_KEYS
from tests.emulators.openai_images import OpenAIImagesEmulator
from tests.emulators.stability import StabilityEmulator


class Clouds:
    """Gemini with Imagen, OpenAI, Ideogram and Stability, on free loopback ports."""

    def __init__(self) -> None:
        self.gemini = GeminiImagesEmulator()
        self.openai = OpenAIImagesEmulator()
        self.ideogram = IdeogramEmulator()
        self.stability = StabilityEmulator()
        self._all = (self.gemini, self.openai, self.ideogram, self.stability)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """What tells a gateway to ask these instead of the real ones."""
        return {
            "GEMINI_BASE_URL": f"{self.gemini.url}/v1beta",
            "GEMINI_API_KEY": min(GEMINI_KEYS),
            "OPENAI_BASE_URL": f"{self.openai.url}/v1",
            "OPENAI_API_KEY": min(OPENAI_KEYS - {"sk-limited", "sk-poor"}),
            "IDEOGRAM_BASE_URL": self.ideogram.url,
            "IDEOGRAM_API_KEY": ideogram.KEY,
            "STABILITY_BASE_URL": self.stability.url,
            "STABILITY_API_KEY": stability.KEY,
        }

    @property
    def refused(self) -> list[tuple[int, str]]:
        """Requests that were wrong, of all of them."""
        return [each for emulator in self._all for each in emulator.refused]

    def __enter__(self) -> Self:
        self._thread.start()
        for emulator in self._all:
            asyncio.run_coroutine_threadsafe(emulator.start(), self._loop).result(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for emulator in self._all:
            asyncio.run_coroutine_threadsafe(emulator.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
