"""`make hosts`: two of each service with addresses of their own, each killed, frozen, cut off and slowed under load.

The pods of the Helm chart as `deploy.container.pods` runs them. Callers ask both edges, as behind a load balancer. It
prints for each fault how they fared, and ends with 1 where a law does not hold: nobody gets more than its quota, what
was answered is charged, every task is done and charged once, the ledger balances, and every failure is an error in
words, or, of a process that died, a connection that ends. At the end the database fails over twice: to a server that
has every commit, and to one that lacks the last seconds, of which it says what was lost. Fifteen minutes; the figures
of a machine that does nothing else count.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from deploy.build.breaking import NOT_RUN
from deploy.build.chart import ROOT
from deploy.container import pods, provider
from deploy.container.callers import TOKENS, Callers
from deploy.container.disks import Disks, removed
from deploy.container.failover import Servers
from deploy.container.faults import Clocks, Fault, Ways, done, faults
from deploy.container.trial import Broken, Engine, NotHere, build, call, engine, fetch_bases, works
from deploy.local.ports import Ports

FAULT_S: Final = 8.0
"""How long a fault lasts."""
RECOVERY_S: Final = 8.0
"""How long callers are watched after it."""
LITTLE: Final = 3_000
"""Tokens of the day that one key has."""
BEHIND_S: Final = 3
"""For how long the database that takes over was cut off from the other, where commits do not wait for it."""
DISKS: Final = {"moa-db": 400, "moa-db-2": 400, "moa-router-0": 4, "moa-objects": 48}
"""Megabytes of disks that are filled, by the names of their volumes."""


@dataclass(frozen=True)
class Trial:
    """What runs, and who may ask it."""

    tools: Engine
    ways: Ways
    clocks: bool
    servers: Servers
    urls: Sequence[str]
    key: str

    def callers(self) -> Callers:
        """Return callers with a fresh key of few tokens."""
        return Callers(self.urls, self.key, asyncio.run(key_with_little(self.urls[0], self.key)))


async def suffered(callers: Callers, faults: Iterable[Callable[[], Fault]], only: Sequence[str]) -> None:
    """Do one fault after the other while callers ask, and print how they fared."""
    print("  answered, refused in words, cut (by a process that died), broken, longest without an answer")
    print(f"  {'':32} {'chats':>30} {'streams':>32}")
    async with callers.asking():
        begin = time.monotonic()
        await asyncio.sleep(RECOVERY_S)
        _row("nothing", callers, begin)
        for make in faults:
            fault = await asyncio.to_thread(make)
            if only and not any(word in fault.name for word in only):
                continue
            begin = time.monotonic()
            await asyncio.to_thread(done, fault.begin)
            await asyncio.sleep(FAULT_S)
            await asyncio.to_thread(done, fault.end)
            await asyncio.sleep(RECOVERY_S)
            _row(fault.name, callers, begin)


def _row(name: str, callers: Callers, begin: float) -> None:
    now = time.monotonic()
    print(f"  {name:32} {callers.chats.between(begin, now)}   {callers.streams.between(begin, now)}", flush=True)
    for kind, seen in (("chats", callers.chats), ("streams", callers.streams)):
        for words, count in seen.reasons(begin).most_common(4):
            print(f"  {'':32} {kind}: {count} × {words}", flush=True)


def wrong(tools: Engine, callers: Callers) -> list[str]:
    """Return which laws do not hold that hold whatever the database lost."""
    found = []
    audit = (*tools.run, "exec", "moa-auth-1", "python", "-m", "services.auth", "audit", "--full")
    if not works(*audit):
        found.append(f"the ledger does not balance: {call(*audit[:-1], '--json')}")
    if callers.unfinished:
        found.append(f"tasks not done: {callers.unfinished}")
    if callers.images_charged > len(callers.tasks) + callers.not_made:
        found.append(f"{callers.images_charged} images are charged, of {len(callers.tasks)} tasks")
    for name, seen in (("chats", callers.chats), ("streams", callers.streams), ("bounded", callers.bounded)):
        broken = sum(outcome == "broken" for _, outcome in seen.outcomes)
        if broken:
            found.append(f"{name}: {broken} broken: {seen.reasons(0.0).most_common(4)}")
    return found


def lost(callers: Callers) -> list[str]:
    """Return what was acknowledged and is nowhere: nothing, where every commit outlives the server that took it."""
    found = []
    if callers.bounded.answered * TOKENS > LITTLE:
        found.append(f"{callers.bounded.answered} answers of {TOKENS} tokens on a quota of {LITTLE}")
    answered = (callers.chats.answered + callers.streams.answered + callers.bounded.answered) * TOKENS
    if callers.charged < answered:
        found.append(f"{callers.charged} tokens are charged, and {answered} were answered")
    if callers.unknown:
        found.append(f"nobody knows {callers.unknown} of {len(callers.tasks)} tasks any more")
    done_ones = len(callers.tasks) - callers.unknown - len(callers.unfinished)
    if callers.images_charged < done_ones:
        found.append(f"{callers.images_charged} images are charged, and {done_ones} tasks were done")
    return found


async def key_with_little(url: str, key: str) -> str:
    """Return a key that has few tokens a day."""
    body = {"name": "little", "limits": {"tokens_a_day": LITTLE}}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/account/keys", json=body, headers={"Authorization": f"Bearer {key}"}) as answer,
    ):
        made = await answer.json()
        if answer.status >= 300:
            raise Broken(f"no key: {made}")
        return str(made["secret"] if "secret" in made else made["api_key"])


def provided(tools: Engine) -> None:
    """Start the provider, from the image and this folder."""
    folder = ROOT / "deploy"
    words = ("--network-alias", "provider", "--volume", f"{folder}:/src/deploy:ro", "--env", "PYTHONPATH=/src")
    module = ("docker.io/library/moa", "python", "-m", "deploy.container.provider")
    call(*tools.run, "run", "-d", "--name", "moa-provider", "--network", pods.NETWORK, *words, *module)


@contextlib.contextmanager
def running(tools: Engine) -> Iterator[Trial]:
    """Yield two of each and a database, with callers' keys; on leaving end all of it. Raises NotHere or Broken."""
    with contextlib.ExitStack() as stack:
        ports = Ports()
        urls = [f"http://127.0.0.1:{ports.any()}" for _ in range(2)]
        values = {
            "image": {"repository": "docker.io/library/moa", "tag": "latest"},
            "inferenceImage": {"repository": "docker.io/library/moa-inference", "tag": "latest"},
            "connectionAgeSeconds": 20,
            "settings": {
                "MOA_PUBLIC_URL": urls[0],
                "MOA_SERVERS": f"steady=http://provider:{provider.PORT}",
                # A process that was killed loads it at once, and not with the first task, which would wait for it.
                "MOA_PRELOAD": "moa-tiny-image",
            },
            "processes": {"router": {"journal": {"size": ""}}},
        }
        clocks = Clocks(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moa-clocks-"))))
        if not clocks.possible:
            print("  no C compiler here: clocks stay right")
        stack.callback(removed, tools, DISKS)
        stack.enter_context(pods.network(tools))
        disks = Disks(tools, DISKS, pods.NETWORK)
        servers = Servers(tools, disks, secrets.token_hex(16))
        servers.begin()
        release = dataclasses.replace(
            pods.release(values, servers.url),
            volumes={"moa-router-0:/moa/state/router": "moa-router-0"},
            words_of=clocks.words_of,
        )
        provided(tools)
        pods.migrated(tools, release)
        pods.begun(tools, release, [int(url.rpartition(":")[2]) for url in urls])
        pods.serving(tools, release, replicas=2)
        yield Trial(tools, Ways(tools, clocks, disks), clocks.possible, servers, urls, pods.first_key(tools))


def trial(only: Sequence[str], *, builds: bool) -> list[str]:
    """Do all of it; return which laws do not hold. Raises NotHere or Broken."""
    tools = engine()
    fetch_bases(tools)
    if builds:
        build(tools)
    with running(tools) as begun:
        one, other, servers = begun.servers.one, begun.servers.other, begun.servers

        def followed() -> Fault:
            servers.followed(one, other, synchronously=True)
            return servers.failover(one, other)

        every = [*faults(begun.ways, clocks=begun.clocks), followed]
        if only:
            every = [make for make in every if make is not followed or any(word in "failover" for word in only)]
        callers = begun.callers()
        asyncio.run(suffered(callers, every, only))
        report(callers)
        found = [*wrong(tools, callers), *lost(callers)]
        if followed in every:
            servers.followed(other, one, synchronously=False)
            fault = servers.failover(other, one, cut=begun.ways.cut(one), behind_s=BEHIND_S)
            callers = begun.callers()
            asyncio.run(suffered(callers, [lambda: fault], ()))
            report(callers)
            found += wrong(tools, callers)
            for each in lost(callers):
                print(f"  lost with a database that was {BEHIND_S} s behind: {each}")
        return found
    raise AssertionError


def report(callers: Callers) -> None:
    """Print what became of tasks, and of the key with few tokens."""
    for words, count in callers.bounded.reasons(0.0).most_common(6):
        print(f"  the key with {LITTLE} tokens: {count} × {words}")
    print(f"  the key with {LITTLE} tokens: {callers.bounded.answered} answers of {TOKENS}")
    tasks, unfinished = len(callers.tasks), len(callers.unfinished)
    print(f"  tasks: {tasks}, not done {unfinished}, unknown {callers.unknown}, not made {callers.not_made};", end=" ")
    print(f"the longest took {callers.longest_s:.1f} s; {callers.images_charged} images are charged")


def main(arguments: Sequence[str]) -> int:
    """Return 0 where every law holds, 77 where it cannot be tried here."""
    parser = argparse.ArgumentParser(
        prog="make hosts ARGS=", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faults", nargs="*", help="words in the names of those to try, such as killed; none: all")
    parser.add_argument("--built", action="store_true", help="use the images that there are, and build none")
    asked = parser.parse_args(arguments)
    try:
        found = trial(asked.faults, builds=not asked.built)
    except NotHere as error:
        print(f"hosts: {error}")
        return NOT_RUN
    except Broken as error:
        print(f"hosts: {error}", file=sys.stderr)
        return 1
    for each in found:
        print(f"hosts: {each}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
