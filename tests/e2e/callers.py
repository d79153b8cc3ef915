"""Callers of every kind at once, each asking again and again, and what became of each request."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web

from tests.emulators.base import Emulator

PIECES = 8
PIECE_S = 0.02
TOKENS = 15
"""What an answer of `Paced` costs, prompt and all."""
THINK_S = 0.1


class Paced(Emulator):
    """A provider with OpenAI's protocol that takes its time: a piece each `PIECE_S`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [web.post("/v1/chat/completions", self._answer)]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        asked = await request.json()
        usage = {"prompt_tokens": 7, "completion_tokens": PIECES, "total_tokens": TOKENS}
        known = {"id": "c", "created": 1, "model": asked["model"]}
        if not asked.get("stream"):
            await asyncio.sleep(PIECES * PIECE_S)
            message = {"role": "assistant", "content": "word " * PIECES}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({**known, "object": "chat.completion", "choices": [choice], "usage": usage})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)

        async def say(choices: list[Any], **more: Any) -> None:
            chunk = {**known, "object": "chat.completion.chunk", "choices": choices, **more}
            await answer.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

        for _ in range(PIECES):
            await say([{"index": 0, "delta": {"content": "word "}, "finish_reason": None}])
            await asyncio.sleep(PIECE_S)
        await say([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        await say([], usage=usage)
        await answer.write(b"data: [DONE]\n\n")
        return answer


@dataclass(frozen=True)
class Asked:
    """One request. `outcome`: `ok`, `failed` (told in the dialect), `cut` (the connection broke), `silent` (it looks
    complete and is not) or `refused` (nobody took the connection)."""

    kind: str
    began: float
    ended: float
    outcome: str
    detail: str = ""


@dataclass
class Callers:
    """Callers of a gateway."""

    url: str
    key: str
    session: aiohttp.ClientSession
    asked: list[Asked] = field(default_factory=list)

    def count(self, since: float = 0.0) -> Counter[str]:
        """Count the outcomes of requests that ended after a time."""
        return Counter(asked.outcome for asked in self.asked if asked.ended >= since)

    def bad(self, since: float = 0.0) -> list[Asked]:
        """Return the requests that were not answered."""
        return [asked for asked in self.asked if asked.outcome != "ok" and asked.ended >= since]

    async def until(self, number: int) -> None:
        """Return when so many requests have ended."""
        async with asyncio.timeout(300):
            while len(self.asked) < number:
                await asyncio.sleep(0.02)

    async def chat(self) -> None:
        """Ask for a whole answer."""
        body = {"model": "paced", "messages": [{"role": "user", "content": "hi"}]}
        await self._note("chat", lambda: self._json("POST", "/v1/chat/completions", body, "choices"))

    async def stream(self) -> None:
        """Ask for a streamed answer."""
        body = {"model": "paced", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        await self._note("stream", lambda: self._streamed("/v1/chat/completions", body))

    async def task(self) -> None:
        """Have a picture made by a task, and look until it is there."""
        image = {"model": "moa-tiny-image", "prompt": "pause=0.05 steps=4", "width": 64, "height": 64}
        made: dict[str, Any] = {}
        body = {"work": {"image": image}}
        await self._note("task", lambda: self._json("POST", "/v1/tasks", body, "task", into=made))
        until = time.monotonic() + 60
        while made:
            path = f"/v1/tasks/{made['task']['id']}"
            await self._note("look", lambda path=path: self._json("GET", path, None, "task", into=made))  # type: ignore[misc]
            state = made["task"]["state"]
            if state == "TASK_STATE_SUCCEEDED":
                return
            assert "FAIL" not in state, made
            assert time.monotonic() < until, made
            await asyncio.sleep(THINK_S)

    async def prediction(self) -> None:
        """Have a picture made and wait for it, by a request that may be sent again."""
        body = {"input": {"prompt": "pause=0.05 steps=4", "size": "64x64"}}
        again = {"Idempotency-Key": str(uuid4()), "Prefer": "wait=60"}
        path = "/v1/models/openai/gpt-image-1/predictions"
        await self._note("prediction", lambda: self._json("POST", path, body, "output", headers=again))

    async def _note(self, kind: str, ask: Callable[[], Awaitable[tuple[str, str]]]) -> None:
        began = time.monotonic()
        try:
            outcome, detail = await ask()
        except aiohttp.ClientConnectorError as error:
            outcome, detail = "refused", repr(error)
        except (aiohttp.ClientError, ConnectionError) as error:
            outcome, detail = "cut", repr(error)
        self.asked.append(Asked(kind, began, time.monotonic(), outcome, detail[:300]))

    async def _json(
        self,
        method: str,
        path: str,
        body: Any,
        wanted: str,
        *,
        into: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[str, str]:
        async with self.session.request(method, self.url + path, json=body, headers=headers) as answer:
            told = await answer.json()
        if answer.ok and told.get(wanted):
            if into is not None:
                into.update(told)
            return "ok", ""
        said = "error" in told or "code" in told
        return "failed" if not answer.ok and said else "silent", f"{answer.status} {told}"

    async def _streamed(self, path: str, body: Any) -> tuple[str, str]:
        async with self.session.post(self.url + path, json=body) as answer:
            text = await answer.text()
        if answer.ok and text.endswith("data: [DONE]\n\n") and '"error"' not in text:
            return ("ok", "") if text.count("word") == PIECES else ("silent", text)
        return "failed" if '"error"' in text else "silent", f"{answer.status} {text[-200:]}"


@asynccontextmanager
async def calling(url: str, key: str, *, each: int = 2, kinds: Sequence[str] = ()) -> AsyncIterator[Callers]:
    """Yield callers at work, `each` of every kind; on leaving each ends what it has begun."""
    headers = {"Authorization": f"Bearer {key}"}
    # On a kept connection a request may be sent to who has just died.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        callers = Callers(url, key, session)
        over = asyncio.Event()

        async def ask_on(ask: Callable[[], Awaitable[None]], pause_s: float) -> None:
            await asyncio.sleep(pause_s)
            while not over.is_set():
                await ask()
                await asyncio.sleep(THINK_S)

        asks = [getattr(callers, kind) for kind in kinds or ("chat", "stream", "task")]
        async with asyncio.TaskGroup() as group:
            for number in range(each):
                for place, ask in enumerate(asks):
                    group.create_task(ask_on(ask, (number + place / len(asks)) * THINK_S / each))
            try:
                yield callers
            finally:
                over.set()
