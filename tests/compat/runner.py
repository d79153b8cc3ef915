"""Ask a client's program what the table says, and judge what it answers and what its provider was sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from tests.compat import environments
from tests.compat.client import CALLS, PLOTS, Client
from tests.compat.environments import Unavailable
from tests.compat.plots import Plot
from tests.compat.world import EMBEDDINGS, IMAGES, MODELS, PREDICTED, World

PROGRAMS: Final = Path(__file__).parent / "programs"
ANSWER_S: Final = 120
"""How long a scenario may take, the client's own start included."""
_LINE_BYTES: Final = 2**24


@dataclass(frozen=True)
class Result:
    """What became of one scenario. `why` is empty where all is well."""

    client: str
    vendor: str
    scenario: str
    why: str = ""
    forgets: bool = False
    """Whether the client kept no thoughts."""


async def run(client: Client, world: World, log: IO[bytes], scratch: Path) -> AsyncIterator[Result]:
    """Yield the result of each scenario of a client."""
    rows = [(vendor, scenario) for vendor, asked in client.scenarios.items() for scenario in asked]
    try:
        command = await asyncio.to_thread(command_of, client)
    except Unavailable as unavailable:
        for vendor, scenario in rows:
            yield Result(client.name, vendor, scenario, f"not run: {unavailable}")
        return
    left = deque(rows)
    while left:
        async with _started(command, log, scratch) as process:
            while left and process.returncode is None:
                vendor, scenario = left.popleft()
                why = await _asked(client, world, process, vendor, scenario)
                forgets = vendor == "claude" and scenario in client.forgets
                yield Result(client.name, vendor, scenario, why, forgets)


def command_of(client: Client) -> list[str]:
    """Return what starts a client's program. Raises Unavailable."""
    if client.replays:
        return [sys.executable, str(PROGRAMS / client.program)]
    if client.program.endswith(".py"):
        return [str(environments.python(client.lock)), str(PROGRAMS / client.program)]
    folder = environments.node(client.lock.removeprefix("node-"))
    # Node looks for packages beside the program.
    for source in PROGRAMS.glob("*.mjs"):
        shutil.copy(source, folder / source.name)
    node = folder / "node_modules" / "node" / "bin" / "node"
    return [str(node) if node.exists() else "node", str(folder / client.program)]


@contextlib.asynccontextmanager
async def _started(command: list[str], log: IO[bytes], scratch: Path) -> AsyncIterator[Process]:
    scratch.mkdir(parents=True, exist_ok=True)
    kept = ("PATH", "LANG", "TMPDIR", "SSL_CERT_FILE")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    # What a client finds of its user, keys and settings, is none of its test.
    environment |= {"HOME": str(scratch), "NO_PROXY": "*", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=log,
        cwd=scratch,
        env=environment,
        limit=_LINE_BYTES,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            await _end(process)


async def _end(process: Process) -> None:
    """End a program that hangs, with what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _asked(client: Client, world: World, process: Process, vendor: str, scenario: str) -> str:
    """Return why a scenario failed; nothing where it did not."""
    plot = client.plots.get(scenario) or PLOTS[scenario]
    world.fakes.begin(plot, forgets=scenario in client.forgets)
    models = {"images": IMAGES, "embeddings": EMBEDDINGS}.get(scenario, MODELS)
    if client.dialect == "replicate":
        models = PREDICTED
    question = {
        "client": client.name,
        "scenario": scenario,
        "vendor": vendor,
        "dialect": client.dialect,
        "model": client.models.get(vendor, models[vendor]),
        "url": world.url,
        "key": world.key,
        "text": plot.text,
    }
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(question).encode() + b"\n")
        await process.stdin.drain()
        line = await asyncio.wait_for(process.stdout.readline(), ANSWER_S)
    except TimeoutError:
        await _end(process)
        return f"no answer within {ANSWER_S} s"
    except ConnectionError:
        await process.wait()
        return f"the program ended with {process.returncode}"
    if not line:
        await process.wait()
        return f"the program ended with {process.returncode}"
    problems = _judged(client, scenario, vendor, plot, json.loads(line))
    if scenario not in ("images", "embeddings", "refused", "task", "count"):
        problems += world.fakes.problems(vendor)
    return "; ".join(problems)


def _judged(client: Client, scenario: str, vendor: str, plot: Plot, answer: Mapping[str, Any]) -> list[str]:
    if scenario == "refused":
        return [] if answer.get("status") == 429 else [f"expected status 429, got {answer!r}"[:400]]
    if "failed" in answer:
        return [str(answer["failed"]).strip()]
    expected: Any = plot.text if plot.outcome is None else plot.outcome
    if scenario.startswith("structured"):
        expected = dict(plot.value)
    elif scenario == "task":
        expected = "succeeded"
    elif scenario == "images":
        expected = ["png"]
    elif scenario == "embeddings":
        size = {"openai": 1536, "gemini": 3072, "claude": 1024}[vendor]
        expected = [[size, 1.0], [size, 3.0]]
    problems = [] if answer["said"] == expected else [f"expected {expected!r}, got {answer['said']!r}"[:400]]
    calls = [list(call) for call in CALLS] if scenario in client.loops and client.counts else []
    if sorted(answer["called"], key=json.dumps) != sorted(calls, key=json.dumps):
        problems.append(f"the tools were called with {answer['called']!r}")
    return problems
