"""A gateway over two providers, one that is asked and one that answers in its place, and what its ledger says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import openai
import psycopg

from deploy.local.ports import Ports
from deploy.local.stack import Stack
from tests import stacks
from tests.e2e.conftest import Gateway
from tests.emulators.gemini import GeminiEmulator
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Counts, Script

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
SPARE = "gemini-2.5-flash"
NAMES = ("refuses", "denies", "is-hasty", "is-down", "is-strict", "fails", "is-lent", "is-kept", "is-sick")
"""Each test has a model of its own, so that none opens another's breaker."""
ROUTED = ("is-routed", "is-hedged", "is-shadowed")
ROUTES: list[dict[str, Any]] = [
    {
        "id": "team-fast",
        "targets": [
            {"model": "main@second/is-routed", "when": {"tags": ["second"]}},
            {"model": "main/is-routed"},
            {"model": SPARE},
        ],
    },
    {"id": "team-hedged", "hedge": True, "targets": [{"model": "is-hedged"}, {"model": SPARE}]},
    {"id": "team-shadowed", "targets": [{"model": "is-shadowed"}, {"model": SPARE, "shadow": 1}]},
]
"""Virtual models over both providers, and another key of the first."""


@dataclass(frozen=True)
class Pair:
    """A gateway with a provider that was asked for, and one that stands in for it."""

    gateway: Gateway
    main: OpenAIEmulator
    spare: GeminiEmulator

    @property
    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.gateway.url + "/v1", api_key=self.gateway.key, max_retries=0)

    def play(self, who: OpenAIEmulator | GeminiEmulator, **how: Any) -> Script:
        """Queue what a provider does next."""
        script = Script(**how)
        who.scripts.append(script)
        return script

    async def booked(self) -> int:
        """Return how many rows there are once what was asked before is booked: a router books in order."""
        mark = ("spare", SPARE, 31)
        had = (await asyncio.to_thread(self.rows)).count(mark)
        self.play(self.spare, counts=Counts(prompt=20, completion=11))
        async with self.client as client:
            await client.chat.completions.create(model=SPARE, messages=MESSAGES, max_tokens=10)
        async with asyncio.timeout(60):
            while (rows := await asyncio.to_thread(self.rows)).count(mark) == had:
                await asyncio.sleep(0.05)
        self.spare.seen.clear()
        return len(rows)

    async def charged(self, before: int, count: int = 1) -> list[tuple[str, str, int]]:
        """Return what the ledger closed since, without what came to nothing: provider, model, tokens."""
        async with asyncio.timeout(60):
            while len(rows := (await asyncio.to_thread(self.rows))[before:]) < count or not any(row[2] for row in rows):
                await asyncio.sleep(0.05)
        return [row for row in rows if row[2]]

    def rows(self) -> list[tuple[str, str, int]]:
        """Return every row of the ledger that closes a reservation."""
        with psycopg.connect(self.gateway.stack.database_url) as link:
            return link.execute(
                "select provider, model, tokens from ledger where kind in ('settle', 'orphan', 'late') order by id"
            ).fetchall()


@contextmanager
def running(root: Path) -> Iterator[tuple[Stack, int, int]]:
    """Run the gateway in a folder; yield it with the ports that it looks for its providers at."""
    ports = Ports()
    main, spare = ports.any(), ports.any()
    catalogue, policies = root / "catalogue.yaml", root / "policies.yaml"
    denied = {"patterns": ["(?i)bluebird"], "message": "the bluebird is not talked about"}
    judging = {"name": "secrets", "kind": "deny-list", "judges": ["requests"], "settings": denied}
    policies.write_bytes(msgspec.yaml.encode({"policies": [judging]}))
    rows = {"providers": _providers(main, spare), "models": _models(), "routes": ROUTES}
    catalogue.write_bytes(msgspec.yaml.encode(rows))
    environment = {
        "MOA_CATALOGUE": str(catalogue),
        "MOA_POLICIES": str(policies),
        "MAIN_KEY": "sk-good",
        "SECOND_KEY": "sk-also-good",
        "SPARE_KEY": "AIza-good",
    }
    names = ("auth", "text", "router", "edge")
    with stacks.gateway(root / "state", environment=environment, processes=names) as stack:
        yield stack, main, spare


def _providers(main: int, spare: int) -> list[dict[str, Any]]:
    patient = {"connect_s": 60, "first_token_s": 60, "idle_s": 60}
    openai_row = {
        "adapter": "openai",
        "makes": "text",
        "base_url": f"http://127.0.0.1:{main}/v1",
        "credentials": {"api_key": "MAIN_KEY"},
    }
    return [
        {
            **openai_row,
            "id": "main",
            "timeouts": patient,
            "variants": {"second": {"credentials": {"api_key": "SECOND_KEY"}}},
        },
        {**openai_row, "id": "hasty", "timeouts": {**patient, "connect_s": 1, "first_token_s": 0.5}},
        {
            "id": "spare",
            "adapter": "gemini",
            "makes": "text",
            "base_url": f"http://127.0.0.1:{spare}/v1beta",
            "credentials": {"api_key": "SPARE_KEY"},
            "timeouts": patient,
        },
    ]


def _models() -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = [
        {
            "id": name,
            "provider": "hasty" if name == "is-hasty" else "main",
            "upstream": "gpt-4o-mini",
            # A whole answer may take as long as a slow model needs for so many.
            "default_max_tokens": 64,
            "fallback": [SPARE],
            "on_first_failure": "next",
            "prices": {"input": 500_000, "output": 500_000},
        }
        for name in (*NAMES, *ROUTED)
    ]
    models.append(
        {"id": SPARE, "provider": "spare", "max_output_tokens": 16, "prices": {"input": 500_000, "output": 1_000_000}}
    )
    models.append({**models[0], "id": "is-limited", "rates": {"requests_per_minute": 1}})
    return models
