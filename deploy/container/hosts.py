"""`make hosts`: two of each service with addresses of their own, each killed, frozen, cut off and slowed under load.

The pods of the Helm chart as `deploy.container.pods` runs them. Callers ask both edges, as behind a load balancer. It
prints for each fault how they fared, and ends with 1 where a law does not hold: nobody gets more than its quota, what
was answered is charged, every task is done, the ledger balances, and every failure is an error in words, or, of a
process that died, a connection that ends. Ten minutes; the figures of a machine that does nothing else count.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from deploy.build.breaking import NOT_RUN
from deploy.build.chart import ROOT
from deploy.container import pods, provider
from deploy.container.callers import TOKENS, Callers
from deploy.container.trial import Broken, Engine, NotHere, build, call, engine, fetch_bases, works
from deploy.local.ports import Ports

FAULT_S: Final = 8.0
"""How long a fault lasts."""
RECOVERY_S: Final = 8.0
"""How long callers are watched after it."""
LITTLE: Final = 3_000
"""Tokens of the day that one key has."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, and how it is put right."""

    name: str
    begin: Sequence[Sequence[str]]
    end: Sequence[Sequence[str]]


class Ways:
    """What can be done to containers of an engine."""

    def __init__(self, tools: Engine, found: pods.Release) -> None:
        self._run = tools.run
        self._found = found

    def inspected(self, name: str, what: str) -> str:
        """Return what the engine knows of a container."""
        return call(*self._run, "inspect", "--format", what, name).strip()

    def address(self, name: str) -> str:
        """Return a container's address."""
        return self.inspected(name, f'{{{{(index .NetworkSettings.Networks "{pods.NETWORK}").IPAddress}}}}')

    def killed(self, name: str) -> Fault:
        """Return that a process is killed, and started again."""
        return Fault(f"{name} killed", [(*self._run, "kill", "-s", "KILL", name)], [(*self._run, "start", name)])

    def frozen(self, name: str) -> Fault:
        """Return that a host stands still, and goes on."""
        return Fault(f"{name} frozen", [(*self._run, "pause", name)], [(*self._run, "unpause", name)])

    def cut(self, name: str) -> Fault:
        """Return that nobody reaches a host, nor it anybody."""
        within = ("nsenter", "-t", self.inspected(name, "{{.State.Pid}}"), "-n", "ip", "link", "set", "eth0")
        return Fault(f"{name} cut off", [(*within, "down")], [(*within, "up")])

    def parted(self, one: str, other: str) -> Fault:
        """Return that two hosts do not reach each other, and everybody else does."""
        begin, end = [], []
        for here, there in ((one, other), (other, one)):
            within = ("nsenter", "-t", self.inspected(here, "{{.State.Pid}}"), "-n", "ip", "route")
            begin.append((*within, "add", "blackhole", f"{self.address(there)}/32"))
            end.append((*within, "del", "blackhole", f"{self.address(there)}/32"))
        return Fault(f"{one} | {other}", begin, end)

    def slow(self, name: str) -> Fault:
        """Return that a host's link carries 256 kbit/s."""
        within = ("nsenter", "-t", self.inspected(name, "{{.State.Pid}}"), "-n", "tc", "qdisc")
        rate = ("rate", "256kbit", "burst", "16kb", "latency", "400ms")
        begin = (*within, "add", "dev", "eth0", "root", "tbf", *rate)
        return Fault(f"{name} slow", [begin], [(*within, "del", "dev", "eth0", "root")])


def faults(ways: Ways) -> list[Callable[[], Fault]]:
    """Return what is done, in this order; each is made when it is its turn, for processes have other ids then."""
    ones = [f"moa-{name}-0" for name in ("router", "text", "auth", "tasks", "inference")]
    pairs = [("edge", "router"), ("router", "auth"), ("router", "text"), ("text", "auth"), ("tasks", "router")]
    one_by_one = (
        (ways.killed, (*ones, "moa-edge-0", "moa-db")),
        (ways.frozen, (*ones, "moa-db")),
        (ways.cut, ones),
        (ways.slow, ("moa-router-0",)),
    )
    partitions = [functools.partial(ways.parted, f"moa-{one}-0", f"moa-{other}-0") for one, other in pairs]
    return [
        *(functools.partial(way, name) for way, names in one_by_one for name in names),
        *partitions,
        functools.partial(ways.parted, "moa-auth-0", "moa-db"),
    ]


