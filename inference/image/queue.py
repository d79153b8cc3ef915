"""Who waits, who runs, and whose pictures go on in the next tick.

An order waits until its flow (an account at one priority, `inference.fair`) has a place, then runs until its pictures
are done. Latents are small, so places are counted a flow: a flood by one leaves the others theirs. A tick takes the
pictures of the flow that is furthest behind, those that waited longest for a turn first, and fills the call up with
others of the same bucket where that is nearly free or they are due as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

from inference import metrics, queue
from inference.fair import Flow
from inference.image.ask import ImageAsk
from inference.image.events import Waiting
from inference.image.order import Order, Picture

MOST_PLACES = 256
"""Pictures that run at once, of all flows."""
NEARLY_FREE = 1.25
"""How much longer a tick may become for the sake of others than the one that is due."""
CREDIT_LANES = 4 * 2 * 20
"""Up to how many lanes of its first order's size a flow comes back ahead with: four usual pictures."""


class Queue(queue.Queue[Order, Order, Picture]):
    """The orders of one engine; a place is an order's, until all of its pictures took their last step.

    Args:
        name: The model's catalogue id, for metrics.
        most_lanes: Lanes of one denoiser call.
        max_waiting: Orders of one flow that may wait.
    """

    def __init__(self, name: str, *, most_lanes: int, max_waiting: int) -> None:
        super().__init__(name, max_waiting)
        self._most_lanes = most_lanes
        self._running: list[Order] = []
        self._turns = itertools.count()
        self._lane_s: dict[tuple[object, int], float] = {}
        self._cost_per_s = 0.0

    @property
    def busy(self) -> bool:
        """Whether anyone waits or runs."""
        return bool(self.waiting or self._running)

    @property
    def running_count(self) -> int:
        """As `Queue.running_count`: orders."""
        return len(self._running)

    @property
    def most_rows(self) -> int:
        """As `Queue.most_rows`: lanes."""
        return self._most_lanes

    def work_s(self) -> float | None:
        """As `Queue.work_s`; None before the first step."""
        return self._backlog_s(self.jobs()) if self._cost_per_s else None

    def jobs(self) -> Collection[Order]:
        """Return the orders that wait or run."""
        return [*itertools.chain.from_iterable(self.waiting.values()), *self._running]

    def add(self, order: Order) -> None:
        """Let an order wait. Raises QueueFull with the time in which half of what waits will be done."""
        # Others join whose flow is less than two steps ahead: its last steps are to be its own as well.
        own = _cost(order.ask) * (1 + 3 / order.ask.steps)
        credit = min(own, CREDIT_LANES * order.ask.width * order.ask.height / 64)
        self._let_in(
            order.flow,
            [order],
            active=self.active(),
            credit=credit,
            wait_s=lambda: self._backlog_s(self.jobs()) / 2,
        )

    def withdraw(self, order: Order) -> None:
        """Forget an order if it waits."""
        self._keep(order.flow, lambda other: other is not order)

    def drop(self, order: Order) -> None:
        """Forget an order."""
        self.withdraw(order)
        if order in self._running:
            self._running.remove(order)

    def admit(self) -> list[Order]:
        """Move orders from waiting to running, as far as there are places; tell the others their position."""
        entering: list[Order] = []
        for order in self._in_turn():
            mine = sum(o.ask.count for o in self._running if o.flow == order.flow)
            everyone = sum(o.ask.count for o in self._running)
            if mine and (mine + order.ask.count > self._most_lanes // 2 or everyone >= MOST_PLACES):
                continue
            self.withdraw(order)
            self._running.append(order)
            entering.append(order)
        self._tell_positions()
        return entering

    def _in_turn(self) -> list[Order]:
        """Return what waits, the fairest first."""
        waiting = itertools.chain.from_iterable(self.waiting.values())
        return sorted(waiting, key=lambda o: (self.shares.clock(o.flow), o.number))

    def _tell_positions(self) -> None:
        before: list[Order] = list(self._running)
        for position, order in enumerate(self._in_turn()):
            if order.shown != position:
                order.shown = position
                eta_s = self._backlog_s(before) if self._cost_per_s else None
                order.emit(Waiting(position, eta_s))
            before.append(order)

    def _backlog_s(self, orders: Collection[Order]) -> float:
        """Estimate how long the orders' remaining steps take."""
        if not self._cost_per_s:
            return 1.0
        cost = 0.0
        for order in orders:
            if order.pictures:
                cost += sum((p.steps - p.at) * p.cost for p in order.pictures)
            else:
                cost += _cost(order.ask)
        return cost / self._cost_per_s

    def batch(self) -> list[Picture]:
        """Choose the pictures of the next tick: all of one bucket, at most so many lanes; charge their flows."""
        pictures = [p for o in self._running for p in o.pictures if p.at < p.steps]
        if not pictures:
            return []
        clocks = {o.flow: self.shares.clock(o.flow) for o in self._running}
        pictures.sort(key=lambda p: (clocks[p.order.flow], p.turn, p.order.number, p.index))
        head = pictures[0]
        chosen: list[Picture] = []
        lanes = 0
        most = min(self._most_lanes, head.room)
        for picture in pictures:
            if picture.bucket != head.bucket or (chosen and lanes + picture.lanes > most):
                continue
            if chosen and not self._may_join(picture, head, clocks, lanes):
                continue
            chosen.append(picture)
            lanes += picture.lanes
        turn = next(self._turns)
        for picture in chosen:
            picture.turn = turn
            self.shares.charge(picture.order.flow, picture.cost)
            metrics.WORK.labels(self._name, picture.order.flow.priority).inc(picture.cost)
        return chosen

    def _may_join(self, picture: Picture, head: Picture, clocks: dict[Flow, float], lanes: int) -> bool:
        """Return whether a picture may share the head's call: if its flow is as due, or the call hardly longer."""
        ahead = clocks[picture.order.flow] - clocks[head.order.flow]
        if ahead <= 2 * head.cost:
            return True
        times = sorted((n, s) for (bucket, n), s in self._lane_s.items() if bucket == head.bucket)
        now_s = next((s for n, s in reversed(times) if n <= lanes), None)
        then_s = next((s for n, s in times if n >= lanes + picture.lanes), None)
        return now_s is not None and then_s is not None and then_s <= now_s * NEARLY_FREE

    def took(self, batch: list[Picture], seconds: float) -> None:
        """Learn from a tick how long calls take."""
        lanes = sum(p.lanes for p in batch)
        key = (batch[0].bucket, lanes)
        known = self._lane_s.get(key, seconds)
        # The least of late counts: other processes' work on the machine only ever adds.
        self._lane_s[key] = min(seconds, 0.9 * known + 0.1 * seconds)
        rate = sum(p.cost for p in batch) / max(seconds, 1e-9)
        self._cost_per_s = rate if not self._cost_per_s else 0.9 * self._cost_per_s + 0.1 * rate

    def leave(self, picture: Picture) -> None:
        """Note that a picture took its last step; the order's place is free once all did."""
        if all(p.at >= p.steps for p in picture.order.pictures) and picture.order in self._running:
            self._running.remove(picture.order)


def _cost(ask: ImageAsk) -> float:
    """Return what an order costs in all, in lanes times latent pixels."""
    lanes = 2 if ask.guidance > 1 else 1
    return ask.count * ask.steps * lanes * ask.width * ask.height / 64
