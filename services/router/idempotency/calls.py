"""Does a request with an `Idempotency-Key` once, and answers it as often as it is asked (docs/reliability.md)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Final, Protocol
from uuid import uuid4

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor

from moa.idempotency.v1 import idempotency_service_pb2 as pb
from services.common import errors, idempotency, logs
from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.dialects.registrations import Registration, registrations
from services.common.rpc import call as calls
from services.common.rpc.receiving import Handler
from services.common.rpc.status import error_from_rpc
from services.quota_client import ratelimit
from services.router import dialects, metrics
from services.router.dialects.reading import Reading
from services.router.domain.caller import Caller
from services.router.idempotency.fingerprint import fingerprint
from services.router.idempotency.recording import Recording, RecordingMemory
from services.router.operations import OPERATIONS

_log = logs.get("idempotency")


def _takes_body(method: MethodDescriptor) -> bool:
    """Return whether a method's request is a body as it came, or has one."""
    given = method.input_type
    return HttpBody.DESCRIPTOR in (given, *(field.message_type for field in given.fields))


PAID: Final = frozenset(
    (
        *(
            f"/{service.full_name}/{method.name}"
            for dialect in registrations(dialects, Registration)
            for service in dialect.contract.services_by_name.values()
            for method in service.methods
            if _takes_body(method) and dialect.method(service.name, method.name).is_paid
        ),
        *(
            f"/{operation.service}/{method.name}"
            for operation in OPERATIONS.values()
            for method in (operation.stream, operation.whole)
            if method is not None
        ),
    )
)
"""The operations that are paid for and answered at once."""

ANSWER_BYTES: Final = 16 * 1024 * 1024
"""The largest answer that is kept."""
ROOM_BYTES: Final = 256 * 1024 * 1024
"""What answers that are being made may take of this process's memory together."""
ALONE_S: Final = 900.0
"""How long work goes on after its caller has left: as long as the edge lets a silent caller wait."""
KEEPING_S: Final = 2.0
"""How long a caller waits at most for its answer to be kept."""
_TRYING_S: Final = 60.0
"""How long keeping is tried."""
PAUSE_S: Final = 0.25
_LATER_S: Final = 2.0
"""When to ask again for an answer that is being made."""

_WHY: Final = {
    pb.LOST_REASON_OUTCOME_UNKNOWN: "was interrupted, and nobody knows what came of it",
    pb.LOST_REASON_TOO_LARGE: "was done, and its answer is larger than is kept",
    pb.LOST_REASON_EVICTED: "was done, and later answers of this account have taken the room of its answer",
}


class VerifiedKey(Protocol):
    """A verified key."""

    @property
    def account_id(self) -> str:
        """Whose key it is."""

    @property
    def counter(self) -> str:
        """What counts for the key and those that it is rotated into."""

    def remaining(self) -> Any:
        """Return what is left of limits."""


class Admission(Protocol):
    """Who verifies keys."""

    async def identify(self, key: str) -> VerifiedKey:
        """Verify a key."""

    async def arrive(self, key: str) -> VerifiedKey:
        """Verify a key, and count a request. Raises RateLimited."""


class Claims(Protocol):
    """Who keeps answers, for all routers; `adapters.claims.Claims` is one."""

    async def claim(self, request: pb.ClaimRequest) -> pb.ClaimResponse:
        """Claim a key, or return what has become of it."""

    def renewed(self, begun: pb.Begun) -> AbstractAsyncContextManager[None]:
        """Renew a claim until the block ends."""

    async def keep(self, claim_id: str, answer: pb.StoredAnswer) -> None:
        """Keep a claim's answer."""

    async def lose(self, claim_id: str, reason: pb.LostReason.ValueType) -> None:
        """Note that the answer cannot be kept."""

    async def free(self, claim_id: str) -> None:
        """Give a claim back."""

    async def read(self, claim_id: str) -> pb.StoredAnswer:
        """Return an answer. Raises NotFound."""


