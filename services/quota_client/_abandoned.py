"""Settling for a caller that abandoned its call: a backend that was left amid it books what it delivered."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import grpc

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2, quota_service_pb2_grpc
from services.catalogue import Cost, Model
from services.common import byok
from services.common.credential import Credential
from services.common.errors import MoaError
from services.common.metering import prompt_owed
from services.common.rpc import call as calls
from services.quota_client._reservation import costless
from services.quota_client._settling import Settling
from services.quota_client.amounts import Amount, ReservationId, charge
from services.quota_client.labels import NO_LABELS, Labels
from services.quota_client.labels import read as read_labels

AFTER_S: Final = 5.0
"""How long the caller is given to settle for itself: longer than it takes one that lives, much shorter than a lease."""


COUNT_S: Final = 3.0
"""How long a prompt may take to be counted, for a caller who left."""

Count = Callable[[], Awaitable[int]]
"""Counts a prompt's tokens. Raises MoaError."""


class AbandonedCalls:
    """Books, for a backend, what its callers may have died before booking.

    A caller that only cancelled the call settles it itself, within moments, and knows better what was delivered.
    So the backend's word is sent a little later: auth books a reservation once, whoever comes first. A router that
    lives and cannot know how far a call had come waits for this word (`Reservation.defer`).

    Args:
        auth: The channel to the auth service.
        service_token: The internal credential.
        journal: A folder for what must survive this process.
    """

    def __init__(
        self,
        auth: grpc.aio.Channel,
        *,
        service_token: Credential,
        journal: Path | None = None,
        after_s: float = AFTER_S,
    ) -> None:
        holder = f"backend-{os.getpid()}-{os.urandom(6).hex()}"
        stub: quota_service_pb2_grpc.QuotaServiceAsyncStub = quota_service_pb2_grpc.QuotaServiceStub(auth)
        self._settling = Settling(stub, service_token=service_token, folder=journal, holder=holder)
        self._after_s = after_s
        self._ending = False
        self._waiting: dict[str, tuple[asyncio.TimerHandle, quota_pb2.Settlement]] = {}
        self._counting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the background work."""
        self._settling.start()

    def ending(self) -> None:
        """Take nothing more: calls that end midway from here on are ended by this process, and whoever called lives.

        It settles them itself, perhaps for an answer that went on elsewhere; a word from here might be heard first.
        """
        self._ending = True

    async def stop(self) -> None:
        """Book what is waiting, without further delay, and end."""
        for handle, settlement in self._waiting.values():
            handle.cancel()
            self._settling.settled(settlement)
        self._waiting.clear()
        await asyncio.gather(*self._counting)
        await self._settling.stop(within_s=5.0)

    def report(
        self,
        context: Any,
        *,
        usage: usage_pb2.Usage,
        operation: quota_pb2.Operation.ValueType,
        model: Model,
        cost: Cost | None = None,
        count: Count | None = None,
    ) -> None:
        """Say, from the handler of a call that did not come to its last event, what its caller owes.

        Where `usage` lacks the prompt's tokens, `count` is asked for them; if it cannot tell, they are as many as the
        caller's bound (`x-moa-prompt-bound`) says.
        """
        metadata = dict(context.invocation_metadata() or ())
        if operation == quota_pb2.OPERATION_TEXT and not usage.prompt_tokens:
            bound = str(metadata.get(calls.PROMPT_KEY, ""))
            usage.prompt_tokens = int(bound) if bound.isascii() and bound.isdigit() and len(bound) < 10 else 0
            usage.exact = False
        else:
            count = None
        self.left(
            str(metadata.get(calls.RESERVATION_KEY, "")),
            usage=usage,
            operation=operation,
            provider=model.provider,
            model=model.id,
            request_id=calls.current().request_id,
            # Those who bring their own key pay their provider themselves.
            cost=costless if metadata.get(byok.METADATA_KEY) else cost or model.cost_on(),
            count=count,
            labels=read_labels(str(metadata.get(calls.LABELS_KEY, ""))),
        )

    def left(
        self,
        reservation_id: str,
        *,
        usage: usage_pb2.Usage,
        operation: quota_pb2.Operation.ValueType,
        provider: str,
        model: str,
        request_id: str,
        cost: Cost = costless,
        count: Count | None = None,
        labels: Labels = NO_LABELS,
    ) -> None:
        """Say what is owed for a call that its caller ended or abandoned (`x-moa-reservation` names it).

        Never raises, and books nothing when the id is none.
        """
        reservation = ReservationId.parse(reservation_id)
        if reservation is None or self._ending:
            return
        settlement = quota_pb2.Settlement(
            reservation_id=reservation_id,
            usage=usage,
            operation=operation,
            provider=provider,
            model=model,
            request_id=request_id,
            first_alone=True,
            dialect=labels.dialect,
            tags=labels.tags,
        )
        charge(settlement, reservation.amount, cost(usage, provider, model))
        settlement.ended_at.GetCurrentTime()
        counting: asyncio.Task[None] | None = None
        if count is not None:
            counting = asyncio.create_task(self._counted(settlement, reservation.amount, cost, count))
            self._counting.add(counting)
            counting.add_done_callback(self._counting.discard)
        later = asyncio.get_running_loop().call_later(self._after_s, self._due, settlement, counting)
        self._waiting[reservation_id] = later, settlement

    async def _counted(self, settlement: quota_pb2.Settlement, reserved: Amount, cost: Cost, count: Count) -> None:
        """Put the counted prompt in the place of its bound, if it is known in time."""
        try:
            async with asyncio.timeout(COUNT_S):
                prompt = await count()
        except (MoaError, TimeoutError):
            return
        usage = settlement.usage
        usage.prompt_tokens = prompt_owed(usage.prompt_tokens, prompt)
        nano_usd = cost(usage, settlement.provider, settlement.model)
        charge(settlement, reserved, nano_usd)

    def _due(self, settlement: quota_pb2.Settlement, counting: asyncio.Task[None] | None) -> None:
        """Book, once a count that is under way has ended."""
        if counting is not None and not counting.done():
            counting.add_done_callback(lambda _: self._due_at_last(settlement))
            return
        self._waiting.pop(settlement.reservation_id, None)
        self._settling.settled(settlement)

    def _due_at_last(self, settlement: quota_pb2.Settlement) -> None:
        # What is not waiting any more was booked as this process ended.
        if settlement.reservation_id in self._waiting:
            self._due(settlement, None)
