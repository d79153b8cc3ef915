"""`make rolling`: exchange every process of a gateway by those of another release, and back, under load.

Two of each service run the code of an earlier commit on a database that it made. Then, while callers ask: the new
release's migrations, its processes in place of the old ones, one after another; the old ones again, on the new schema;
and the edge's configuration anew, three times. It prints for each step how callers fared, and ends with 1 where one
request failed or the ledger does not balance.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import aiohttp
import msgspec
import psycopg
from aiohttp import web

from deploy.local import keep, once
from deploy.local.ports import Ports
from deploy.local.stack import REPOSITORY, Stack
from deploy.local.supervisor import Spec, Started, started
from services.common import logs
from tests.auth.asking import audited
from tests.e2e import callers
from tests.emulators.painter import painting

PIECE_S: Final = 0.25
PIECES: Final = 20
STEADY_S: Final = 10.0
"""How long callers are watched where nothing happens."""
DRAIN_S: Final = 20.0
"""Longer than an answer takes on a busy machine."""
_SCHEMAS: Final = ("auth", "tasks")
_PROCESSES: Final = ("auth", "text", "router", "tasks", "edge")
_WORKERS: Final = {"auth": 2, "text": 2, "router": 2, "tasks": 2, "edge": 2}


class Steady(callers.Paced):
    """Streams for five seconds, and answers whole at once."""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if asked.get("stream"):
            return await super()._answer(request)
        usage = {"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15}
        message = {"role": "assistant", "content": "word"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        known = {"id": "c", "created": 1, "model": asked["model"], "object": "chat.completion"}
        return web.json_response({**known, "choices": [choice], "usage": usage})


def checked_out(folder: Path, commit: str, *, expands: bool = False) -> Path:
    """Return a folder with the code of a commit, its stubs made; `expands`: with one migration more of each schema."""
    # Asked here and not of the clone: it knows of no other branch.
    found = _output_of("git", "rev-parse", "--verify", f"{commit}^{{commit}}", at=REPOSITORY).strip()
    _output_of("git", "clone", "--quiet", "--shared", "--no-checkout", str(REPOSITORY), str(folder), at=REPOSITORY)
    _output_of("git", "checkout", "--quiet", found, at=folder)
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    if expands:
        for service, table in (("auth", "accounts"), ("tasks", "tasks.tasks")):
            versions = folder / "services" / service / "migrations" / "versions"
            number = len(list(versions.glob("[0-9]*.sql"))) + 1
            added = f"alter table {table} add column of_the_next_release text not null default 'here';\n"
            (versions / f"{number:04}_of_the_next_release.sql").write_text(added)
    _output_of(sys.executable, "-m", "deploy.build.protos", at=folder)
    return folder


def _output_of(*line: str, at: Path) -> str:
    environment = {"PYTHONPATH": f"{at / 'gen'}:{at}", "PATH": "/usr/bin:/bin", "HOME": tempfile.gettempdir()}
    try:
        return subprocess.run(line, cwd=at, env=environment, capture_output=True, text=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"rolling: {' '.join(line)}: {error.stderr[-2000:]}") from None


class Release:
    """Which code processes are started with."""

    def __init__(self, code: Path) -> None:
        self.code = code

    def start(self, spec: Spec, folder: Path, output: BinaryIO) -> Started:
        """Start a process of this code, in whatever folder it was to be."""
        return started(replace(spec, environment=self.environment(spec.environment)), self.code, output)

    def environment(self, given: Any) -> dict[str, str]:
        """Return an environment in which this repository's code is this release's."""
        return {
            name: value.replace(f"{REPOSITORY}/", f"{self.code}/").replace(f":{REPOSITORY}", f":{self.code}")
            for name, value in given.items()
        }


@contextlib.contextmanager
def running(root: Path, old: Path, provider: int) -> Iterator[tuple[Stack, Release]]:
    """Yield a gateway of the old release's processes, on a database of its own."""
    first = (
        "import sys, pathlib; from deploy.local.stack import Stack\n"
        "with Stack(pathlib.Path(sys.argv[1]), durable=False, processes=('auth', 'tasks')): pass"
    )
    _output_of(sys.executable, "-c", first, str(root / "state"), at=old)
    token = keep.internal_secrets(root / "state" / "secrets.env")["MOA_SERVICE_TOKEN"]
    cloud = {"adapter": "openai", "makes": "text", "base_url": f"http://127.0.0.1:{provider}/v1"}
    own = {"id": "moa-tiny-image", "provider": "local-image", "capabilities": ["size"], "load": {"source": "nowhere"}}
    rows = {
        "providers": [
            {"id": "cloud", **cloud, "credentials": {"api_key": "CLOUD_KEY"}},
            {"id": "local-image", "adapter": "inference", "makes": "image"},
        ],
        "models": [{"id": "paced", "provider": "cloud"}, own],
    }
    (root / "catalogue.yaml").write_bytes(msgspec.yaml.encode(rows))
    release = Release(old)
    with painting(token) as address:
        environment = {
            "MOA_INFERENCE_ADDRESS": address,
            "MOA_CATALOGUE": str(root / "catalogue.yaml"),
            "CLOUD_KEY": "sk-good",
            "MOA_DRAIN_S": f"{DRAIN_S:g}",
        }
        stack = Stack(
            root / "state",
            durable=False,
            environment=environment,
            processes=_PROCESSES,
            workers=_WORKERS,
            start=release.start,
            tell=lambda what: print(f"    {what}", flush=True),
        )
        stack.start(wait_s=300)
        try:
            with psycopg.connect(stack.database_url) as link:
                link.execute("update accounts set images_a_day = 1000000, tokens_a_day = 1000000000")
            yield stack, release
        finally:
            stack.stop()