class IdempotentCalls:
    """Serves paid methods in their handlers' place. A request without a key goes straight to its handler.

    Args:
        admission: Verifies keys.
        claims: Keeps answers.
        begin: Gives the caller of a call.
        reading: Reads bodies, to tell whether two requests say the same.
        secret: What digests tell callers apart by who share an account.
    """

    def __init__(
        self,
        admission: Admission,
        claims: Claims,
        *,
        begin: Callable[[Any], Caller],
        reading: Reading,
        secret: str,
        answer_bytes: int = ANSWER_BYTES,
    ) -> None:
        self._admission = admission
        self._claims = claims
        self._begin = begin
        self._reading = reading
        self._secret = secret.encode()
        self._answer_bytes = answer_bytes
        self._memory = RecordingMemory(ROOM_BYTES)
        self._working: set[asyncio.Task[None]] = set()

    @property
    def free_bytes(self) -> int:
        """How much of the memory for answers is free."""
        return self._memory.left

    @property
    def working(self) -> int:
        """How many requests are worked at."""
        return len(self._working)

    def around(self, method: str, inner: Handler, unary: bool) -> Handler:
        """Return what serves a method."""
        if method not in PAID:
            return inner
        result = descriptor_pool.Default().FindMethodByName(method.strip("/").replace("/", "."))
        kind = message_factory.GetMessageClass(result.output_type)

        # Not a coroutine itself: it would keep a large request as long as its handler works.
        def serve(request: Any, context: Any) -> Awaitable[Any]:
            key = idempotency.key_in(calls.metadata_of(context))
            if not key:
                return inner(request, context)
            return self._serve(method, inner, request, context, key, kind, unary)

        return serve

    async def aclose(self, within_s: float) -> None:
        """Wait a little for work whose callers have left; what has not ended then is interrupted."""
        if self._working:
            await asyncio.wait(self._working, timeout=within_s)
        await cancel_and_wait(*self._working, again_s=CLEANING_S)

    async def _serve(
        self, method: str, inner: Handler, request: Any, context: Any, key: str, kind: Any, unary: bool
    ) -> Any:
        caller = self._begin(context)
        who = await self._admission.identify(caller.key)
        metadata = calls.metadata_of(context)
        digest = await fingerprint(request, metadata, self._reading)
        result = await self._claimed(
            pb.ClaimRequest(
                account_id=who.account_id,
                key_id=who.counter,
                stranger=self._stranger(caller),
                operation=method,
                idempotency_key=key,
                fingerprint=digest,
                request_id=caller.request_id,
                claim_id=str(uuid4()),
            )
        )
        outcome = result.WhichOneof("outcome") or ""
        metrics.IDEMPOTENT.labels(outcome).inc()
        calls.current().fields["idempotency"] = outcome
        if outcome == "begun":
            recording = Recording(metadata, memory=self._memory, most_bytes=self._answer_bytes)
            doing = inner(request, recording)
            # The handler alone holds a large request, and lets go of it when it has been read.
            del request
            return await self._do(doing, recording, context, result.begun, unary)
        # What reserves nothing is counted all the same.
        who = await self._admission.arrive(caller.key)
        if outcome == "kept":
            return await self._replay(result.kept, context, kind, who, unary)
        raise _refusal(result)

    async def _claimed(self, request: pb.ClaimRequest) -> pb.ClaimResponse:
        """Claim a key. A claim whose caller has left meanwhile, or whose answer got lost, is given back."""
        claiming = asyncio.create_task(self._claims.claim(request))
        try:
            return await asyncio.shield(claiming)
        except BaseException:
            self._run(self._given_up(claiming, request.claim_id))
            raise

    async def _given_up(self, claiming: asyncio.Task[pb.ClaimResponse], claim_id: str) -> None:
        with contextlib.suppress(errors.MoaError):
            await claiming
        with contextlib.suppress(errors.MoaError):
            await self._claims.free(claim_id)

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin work that goes on when its call is over."""
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    async def _do(self, doing: Awaitable[Any], recording: Recording, context: Any, begun: pb.Begun, unary: bool) -> Any:
        """Do the work, and hand what it writes to the caller as long as that stays."""
        work = self._run(self._work(doing, recording, begun))
        ended = False
        try:
            async with aclosing(recording.steps()) as steps:
                async for step in steps:
                    if step.ended:
                        ended = True
                        if step.error is not None:
                            raise step.error
                        return step.message if unary else None
                    if step.headers is not None:
                        await context.send_initial_metadata(step.headers)
                    else:
                        await context.write(step.message)
        finally:
            if not ended:
                recording.leave()
                if recording.overflowed:
                    work.cancel()
                else:
                    timer = asyncio.get_running_loop().call_later(ALONE_S, work.cancel)
                    work.add_done_callback(lambda _: timer.cancel())

    async def _work(self, doing: Awaitable[Any], recording: Recording, begun: pb.Begun) -> None:
        """Do the work, keep what came of it, and tell that it has ended."""
        result: Any = None
        failure: Exception | None = None
        try:
            async with self._claims.renewed(begun):
                try:
                    result = await doing
                    if result is not None:
                        recording.note(result)
                except asyncio.CancelledError:
                    if recording.overflowed:
                        with contextlib.suppress(errors.MoaError):
                            await self._claims.lose(begun.claim_id, pb.LOST_REASON_TOO_LARGE)
                    raise
                except Exception as error:
                    failure = error
                storing = asyncio.create_task(self._stored(begun.claim_id, recording, failure))
                try:
                    # A caller does not wait for a store that is away.
                    await asyncio.wait({storing}, timeout=KEEPING_S)
                    await recording.end(result, failure)
                    await storing
                finally:
                    storing.cancel()
        finally:
            failure = None
            recording.forget()

    async def _stored(self, claim_id: str, recording: Recording, failure: Exception | None) -> None:
        """Store what came of a claim, trying for a while."""
        call = calls.current()
        until = time.monotonic() + _TRYING_S
        while True:
            try:
                if not call.charged and (failure is not None or call.broken):
                    await self._claims.free(claim_id)
                elif recording.overflowed:
                    metrics.UNKEPT.labels("too_large").inc()
                    await self._claims.lose(claim_id, pb.LOST_REASON_TOO_LARGE)
                else:
                    answer = recording.answer()
                    if failure is not None:
                        answer.error.CopyFrom(errors.detail_of(_kept_error(failure, call), call.request_id))
                    await self._claims.keep(claim_id, answer)
                return
            except errors.MoaError as error:
                if time.monotonic() > until:
                    metrics.UNKEPT.labels("unavailable").inc()
                    _log.warning("answer.not_kept", request_id=call.request_id, why=error.message)
                    return
            await asyncio.sleep(PAUSE_S)

    async def _replay(self, kept: pb.Kept, context: Any, kind: Any, who: VerifiedKey, unary: bool) -> Any:
        """Answer as before."""
        replay_headers = [(idempotency.REPLAYED, "true"), (idempotency.ORIGINAL_ID, kept.request_id)]
        try:
            answer = await self._claims.read(kept.claim_id)
        except errors.NotFound:
            raise _lost(pb.LOST_REASON_EVICTED) from None
        if answer.HasField("error"):
            failed = errors.error_of(answer.error)
            failed.headers = (*failed.headers, *replay_headers)
            if not answer.messages:
                raise failed
        headers = [(header.name, header.value) for header in answer.headers]
        await context.send_initial_metadata([*headers, *ratelimit.headers(who.remaining()), *replay_headers])
        messages = map(kind.FromString, answer.messages)
        if unary:
            return next(messages)
        for message in messages:
            await context.write(message)
        if answer.HasField("error"):
            raise failed
        return None

    def _stranger(self, caller: Caller) -> str:
        """Return who it is among those who bring a key of their own, without telling the key."""
        if not caller.own_key:
            return ""
        return hmac.digest(self._secret, b"stranger " + caller.own_key.encode(), hashlib.sha256).hex()


def _refusal(claimed: pb.ClaimResponse) -> errors.MoaError:
    outcome = claimed.WhichOneof("outcome")
    if outcome == "running":
        return errors.RequestRunning(
            "the request with this idempotency key is still being worked at; ask again later",
            param=idempotency.HEADER,
            retry_after_s=_LATER_S,
        )
    return idempotency.reused() if outcome == "reused" else _lost(claimed.lost.reason)


def _lost(reason: pb.LostReason.ValueType) -> errors.AnswerLost:
    why = _WHY.get(reason, _WHY[pb.LOST_REASON_OUTCOME_UNKNOWN])
    refusal = errors.AnswerLost(
        f"the request with this idempotency key {why}. It may have been charged, and is not done again under this key: "
        "use another to have it done again",
        param=idempotency.HEADER,
    )
    refusal.headers = (("x-should-retry", "false"),)
    return refusal


def _kept_error(failure: Exception, call: calls.Call) -> errors.MoaError:
    """Return a failure as its caller is told it."""
    if isinstance(failure, grpc.aio.AioRpcError):
        failure = error_from_rpc(failure)
    if isinstance(failure, errors.MoaError):
        return failure
    return errors.Internal(f"internal error (request {call.request_id})")
