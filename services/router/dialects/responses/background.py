"""Responses that are made in the background: by this router, or by another should this one vanish.

The store has the queue. A making goes on while its lease is renewed, and writes under its fence; its end is stored,
with what it came to, before anything is settled here, and is booked once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from msgspec import Struct

from moa.response.v1 import response_store_service_pb2 as pb
from services.common import errors, logs
from services.common.beats import until_beat_s
from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.credential import Credential
from services.common.errors import MoaError
from services.common.rpc import call as calls
from services.quota_client import grants
from services.router.adapters.stored import ResponseStore
from services.router.dialects.reading import Body, Reading
from services.router.dialects.responses import asked
from services.router.dialects.responses.answering import Response
from services.router.dialects.responses.keeping import STATES, parted
from services.router.dialects.responses.places import as_the_caller_wrote
from services.router.dialects.responses.standing import Making, Standing
from services.router.domain.answer import Answer
from services.router.domain.caller import Caller
from services.router.domain.operations import Operations
from services.router.operations.text import TextCall
from services.router.serving import note

MOST_AT_ONCE: Final = 32
"""How many are made at once in one router; others wait."""
MOST_MAKINGS: Final = 3
"""How often one is begun whose routers vanish."""
MOST_S: Final = 3600.0
"""How long one making may take."""
POLL_S: Final = 15.0
"""How often is looked for responses that wait, or whose router vanished."""
_BEHIND_S: Final = 0.1
"""How long behind a lease's end is looked again."""
RENEW_S: Final = 1.0
"""How often leases are renewed, and heard which makings are to end."""
FLUSH_S: Final = 0.25
"""How long events wait at most before they are stored."""
_TRYING_S: Final = 60.0
"""How long the end of a response is tried to be stored."""
_PAUSE_S: Final = 0.5

_log = logs.get("background")


class Job(Struct):
    """What the making of a response needs, as it lies in the store."""

    body: bytes
    content_type: str
    earlier: int
    strict: bool
    created: int
    previous_response_id: str | None = None
    conversation: dict[str, str] | None = None
    known: list[str] = []
    fallback: bool = True
    max_wait_s: float = 0.0
    tags: list[str] = []


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Job).decode


def packed(job: Job) -> bytes:
    """Return a job as it is stored."""
    return _encode(job)


@dataclass(slots=True, eq=False)
class _Running:
    """A making that goes on."""

    made: pb.Made
    task: asyncio.Task[None] | None = None
    ends: str = ""
    """Why it is to end: `ended` by its account, `lost` to another router, or `stopping` with this one."""
    is_ending: bool = False
    """Whether its end is being stored: whether that counts is told then."""


@dataclass(slots=True)
class _Writer:
    """Stores what comes of a making, a few times a second."""

    store: ResponseStore
    made: pb.Made
    first: int
    events: list[bytes] = field(default_factory=list)
    flushed_at: float = 0.0

    def add(self, frames: bytes) -> None:
        """Take events in."""
        if frames:
            self.events += parted(frames)

    async def flush(self, body: bytes = b"") -> bool:
        """Store what waits; return whether it counted."""
        events, self.events = self.events, []
        request = pb.AppendRequest(made=self.made, body=body, events=events, first_sequence=self.first)
        self.first += len(events)
        self.flushed_at = time.monotonic()
        return await self.store.append(request)

    @property
    def is_due(self) -> bool:
        """Whether events have waited long enough."""
        return bool(self.events) and time.monotonic() - self.flushed_at >= FLUSH_S