async def suffered(tools: Engine, found: pods.Release, callers: Callers, only: Sequence[str]) -> None:
    """Do one fault after the other while callers ask, and print how they fared."""
    ways = Ways(tools, found)
    print("  answered, refused in words, cut (by a process that died), broken, longest without an answer")
    print(f"  {'':32} {'chats':>30} {'streams':>32}")
    async with callers.asking():
        begin = time.monotonic()
        await asyncio.sleep(RECOVERY_S)
        _row("nothing", callers, begin)
        for make in faults(ways):
            fault = await asyncio.to_thread(make)
            if only and not any(word in fault.name for word in only):
                continue
            begin = time.monotonic()
            for line in fault.begin:
                await asyncio.to_thread(_done, line)
            await asyncio.sleep(FAULT_S)
            for line in fault.end:
                await asyncio.to_thread(_done, line)
            await asyncio.sleep(RECOVERY_S)
            _row(fault.name, callers, begin)


def _done(line: Sequence[str]) -> None:
    """Run a command; once more where it fails: a busy machine does not always freeze in time."""
    if not works(*line):
        call(*line)


def _row(name: str, callers: Callers, begin: float) -> None:
    now = time.monotonic()
    print(f"  {name:32} {callers.chats.between(begin, now)}   {callers.streams.between(begin, now)}", flush=True)
    for kind, seen in (("chats", callers.chats), ("streams", callers.streams)):
        for words, count in seen.reasons(begin).most_common(4):
            print(f"  {'':32} {kind}: {count} × {words}", flush=True)


def wrong(tools: Engine, callers: Callers) -> list[str]:
    """Return which laws do not hold."""
    found = []
    audit = (*tools.run, "exec", "moa-auth-1", "python", "-m", "services.auth", "audit", "--full")
    if not works(*audit):
        found.append(f"the ledger does not balance: {call(*audit[:-1], '--json')}")
    if callers.bounded.answered * TOKENS > LITTLE:
        found.append(f"{callers.bounded.answered} answers of {TOKENS} tokens on a quota of {LITTLE}")
    answered = (callers.chats.answered + callers.streams.answered + callers.bounded.answered) * TOKENS
    if callers.charged < answered:
        found.append(f"{callers.charged} tokens are charged, and {answered} were answered")
    if callers.unfinished:
        found.append(f"tasks not done: {callers.unfinished}")
    for name, seen in (("chats", callers.chats), ("streams", callers.streams), ("bounded", callers.bounded)):
        broken = sum(outcome == "broken" for _, outcome in seen.outcomes)
        if broken:
            found.append(f"{name}: {broken} broken: {seen.reasons(0.0).most_common(4)}")
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
    name = "moa-provider"
    words = ("--network-alias", "provider", "--volume", f"{folder}:/src/deploy:ro", "--env", "PYTHONPATH=/src")
    module = ("docker.io/library/moa", "python", "-m", "deploy.container.provider")
    call(*tools.run, "run", "-d", "--name", name, "--network", pods.NETWORK, *words, *module)


def trial(only: Sequence[str], *, builds: bool) -> list[str]:
    """Do all of it; return which laws do not hold. Raises NotHere or Broken."""
    tools = engine()
    fetch_bases(tools)
    if builds:
        build(tools)
    with contextlib.ExitStack() as stack:
        ports = Ports()
        urls = [f"http://127.0.0.1:{ports.any()}" for _ in range(2)]
        values = {
            "image": {"repository": "docker.io/library/moa", "tag": "latest"},
            "inferenceImage": {"repository": "docker.io/library/moa-inference", "tag": "latest"},
            "connectionAgeSeconds": 20,
            "settings": {"MOA_PUBLIC_URL": urls[0], "MOA_SERVERS": f"steady=http://provider:{provider.PORT}"},
            "processes": {"router": {"journal": {"size": ""}}},
        }
        stack.enter_context(pods.network(tools))
        release = pods.release(values, pods.database(tools, secrets.token_hex(16)))
        provided(tools)
        pods.migrated(tools, release)
        pods.begun(tools, release, [int(url.rpartition(":")[2]) for url in urls])
        pods.serving(tools, release, replicas=2)
        key = pods.first_key(tools)
        little = asyncio.run(key_with_little(urls[0], key))
        callers = Callers(urls, key, little)
        asyncio.run(suffered(tools, release, callers, only))
        for words, count in callers.bounded.reasons(0.0).most_common(6):
            print(f"  the key with {LITTLE} tokens: {count} × {words}")
        print(
            f"  tasks: {len(callers.tasks)}, of which not done {len(callers.unfinished)}; not made {callers.not_made}"
        )
        print(f"  the key with {LITTLE} tokens: {callers.bounded.answered} answers of {TOKENS}")
        return wrong(tools, callers)
    raise AssertionError


def main(arguments: Sequence[str]) -> int:
    """Return 0 where every law holds, 77 where it cannot be tried here. Words choose faults by their names."""
    builds = "--built" not in arguments
    try:
        found = trial([word for word in arguments if not word.startswith("--")], builds=builds)
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
