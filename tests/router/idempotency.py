"""What tests of idempotency keys ask of: claims in memory, a caller's call, and the calls between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from google.api import httpbody_pb2

from moa.idempotency.v1 import idempotency_service_pb2 as pb
from services.common.errors import NotFound, RateLimited, Unavailable
from services.common.rpc import call as calls
from services.router.dialects.reading import Reading
from services.router.domain.caller import Caller
from services.router.idempotency.calls import IdempotentCalls
from tests.router.played_books import VerifiedKey

CHAT = "/moa.router.v1.OpenAIService/CreateChatCompletion"
WHOLE = "/moa.text.v1.TextService/GenerateWholeText"
TIMEOUT_S = 10


class Person(VerifiedKey):
    """A verified key."""

    counter = "key"


class Admission:
    """Knows one key, and counts who arrives."""

    arrived = 0
    paced = False

    async def identify(self, key: str) -> Person:
        return Person("acc1")

    async def arrive(self, key: str) -> Person:
        self.arrived += 1
        if self.paced:
            raise RateLimited("too fast")
        return Person("acc1")


async def _at_once() -> None: ...


class Claims:
    """Keeps answers in memory, as auth keeps them."""

    def __init__(self) -> None:
        self.claims: dict[tuple[str, str, str], tuple[str, bytes]] = {}
        self.kept: dict[str, pb.StoredAnswer] = {}
        self.lost: dict[str, pb.LostReason.ValueType] = {}
        self.calls = 0
        self.away = 0
        self.answering: Callable[[], Awaitable[None]] = _at_once
        """Awaited when a key was claimed, before that is told."""
        self.told = asyncio.Event()
        """Set whenever something was kept, lost or freed."""

    async def claim(self, request: pb.ClaimRequest) -> pb.ClaimResponse:
        self.calls += 1
        name = (request.stranger, request.operation, request.idempotency_key)
        if name not in self.claims:
            self.claims[name] = (request.claim_id, request.fingerprint)
            await self.answering()
            return pb.ClaimResponse(begun=pb.Begun(claim_id=request.claim_id))
        claim_id, said = self.claims[name]
        if said != request.fingerprint:
            return pb.ClaimResponse(reused=pb.Reused())
        if claim_id in self.kept:
            return pb.ClaimResponse(kept=pb.Kept(claim_id=claim_id, request_id="first"))
        if claim_id in self.lost:
            return pb.ClaimResponse(lost=pb.Lost(reason=self.lost[claim_id]))
        return pb.ClaimResponse(running=pb.Running())

    @asynccontextmanager
    async def renewed(self, begun: pb.Begun) -> AsyncIterator[None]:
        yield

    async def keep(self, claim_id: str, answer: pb.StoredAnswer) -> None:
        await self._reached()
        self.kept[claim_id] = answer

    async def lose(self, claim_id: str, reason: pb.LostReason.ValueType) -> None:
        await self._reached()
        self.lost[claim_id] = reason

    async def free(self, claim_id: str) -> None:
        await self._reached()
        self.claims = {name: held for name, held in self.claims.items() if held[0] != claim_id}

    async def read(self, claim_id: str) -> pb.StoredAnswer:
        if claim_id not in self.kept:
            raise NotFound("gone")
        return self.kept[claim_id]

    async def _reached(self) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        self.told.set()


class Context:
    """A call, as its caller sees it."""

    def __init__(self, key: str = "", **headers: str) -> None:
        self._metadata = [*headers.items(), *([("idempotency-key", key)] if key else [])]
        self.headers: list[tuple[str, str]] = []
        self.messages: list[Any] = []
        self.wrote = asyncio.Event()

    def invocation_metadata(self) -> Any:
        return self._metadata

    def time_remaining(self) -> float:
        return 5.0

    async def send_initial_metadata(self, headers: Any) -> None:
        self.headers += headers

    async def write(self, message: Any) -> None:
        self.messages.append(message)
        self.wrote.set()

    @property
    def replayed(self) -> bool:
        return ("idempotent-replayed", "true") in self.headers


class World:
    """Idempotent calls, and what is behind them."""

    def __init__(self, **settings: Any) -> None:
        self.admission = Admission()
        self.claims = Claims()
        self.own_key = ""
        self.once = IdempotentCalls(
            self.admission, self.claims, begin=self._caller, reading=Reading(), secret="s", **settings
        )
        self.did = 0
        self.work: Callable[[Any, Any], Any] = self.answer
        self.went_on = asyncio.Event()

    def _caller(self, context: Any) -> Caller:
        return Caller(key="k", request_id=f"r{self.did}", own_key=self.own_key)

    async def answer(self, request: Any, context: Any) -> None:
        await context.send_initial_metadata([("x-moa-model", "m"), ("x-ratelimit-remaining-tokens", "stale")])
        await context.write(body(f"answer {self.did}"))

    async def ask(self, context: Context, said: bytes = b'{"a": 1}', method: str = CHAT, **more: Any) -> Any:
        """Ask as a call of its own."""

        async def handler(request: Any, inner: Any) -> Any:
            self.did += 1
            return await self.work(request, inner)

        calls.begin(method, "rid")
        served = self.once.around(method, handler, method == WHOLE)
        request = more.get("request") or httpbody_pb2.HttpBody(content_type="application/json", data=said)
        return await served(request, context)


def body(text: str) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type="application/json", data=text.encode())