class BackgroundResponses:
    """Makes responses in the background.

    Args:
        store: Where they are.
        operations, reading: Make them.
        service_token: The credential by which accounts are acted for.
    """

    def __init__(
        self,
        store: ResponseStore,
        operations: Operations,
        reading: Reading,
        *,
        service_token: Credential,
        poll_s: float = POLL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._operations = operations
        self._reading = reading
        self._token = service_token
        self._poll_s = poll_s
        self._clock = clock
        self._running: set[_Running] = set()
        self._polling: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopping = False

    @property
    def has_room(self) -> bool:
        """Whether another one can be made at once."""
        return not self._stopping and len(self._running) < MOST_AT_ONCE

    async def idle(self) -> None:
        """Return when nothing is being made."""
        while self._running:
            await asyncio.wait([running.task for running in self._running if running.task is not None])

    def start(self) -> None:
        """Begin to look for responses that wait."""
        self._polling = asyncio.create_task(self._poll(), name="background responses")

    async def aclose(self) -> None:
        """End, and put back what is being made: another router goes on with it."""
        self._stopping = True
        await cancel_and_wait(self._polling, self._renewing)
        for running in self._running:
            running.ends = running.ends or "stopping"
        left = list(self._running)
        await cancel_and_wait(*(running.task for running in left), again_s=CLEANING_S)
        for running in left:
            try:
                await self._store.put_back(running.made)
            except MoaError as error:
                _log.warning("response.not_put_back", why=error.message)

    async def enqueue(self, request: pb.EnqueueRequest) -> None:
        """Store a response that is to be made, and begin it here if there is room. Raises MoaError."""
        request.claims = self.has_room
        queued = await self._store.enqueue(request)
        if request.claims:
            response = request.response
            self._begin(
                pb.ClaimResponse(
                    response_id=response.response_id,
                    account_id=response.account_id,
                    key_id=request.key_id,
                    request=request.request,
                    fence=queued.fence,
                    attempt=1,
                    streamed=request.streamed,
                )
            )

    # Taking up.

    async def _poll(self) -> None:
        while True:
            pause_s = until_beat_s(self._poll_s)
            self._wake.clear()
            try:
                next_s = await self.take_up()
                pause_s = pause_s if next_s is None else min(pause_s, next_s + _BEHIND_S)
            except MoaError as error:
                _log.warning("responses.not_claimed", why=error.message)
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def take_up(self) -> float | None:
        """Take up what waits, as far as there is room; return in how many seconds more may. Raises MoaError.

        None: nothing is being made of which another may have to be taken up.
        """
        while self.has_room:
            claimed = await self._store.claim()
            if not claimed.response_id:
                return claimed.next_in.ToMilliseconds() / 1000 if claimed.HasField("next_in") else None
            self._begin(claimed)
        return None

    def _begin(self, claimed: pb.ClaimResponse) -> None:
        running = _Running(pb.Made(response_id=claimed.response_id, fence=claimed.fence))
        self._running.add(running)
        running.task = asyncio.create_task(self._made(claimed, running), name=claimed.response_id)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew(), name="background leases")

    async def _renew(self) -> None:
        """Renew leases while anything is being made."""
        while self._running:
            await asyncio.sleep(RENEW_S)
            by_id = {running.made.response_id: running for running in self._running}
            try:
                renewed = await self._store.renew([running.made for running in by_id.values()])
            except MoaError as error:
                # A lease outlasts many of these.
                _log.warning("responses.not_renewed", why=error.message)
                continue
            for why, names in (("ended", renewed.ended), ("lost", renewed.lost)):
                for running in (by_id[name] for name in names if name in by_id):
                    if running.task is not None and not running.is_ending:
                        running.ends = running.ends or why
                        running.task.cancel()

    # Making.

    async def _made(self, claimed: pb.ClaimResponse, running: _Running) -> None:
        """Make a response to its end, whatever that is."""
        call = calls.begin("background", claimed.response_id.removeprefix("resp_"))
        began = self._clock()
        try:
            async with asyncio.timeout(MOST_S):
                await self._make(claimed, running)
        except TimeoutError:
            await self._lose(running, f"it took longer than {MOST_S / 60:g} minutes")
        except asyncio.CancelledError:
            call.fields["ends"] = running.ends
        except MoaError as error:
            _log.warning("response.not_stored", why=error.message)
        except Exception:
            _log.exception("response.failed")
        finally:
            if not self._stopping:
                self._running.discard(running)
                self._wake.set()
            duration_s = round(self._clock() - began, 3)
            known = {"account": claimed.account_id, "attempt": claimed.attempt, "duration_s": duration_s}
            _log.info("response.made", **{**call.fields, **known}, request_id=call.request_id)

    async def _make(self, claimed: pb.ClaimResponse, running: _Running) -> None:
        writer = _Writer(self._store, running.made, claimed.first_sequence)
        job = _decode(claimed.request) if claimed.request else None
        answer_id = claimed.response_id.removeprefix("resp_")
        item_id = answer_id if claimed.attempt == 1 else f"{answer_id}_{claimed.attempt}"
        making = Making(answer_id, item_id, job.created if job else int(time.time()), claimed.first_sequence)
        read = await self._read(job) if job is not None else None
        if read is None or job is None:
            await self._lose(running, "what is needed to make it can be read no more")
            return
        standing = Standing(True, job.previous_response_id, True, job.conversation)
        model = read.request.model
        response = Response(model, answer_id, read.echo, streams=claimed.streamed, standing=standing, making=making)
        try:
            if claimed.attempt > MOST_MAKINGS:
                raise errors.Unavailable(f"it was interrupted {MOST_MAKINGS} times")
            # Whoever answers may take long to begin.
            await writer.flush(response.so_far())
            caller = self._caller(claimed, job, answer_id)
            with as_the_caller_wrote(read.places):
                answer: Answer[Any] = await self._operations.begin(TextCall(read.request, read.prompt), caller)
        except MoaError as error:
            writer.add(response.begin())
            response.fail(error)
            await self._end(running, writer, response, None)
            return
        async with answer:
            note(answer, caller)
            try:
                response.answered_by(answer.model.id, standing)
                await self._drain(writer, response, answer)
                counted = await self._end(running, writer, response, answer)
                running.ends = running.ends or ("" if counted else await self._why(running))
            except BaseException:
                if running.ends != "ended":
                    answer.give_up()
                raise
            if running.ends == "lost":
                answer.give_up()

    async def _read(self, job: Job) -> asked.Read:
        """Read the body. It was read when it was asked, so that it can be."""
        body = Body.of(job.body, job.content_type)
        return await self._reading(
            asked.read, body, strict=job.strict, earlier=job.earlier, stores=True, known=tuple(job.known)
        )

    def _caller(self, claimed: pb.ClaimResponse, job: Job, request_id: str) -> Caller:
        acting = grants.ActingFor(account_id=claimed.account_id, key_id=claimed.key_id)
        return Caller(
            key=grants.mint(self._token, acting),
            request_id=request_id,
            began=time.perf_counter(),
            until=time.monotonic() + MOST_S,
            fallback=job.fallback,
            tags=frozenset(job.tags),
            dialect="responses",
            max_wait_s=job.max_wait_s,
            is_durable=True,
        )

    async def _drain(self, writer: _Writer, response: Response, answer: Answer[Any]) -> None:
        writer.add(response.begin())
        if writer.is_due:
            await writer.flush()
        try:
            while (message := await answer.next()) is not None:
                writer.add(response.of(message))
                if writer.is_due and not response.is_over:
                    await writer.flush()
        except MoaError as error:
            response.fail(error)

    async def _end(self, running: _Running, writer: _Writer, response: Response, answer: Answer[Any] | None) -> bool:
        """Store the end, with what is owed for it; return whether it counted. Raises MoaError when that failed."""
        running.is_ending = True
        writer.add(response.end())
        finish = pb.FinishRequest(
            made=writer.made,
            state=STATES[response.status],
            body=response.whole(),
            events=writer.events,
            first_sequence=writer.first,
        )
        owed = answer.owed() if answer is not None else None
        if answer is not None and owed is not None:
            paying: Any = answer.reservation
            finish.settlement.CopyFrom(paying.settlement(*owed))
        return await self._finished(finish)

    async def _finished(self, finish: pb.FinishRequest) -> bool:
        until = self._clock() + _TRYING_S
        while True:
            try:
                return await self._store.finish(finish)
            except MoaError as error:
                if not errors.passes(error) or self._clock() > until:
                    raise
            await asyncio.sleep(_PAUSE_S)

    async def _why(self, running: _Running) -> str:
        """Return why the end of a making did not count."""
        renewed = await self._store.renew([running.made])
        return "ended" if running.made.response_id in renewed.ended else "lost"

    async def _lose(self, running: _Running, why: str) -> None:
        """End a response of which nothing can be made."""
        failed = {"id": running.made.response_id, "object": "response", "created_at": int(time.time()), "model": "",
                  "status": "failed", "background": True, "output": [], "usage": None, "store": True,
                  "error": {"code": "server_error", "message": why}}  # fmt: skip
        await self._finished(
            pb.FinishRequest(made=running.made, state=pb.RESPONSE_STATE_FAILED, body=msgspec.json.encode(failed))
        )