@contextlib.asynccontextmanager
async def load(stack: Stack, *, streams: int, rate: float) -> AsyncIterator[callers.Callers]:
    """Yield callers at work: so many streams at every moment, so many requests a second, and one who has tasks done."""
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    connector = aiohttp.TCPConnector(limit=0)
    limit = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=limit) as session:
        asking = callers.Callers(stack.url, stack.api_key, session)
        over = asyncio.Event()

        async def again(ask: Any, after_s: float) -> None:
            await asyncio.sleep(after_s)
            while not over.is_set():
                await ask()

        async with asyncio.TaskGroup() as group:

            async def paced() -> None:
                while not over.is_set():
                    group.create_task(asking.chat())
                    await asyncio.sleep(1 / rate)

            group.create_task(paced())
            group.create_task(again(asking.task, 0))
            for number in range(streams):
                group.create_task(again(asking.stream, number * PIECES * PIECE_S / streams))
            try:
                yield asking
            finally:
                over.set()


async def step(name: str, asking: callers.Callers, act: Awaitable[object]) -> int:
    """Do something, watch on for a while, and print how callers fared; return how many requests failed."""
    began = time.monotonic()
    await act
    taken = time.monotonic() - began
    await asyncio.sleep(STEADY_S)
    ended = [asked for asked in asking.asked if asked.ended >= began]
    good = [began, *sorted(asked.ended for asked in ended if asked.outcome == "ok"), time.monotonic()]
    gap = max(later - earlier for earlier, later in itertools.pairwise(good))
    bad = [asked for asked in ended if asked.outcome != "ok"]
    longest = max((asked.ended - asked.began for asked in ended), default=0.0)
    counts = f"{len(ended)} ended, {len(bad)} failed, {gap:.1f} s at most without an answer"
    print(f"{name}: {taken:.1f} s; {counts}; the longest took {longest:.1f} s", flush=True)
    for asked in bad[:8]:
        print(f"    {asked.kind} {asked.outcome} after {asked.ended - asked.began:.1f} s: {asked.detail}", flush=True)
    return len(bad)


def migrated(stack: Stack, release: Path) -> None:
    """Bring both schemas up to date by a release's own code, as its jobs do before its pods come."""
    for service in _SCHEMAS:
        environment = Release(release).environment(stack.plan.environment(service, stack.database_url))
        once.run(f"services.{service}", "migrate", environment=environment, folder=release)


def replaced(stack: Stack, release: Release, code: Path, **settings: str) -> None:
    """Have every process started anew with some code, one after another, and the edge take that code's settings."""
    release.code = code
    stack.reload(settings)
    # The stack gave the edge what this repository makes of its settings; the release's own is this.
    environment = release.environment(stack.plan.environment("edge", stack.database_url))
    once.run("gateway", "--reload", environment=environment, folder=code)


def reconfigured(stack: Stack, code: Path, idle_s: int) -> None:
    """Have the edge take another setting, and nothing else."""
    environment = Release(code).environment(stack.plan.environment("edge", stack.database_url))
    once.run("gateway", "--reload", environment={**environment, "MOA_STREAM_IDLE_S": str(idle_s)}, folder=code)


async def tried(root: Path, old: Path, new: Path, *, streams: int, rate: float) -> int:
    """Do all of it; return how many requests failed."""
    callers.PIECES, callers.PIECE_S = PIECES, PIECE_S
    provider = Steady()
    await provider.start(port := Ports().any())
    with contextlib.ExitStack() as opened:
        stack, release = await asyncio.to_thread(opened.enter_context, running(root, old, port))
        async with load(stack, streams=streams, rate=rate) as asking:
            await asyncio.sleep(PIECES * PIECE_S)
            failed = await step("the old release", asking, asyncio.sleep(STEADY_S))
            failed += await step("the new one's migrations", asking, asyncio.to_thread(migrated, stack, new))
            failed += await step("upgrade", asking, asyncio.to_thread(replaced, stack, release, new))
            failed += await step("rollback", asking, asyncio.to_thread(replaced, stack, release, old))
            for number in range(3):
                act = asyncio.to_thread(reconfigured, stack, old, 800 + number)
                failed += await step(f"the edge's configuration, {number + 1}", asking, act)
        await audited(stack.database_url)
        await asyncio.to_thread(opened.close)
    await provider.stop()
    print(f"{len(asking.asked)} requests, {failed} failed; the ledger balances")
    return failed


def main(arguments: Sequence[str]) -> int:
    """Return 0 where no request failed."""
    parser = argparse.ArgumentParser(prog="make rolling", description=__doc__)
    parser.add_argument("old", nargs="?", default="", help="a commit; by default that before the last migration")
    parser.add_argument("new", nargs="?", default="HEAD", help="a commit")
    parser.add_argument("--streams", type=int, default=200, help="at every moment")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--expands", action="store_true", help="give the new release a migration more of each schema")
    given = parser.parse_args(arguments)
    folders = [f"services/{service}/migrations/versions" for service in _SCHEMAS]
    old = given.old or _output_of("git", "log", "-1", "--format=%h^", "--", *folders, at=REPOSITORY).strip()
    logs.configure("rolling", "error")
    with tempfile.TemporaryDirectory(prefix="moa-rolling-") as name:
        root = Path(name)
        root.chmod(0o755)
        trees = [checked_out(root / "old", old), checked_out(root / "new", given.new, expands=given.expands)]
        print(f"from {old} to {given.new}: {given.streams} streams, {given.rate:g} requests a second", flush=True)
        return 1 if asyncio.run(tried(root, *trees, streams=given.streams, rate=given.rate)) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
