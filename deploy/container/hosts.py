"""`make hosts`: two of each service with addresses of their own; each is killed, frozen, cut off and slowed under load.

The pods of the Helm chart as `deploy.container.pods` runs them. Callers ask both edges, as behind a load balancer: chats,
streams, tasks, and one key with little left. It prints for each fault how callers fared, and ends with 1 where a law does
not hold: nobody gets more than its quota, what was answered is charged, every task is done once, the ledger balances,
and every failure is an error in words. Five to ten minutes; the figures of a machine that does nothing else count.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from deploy.build.breaking import NOT_RUN
from deploy.container import pods, provider
from deploy.container.trial import Broken, Engine, NotHere, build, call, engine, fetch_bases, tell, works
from deploy.local.ports import Ports

FAULT_S: Final = 8.0
"""How long a fault lasts."""
RECOVERY_S: Final = 8.0
"""How long callers are watched after it."""
LITTLE: Final = 3_000
"""Tokens of the day that one key has."""
_TOKENS: Final = provider.PROMPT_TOKENS + provider.WORDS
_EVERY_S: Final = 0.1
_WAIT_S: Final = 20.0
_SILENT_S: Final = 0.5
"""From how long without one answer callers are without the service."""


@dataclass
class Seen:
    """What one kind of caller saw: when which outcome was."""

    outcomes: list[tuple[float, str]] = field(default_factory=list)
    words: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: str, why: str = "") -> None:
        """Count an outcome: `answered`, `refused` in words, or `broken`."""
        self.outcomes.append((time.monotonic(), outcome))
        if outcome != "answered":
            self.words[f"{outcome}: {why[:160]}"] += 1

    def between(self, begin: float, end: float) -> str:
        """Return how callers fared in a time, and the longest time without one answer."""
        found = [(at, outcome) for at, outcome in self.outcomes if begin <= at < end]
        count = Counter(outcome for _, outcome in found)
        good = [begin, *(at for at, outcome in found if outcome == "answered"), end]
        gap = max(after - before for before, after in zip(good, good[1:], strict=False))
        away = f"{gap:4.1f} s" if gap > _SILENT_S else "   -  "
        return f"{count['answered']:5d} {count['refused']:5d} {count['broken']:5d} {away}"

    @property
    def answered(self) -> int:
        """Return how many were answered."""
        return sum(outcome == "answered" for _, outcome in self.outcomes)


class Callers:
    """Ask the gateway until they are ended.

    Args:
        urls: The edges. The next is asked where one cannot be reached, as a load balancer does.
        key: Of who asks.
        little: A key with few tokens.
    """

    def __init__(self, urls: Sequence[str], key: str, little: str) -> None:
        self._urls = urls
        self._key = key
        self._little = little
        self._turn = 0
        self.chats, self.streams, self.bounded = Seen(), Seen(), Seen()
        self.tasks: list[str] = []
        self.not_made = 0

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask while the block runs."""
        limit = aiohttp.ClientTimeout(total=_WAIT_S, sock_connect=2.0)
        async with aiohttp.ClientSession(timeout=limit, connector=aiohttp.TCPConnector(limit=0)) as self._session:
            work = [
                *(self._again(self._chat(self.chats, self._key), 2 * _EVERY_S) for _ in range(4)),
                *(self._again(self._stream(), _EVERY_S) for _ in range(4)),
                self._again(self._chat(self.bounded, self._little), 5 * _EVERY_S),
                self._again(self._task, 4.0),
            ]
            running = [asyncio.create_task(each) for each in work]
            try:
                yield
            finally:
                for each in running:
                    each.cancel()
                await asyncio.gather(*running, return_exceptions=True)
            await self._ended()

    async def _again(self, act: Callable[[], Any], pause_s: float) -> None:
        while True:
            await act()
            await asyncio.sleep(pause_s)

    @contextlib.asynccontextmanager
    async def _asked(self, path: str, body: object, key: str, **head: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the answer of the first edge that can be reached."""
        self._turn += 1
        head = {"Authorization": f"Bearer {key}", **head}
        for number in range(len(self._urls)):
            url = self._urls[(self._turn + number) % len(self._urls)]
            try:
                async with self._session.post(url + path, json=body, headers=head) as answer:
                    yield answer
                return
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                if number == len(self._urls) - 1:
                    raise

    def _chat(self, seen: Seen, key: str) -> Callable[[], Any]:
        body = {"model": provider.MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": provider.WORDS}

        async def act() -> None:
            try:
                async with self._asked("/v1/chat/completions", body, key) as answer:
                    found = await answer.json()
                    if answer.status == 200:
                        seen.add("answered" if found["choices"][0]["finish_reason"] == "stop" else "broken")
                    else:
                        seen.add("refused", f"{answer.status} {found['error']['message']}")
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
                seen.add("broken", repr(error))

        return act

    def _stream(self) -> Callable[[], Any]:
        body = {"model": provider.MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": True}

        async def act() -> None:
            try:
                async with self._asked("/v1/chat/completions", {**body, "max_tokens": 10}, self._key) as answer:
                    text = (await answer.read()).decode()
                if answer.status != 200:
                    self.streams.add("refused", f"{answer.status} {json.loads(text)['error']['message']}")
                elif text.rstrip().endswith("[DONE]"):
                    self.streams.add("answered")
                elif '"error"' in text:
                    self.streams.add("refused", text[text.rindex('"error"') :])
                else:
                    self.streams.add("broken", f"ends with {text[-60:]!r}")
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
                self.streams.add("broken", repr(error))

        return act

    async def _task(self) -> None:
        body = {"input": {"prompt": f"a red circle {len(self.tasks)}", "num_inference_steps": 2}}
        path = "/v1/models/local/moa-tiny-image/predictions"
        # With a key of its own for each: one that had to be sent again is not done again.
        head = {"Prefer": "respond-async", "Idempotency-Key": secrets.token_hex(8)}
        for _ in range(5):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError):
                async with self._asked(path, body, self._key, **head) as answer:
                    if answer.status < 300:
                        self.tasks.append((await answer.json())["id"])
                        return
            await asyncio.sleep(1.0)
        self.not_made += 1

    async def _ended(self) -> None:
        """Wait for the tasks; keep those that did not succeed."""
        ends = time.monotonic() + 180
        left = list(self.tasks)
        while left and time.monotonic() < ends:
            still = []
            for each in left:
                head = {"Authorization": f"Bearer {self._key}"}
                async with self._session.get(f"{self._urls[0]}/v1/predictions/{each}", headers=head) as answer:
                    if answer.status != 200 or (await answer.json())["status"] != "succeeded":
                        still.append(each)
            left = still
            await asyncio.sleep(1.0)
        self.unfinished = left


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

    def apart(self, one: str, other: str) -> Fault:
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
    return [
        *(lambda name=name: ways.killed(name) for name in (*ones, "moa-edge-0", "moa-db")),  # type: ignore[misc]
        *(lambda name=name: ways.frozen(name) for name in (*ones, "moa-db")),  # type: ignore[misc]
        *(lambda name=name: ways.cut(name) for name in ones),  # type: ignore[misc]
        *(lambda a=a, b=b: ways.apart(f"moa-{a}-0", f"moa-{b}-0") for a, b in pairs),  # type: ignore[misc]
        lambda: ways.apart("moa-auth-0", "moa-db"),
        lambda: ways.slow("moa-router-0"),
    ]


async def suffered(tools: Engine, found: pods.Release, callers: Callers, only: Sequence[str]) -> None:
    """Do one fault after the other while callers ask, and print how they fared."""
    ways = Ways(tools, found)
    print("  answered, refused in words, broken, longest without an answer")
    print(f"  {'':32} {'chats':>24} {'streams':>24}")
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
                await asyncio.to_thread(call, *line)
            await asyncio.sleep(FAULT_S)
            for line in fault.end:
                await asyncio.to_thread(call, *line)
            await asyncio.sleep(RECOVERY_S)
            _row(fault.name, callers, begin)


def _row(name: str, callers: Callers, begin: float) -> None:
    now = time.monotonic()
    print(f"  {name:32} {callers.chats.between(begin, now)}   {callers.streams.between(begin, now)}", flush=True)


def wrong(tools: Engine, callers: Callers, urls: Sequence[str], key: str, little: str) -> list[str]:
    """Return which laws do not hold."""
    found = []
    audit = (*tools.run, "exec", "moa-auth-1", "python", "-m", "services.auth", "audit", "--full")
    if not works(*audit):
        found.append(f"the ledger does not balance: {call(*audit[:-1], '--json')}")
    if callers.bounded.answered * _TOKENS > LITTLE:
        found.append(f"{callers.bounded.answered} answers of {_TOKENS} tokens on a quota of {LITTLE}")
    if callers.unfinished:
        found.append(f"tasks not done: {callers.unfinished}")
    for name, seen in (("chats", callers.chats), ("streams", callers.streams), ("bounded", callers.bounded)):
        broken = sum(outcome == "broken" for _, outcome in seen.outcomes)
        if broken:
            found.append(f"{name}: {broken} broken: {seen.words.most_common(4)}")
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
    folder = f"{pods.CHART.parents[2]}/deploy"
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
        for name, seen in (("chats", callers.chats), ("streams", callers.streams), ("bounded", callers.bounded)):
            for words, count in seen.words.most_common(6):
                print(f"  {name}: {count} × {words}")
        print(f"  tasks: {len(callers.tasks)}, of which not done {len(callers.unfinished)}; not made {callers.not_made}")
        print(f"  the key with {LITTLE} tokens: {callers.bounded.answered} answers of {_TOKENS}")
        return wrong(tools, callers, urls, key, little)
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
