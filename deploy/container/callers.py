"""Callers of a gateway that may fail: chats, streams, tasks, and one key with little left, and how they fared."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import aiohttp

from deploy.container.provider import MODEL, PROMPT_TOKENS, WORDS

TOKENS: Final = PROMPT_TOKENS + WORDS
"""Of one answer."""
_EVERY_S: Final = 0.1
_WAIT_S: Final = 20.0
_SILENT_S: Final = 0.5
"""From how long without one answer callers are without the service."""
_TASKS_S: Final = 180.0


@dataclass
class Seen:
    """What one kind of caller saw: when which outcome was."""

    outcomes: list[tuple[float, str]] = field(default_factory=list)
    words: list[tuple[float, str]] = field(default_factory=list)
    """Of what was not answered."""

    def add(self, outcome: str, why: str = "") -> None:
        """Count an outcome: `answered`, `refused` in words, `cut`, of whose end the caller's own library tells, or
        `broken`: no answer, or one that looks whole and is not."""
        self.outcomes.append((time.monotonic(), outcome))
        if outcome != "answered":
            self.words.append((time.monotonic(), f"{outcome}: {why[:160]}"))

    def between(self, begin: float, end: float) -> str:
        """Return how callers fared in a time, and the longest time without one answer."""
        found = [(at, outcome) for at, outcome in self.outcomes if begin <= at < end]
        count = Counter(outcome for _, outcome in found)
        good = [begin, *(at for at, outcome in found if outcome == "answered"), end]
        gap = max(after - before for before, after in itertools.pairwise(good))
        away = f"{gap:4.1f} s" if gap > _SILENT_S else "   -  "
        return f"{count['answered']:5d} {count['refused']:5d} {count['cut']:5d} {count['broken']:5d} {away}"

    def reasons(self, begin: float, end: float = float("inf")) -> Counter[str]:
        """Return why requests were not answered in a time, and how often."""
        return Counter(words for at, words in self.words if begin <= at < end)

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
        self.unfinished: list[str] = []
        self.unknown = 0
        """Tasks of which nothing is known any more."""
        self.longest_s = 0.0
        """Of the tasks that were done, from creation to end."""
        self.charged, self.images_charged = 0, 0
        """Tokens and images, since the block began."""

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
            before = await self._charges()
            running = [asyncio.create_task(each) for each in work]
            try:
                yield
            finally:
                for each in running:
                    each.cancel()
                await asyncio.gather(*running, return_exceptions=True)
            await self._ended()
            tokens, images = await self._charges()
            self.charged, self.images_charged = tokens - before[0], images - before[1]

    async def _again(self, act: Callable[[], Any], pause_s: float) -> None:
        while True:
            await act()
            await asyncio.sleep(pause_s)

    @contextlib.asynccontextmanager
    async def _asked(self, path: str, body: object, key: str, **head: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the answer of the first edge that can be reached."""
        self._turn += 1
        turn = self._turn  # others have theirs meanwhile
        head = {"Authorization": f"Bearer {key}", **head}
        for number in range(len(self._urls)):
            url = self._urls[(turn + number) % len(self._urls)]
            try:
                async with self._session.post(url + path, json=body, headers=head) as answer:
                    yield answer
                return
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                if number == len(self._urls) - 1:
                    raise

    def _chat(self, seen: Seen, key: str) -> Callable[[], Any]:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": WORDS,
        }

        async def act() -> None:
            try:
                async with self._asked("/v1/chat/completions", body, key) as answer:
                    found = await answer.json()
                    if answer.status == 200:
                        seen.add("answered" if found["choices"][0]["finish_reason"] == "stop" else "broken")
                    else:
                        seen.add("refused", f"{answer.status} {found['error']['message']}")
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                seen.add("cut", repr(error))
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
                seen.add("broken", repr(error))

        return act

    def _stream(self) -> Callable[[], Any]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": True}

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
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                self.streams.add("cut", repr(error))
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
        """Wait for the tasks, and keep those that did not succeed."""
        ends = time.monotonic() + _TASKS_S
        left, states = list(self.tasks), dict[str, str]()
        while left and time.monotonic() < ends:
            still = []
            for each in left:
                head = {"Authorization": f"Bearer {self._key}"}
                async with self._session.get(f"{self._urls[0]}/v1/predictions/{each}", headers=head) as answer:
                    found = await answer.json() if answer.status == 200 else {"status": str(answer.status)}
                    if found["status"] != "succeeded":
                        still.append(each)
                        states[each] = f"{found['status']} {found.get('error') or ''} {found.get('created_at', '')}"
                    else:
                        made, ended = (datetime.fromisoformat(found[at]) for at in ("created_at", "completed_at"))
                        self.longest_s = max(self.longest_s, (ended - made).total_seconds())
            left = still
            if all(states[each].startswith("404") for each in left):
                break
            await asyncio.sleep(1.0)
        gone = [each for each in left if states[each].startswith("404")]
        self.unknown = len(gone)
        self.unfinished = [f"{each}: {states[each]}" for each in left if each not in gone]

    async def _charges(self) -> tuple[int, int]:
        """Return the tokens of chats and streams and the images of tasks that were charged until now."""
        head = {"Authorization": f"Bearer {self._key}"}
        async with self._session.get(f"{self._urls[0]}/account/usage?group_by=model", headers=head) as answer:
            rows = (await answer.json()).get("rows", [])
        ours = [row for row in rows if str(row.get("model", "")).endswith(MODEL)]
        tokens = sum(int(row.get(kind, 0)) for row in ours for kind in ("prompt_tokens", "completion_tokens"))
        return tokens, sum(int(row.get("charged_images", 0)) for row in rows)
