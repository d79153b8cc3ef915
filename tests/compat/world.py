"""A gateway with the catalogue's own rows of the three vendors, and the fakes that play them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.stack import Stack
from tests import shipped, stacks
from tests.compat.fakes import OPENAI_MODEL, Fakes
from tests.emulators import anthropic_requests, aws, bedrock
from tests.emulators.base import Emulator
from tests.emulators.embeddings import BedrockEmbeddings, GeminiEmbeddings, OpenAIEmbeddings
from tests.emulators.gemini_images import GeminiImagesEmulator
from tests.emulators.openai_images import OpenAIImagesEmulator
from tests.image.harness import shipped_rows

VENDORS: Final = ("openai", "gemini", "claude")
MODELS: Final = {
    "openai": OPENAI_MODEL,
    "gemini": "gemini-3.5-flash",
    "claude": "claude-sonnet-4-5",
    "anthropic": "anthropic-text/claude-opus-5-5",
}
IMAGES: Final = {"openai": "gpt-image-1", "gemini": "gemini-3.1-flash-image"}
PREDICTED: Final = {"openai": "openai/gpt-image-1", "gemini": "google/imagen-4.0-generate-preview-05-20"}
"""The models of the predictions, as its callers name them."""
EMBEDDINGS: Final = {
    "openai": "text-embedding-3-small",
    "gemini": "gemini-embedding-001",
    "claude": "amazon.titan-embed-text-v2:0",
}
_PROCESSES: Final = ("auth", "text", "image", "tasks", "router", "edge")
_ENVIRONMENT: Final = {
    "OPENAI_API_KEY": "sk-good",
    "GEMINI_API_KEY": "AIza-good",
    "ANTHROPIC_API_KEY": anthropic_requests.KEY,
    "AWS_ACCESS_KEY_ID": aws.ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": aws.SECRET_KEY,
    "AWS_REGION": aws.REGION,
}


Begin = Callable[[Path, Mapping[str, str], Collection[str]], Stack]
"""Makes a gateway in a folder, with variables for all of these processes, not started."""


def begun(root: Path, environment: Mapping[str, str], processes: Collection[str]) -> Stack:
    """Return a gateway that starts as `make run` starts one."""
    return Stack(root, durable=False, environment=environment, processes=processes)


@dataclass(frozen=True)
class World:
    """The gateway, as clients see it, and who stands behind it."""

    stack: Stack
    fakes: Fakes

    @property
    def url(self) -> str:
        """Return the public address."""
        return self.stack.url

    @property
    def key(self) -> str:
        """Return a key that may do everything."""
        return self.stack.api_key


@contextlib.asynccontextmanager
async def world(root: Path, begin: Begin = begun) -> AsyncIterator[World]:
    """Yield a running gateway with its vendors. `begin` makes the gateway, in a folder of its own."""
    fakes = Fakes()
    others: dict[str, Emulator] = {
        "openai-embedding": OpenAIEmbeddings(),
        "gemini-embedding": GeminiEmbeddings(),
        "aws-bedrock-embedding": BedrockEmbeddings(),
        "openai-image": OpenAIImagesEmulator(),
        "gemini-image": GeminiImagesEmulator(),
    }
    hosts = {
        "openai-text": fakes.openai,
        "gemini-text": fakes.gemini,
        "aws-bedrock-text": fakes.claude,
        "anthropic-text": fakes.anthropic,
        **others,
    }
    async with contextlib.AsyncExitStack() as running:
        for host in hosts.values():
            await running.enter_async_context(host)
        providers, models = [], []
        for name, host in hosts.items():
            path = {"openai": "/v1", "gemini": "/v1beta"}.get(name.split("-")[0], "")
            more = {"options": {"region": aws.REGION}} if name.startswith("aws") else {}
            own, rows = shipped_rows(name, host.url + path, **more)
            providers += own
            models += rows
        for row in models:
            if MODELS["claude"] in row.get("aliases", ()):
                row["upstream"] = bedrock.CLAUDE
        root.mkdir(parents=True, exist_ok=True)
        catalogue = root / "catalogue.yaml"
        shipped.written(catalogue, providers, models)
        environment = {**_ENVIRONMENT, "MOA_CATALOGUE": str(catalogue), **stacks.QUICK}
        stack = begin(root / "state", environment, _PROCESSES)
        await asyncio.to_thread(stack.start, wait_s=300)
        try:
            yield World(stack, fakes)
        finally:
            await asyncio.to_thread(stack.stop)
