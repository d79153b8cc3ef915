"""How the text engine is shared, tick by tick: slots, prompts and the waiting room."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from inference.fair import Flow
from inference.job import Failed
from inference.text.ask import TextAsk
from inference.text.events import Counted, Ended, Shown
from inference.text.turns import Turn
from services.catalogue import Load, Model
from services.common import errors

FLOOD, LIGHT = Flow("flood"), Flow("light")


@pytest.fixture(scope="module")
def model() -> Any:
    """The chat model that ships."""
    from inference import machine
    from inference.text.model import load

    machine.bring_up(1)
    source = str(Path("inference/models/moa-tiny-chat"))
    return load(Model(id="chat", provider="local-text", load=Load(source=source)), lambda stage, part: None, ())


class Bench:
    """One text engine, ticked by hand."""

    def __init__(self, model: Any, **options: Any) -> None:
        from inference.text.engine import TextEngine

        self.engine = TextEngine("bench", model, **options)
        # An answer that may not end goes on to its bound.
        self._endless = tuple((token, -100.0) for token in sorted(model.ends))

    def submit(self, flow: Flow, *, tokens: int, words: int = 1, candidates: int = 1, seed: int = 0) -> tuple[Any, Any]:
        """Ask for an answer of so many tokens to a prompt of about so many words; give the work and its events."""
        asked = TextAsk(
            turns=(Turn("user", "Hello " * words),),
            max_tokens=tokens,
            logit_bias=self._endless,
            candidates=candidates,
            seed=seed,
            temperature=1.0,
        )
        work = self.engine.prepare(asked, flow=flow)
        events: list[Any] = []
        self.engine.submit(work, events.append)
        return work, events

    def flows(self) -> list[Flow]:
        """Return whose answers hold slots."""
        return [c.work.flow for c in self.engine.queue.running if c is not None]

    def used(self, works: list[Any]) -> Counter[Flow]:
        """Count tokens that were read and decoded, by flow."""
        counts: Counter[Flow] = Counter()
        for work in works:
            for candidate in work.candidates:
                counts[work.flow] += candidate.used
        return counts

    def drain(self) -> None:
        """Tick until nothing is left."""
        while self.engine.busy:
            self.engine.tick()


def ended(events: list[Any]) -> bool:
    return any(isinstance(event, Ended | Failed) for event in events)


def test_a_light_tenant_gets_the_next_free_slot(model: Any) -> None:
    """While one account floods, another's request has a slot as soon as one answer has ended, every time."""
    bench = Bench(model, rows=3)
    floods = [bench.submit(FLOOD, tokens=5 + seed % 7, seed=seed)[1] for seed in range(60)]
    for round_number in range(6):
        for _ in range(4 + round_number):
            bench.engine.tick()
        _, events = bench.submit(LIGHT, tokens=3)
        while LIGHT not in bench.flows():
            free = len(bench.flows()) < 3
            bench.engine.tick()
            assert LIGHT in bench.flows() or not free
        while not ended(events):
            bench.engine.tick()
    assert not all(map(ended, floods)), "the flood was there all along"


@pytest.mark.parametrize("rows", [2, 5])
def test_tenants_share_by_tokens_not_by_requests(model: Any, rows: int) -> None:
    """Long prompts with short answers and short prompts with long answers get the same number of tokens."""
    bench = Bench(model, rows=rows)
    works = [bench.submit(Flow("reads"), tokens=4, words=60, seed=seed)[0] for seed in range(80)]
    works += [bench.submit(Flow("writes"), tokens=40, seed=seed)[0] for seed in range(80)]
    for _ in range(60):  # in which the credit of the second comer is used
        bench.engine.tick()
    before = bench.used(works)
    for _ in range(250):
        bench.engine.tick()
    got = bench.used(works) - before
    assert len(bench.engine.queue.waiting) == 2, "neither of them ever paused"
    assert 0.75 < got[Flow("reads")] / got[Flow("writes")] < 1.33, got


def test_a_priority_is_a_larger_share(model: Any) -> None:
    """At equal demand a high priority gets about four times the tokens of a normal one, and that of a low one."""
    high, normal, low = (Flow("one", name) for name in ("high", "normal", "low"))
    bench = Bench(model, rows=6, max_waiting=600)
    works = []
    for seed in range(200):
        works += [bench.submit(flow, tokens=10, seed=seed)[0] for flow in (low, normal, high)]
    for _ in range(40):
        bench.engine.tick()
    before = bench.used(works)
    for _ in range(250):
        bench.engine.tick()
    got = bench.used(works) - before
    assert set(bench.engine.queue.waiting) == {low, normal, high}, "none of them ever paused"
    assert 3 < got[high] / got[normal] < 5.3, got
    assert 3 < got[normal] / got[low] < 5.3, got


def test_tenants_hold_slots_beside_each_other(model: Any) -> None:
    """Two accounts that flood hold about half of the slots each, all the time, not all slots in turns."""
    bench = Bench(model, rows=6)
    for seed in range(60):
        bench.submit(FLOOD, tokens=20, seed=seed)
    for _ in range(30):
        bench.engine.tick()
    for seed in range(60):
        bench.submit(LIGHT, tokens=20, seed=seed)
    for _ in range(60):
        bench.engine.tick()
    for _ in range(100):
        bench.engine.tick()
        bench.engine.queue.admit()
        assert 2 <= bench.flows().count(LIGHT) <= 4


def test_long_prompts_do_not_hold_up_a_short_one(model: Any) -> None:
    """A short prompt is read after at most one chunk of another account's long ones, however many are being read."""
    bench = Bench(model, rows=4)
    for seed in range(3):
        bench.submit(FLOOD, tokens=2, words=220, seed=seed)
    reads: list[tuple[Flow, int]] = []
    reading = bench.engine.queue.reading

    def noted() -> Any:
        chosen = reading()
        if chosen is not None:
            candidate, end = chosen
            reads.append((candidate.work.flow, end - candidate.read))
        return chosen

    bench.engine.queue.reading = noted  # type: ignore[method-assign]
    bench.engine.tick()
    assert reads == [(FLOOD, 256)]
    for _ in range(3):
        work, _ = bench.submit(LIGHT, tokens=1)
        began = len(reads)
        while work.candidates[0].last < 0:
            bench.engine.tick()
        assert [flow for flow, _ in reads[began:]] in ([LIGHT], [FLOOD, LIGHT])
        assert reads[-1][1] == len(work.prompt)
        bench.engine.tick()


def test_a_beginning_that_a_busy_slot_holds_is_copied(model: Any) -> None:
    """A prompt that begins as one that is being answered reads only the rest, and is answered as it is alone."""

    def said(bench: Bench) -> tuple[str, int]:
        work, events = bench.submit(LIGHT, tokens=8, words=150, seed=5)
        while not ended(events):
            bench.engine.tick()
        return "".join(event.piece.text for event in events if isinstance(event, Shown)), work.counted().cached

    alone, nothing = said(Bench(model))
    bench = Bench(model)
    busy, _ = bench.submit(LIGHT, tokens=60, words=150, seed=4)
    while busy.candidates[0].last < 0:
        bench.engine.tick()
    assert said(bench) == (alone, 256)
    assert nothing == 0
    bench.drain()


def test_a_flood_leaves_room_to_wait(model: Any) -> None:
    """A flood is refused beyond its bound, with a time; others find a place, and so does its own more urgent work."""
    bench = Bench(model, rows=1, max_waiting=8)
    flooded = [bench.submit(FLOOD, tokens=2, seed=seed)[1] for seed in range(8)]
    with pytest.raises(errors.QueueFull) as caught:
        bench.submit(FLOOD, tokens=2)
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s >= 1
    with pytest.raises(errors.QueueFull):
        bench.submit(FLOOD, tokens=2, candidates=2)
    others = [bench.submit(flow, tokens=2)[1] for flow in (LIGHT, Flow("flood", "high"), Flow("third", "low"))]
    bench.drain()
    assert all(isinstance(events[-1], Ended) for events in (*flooded, *others))


def test_who_leaves_the_waiting_room_makes_room(model: Any) -> None:
    """A cancelled request leaves its place to the next at once, is told nothing, and costs its account nothing."""
    bench = Bench(model, rows=1, max_waiting=2)
    running, _ = bench.submit(FLOOD, tokens=30)
    shares = bench.engine.queue.shares
    began = shares.clock(FLOOD)
    bench.engine.tick()
    leaving = [bench.submit(FLOOD, tokens=2) for _ in range(2)]
    with pytest.raises(errors.QueueFull):
        bench.submit(FLOOD, tokens=2)
    for work, _ in leaving:
        bench.engine.cancel(work)
    after, stays = bench.submit(FLOOD, tokens=2)
    bench.drain()
    assert all(events == [] for _, events in leaving)
    assert isinstance(stays[-1], Ended)
    assert bench.used([work for work, _ in leaving])[FLOOD] == 0
    assert shares.clock(FLOOD) - began == bench.used([running, after])[FLOOD]


def test_an_answer_is_its_own_in_any_crowd(model: Any) -> None:
    """Text, counted tokens and their order are those that a request has alone, whoever else is served and leaves."""

    def told(events: list[Any]) -> tuple[str, Counted]:
        text = "".join(event.piece.text for event in events if isinstance(event, Shown))
        return text, events[-1].counted

    alone = Bench(model, rows=3)
    _, events = alone.submit(LIGHT, tokens=40, words=150, seed=5)
    alone.drain()
    crowd = Bench(model, rows=3)
    others = [
        crowd.submit(Flow(f"t{seed % 4}", ("low", "normal", "high")[seed % 3]), tokens=9, words=1 + seed * 9, seed=seed)
        for seed in range(12)
    ]
    _, same = crowd.submit(LIGHT, tokens=40, words=150, seed=5)
    for tick in range(200):
        if tick % 9 == 8 and others:
            crowd.engine.cancel(others.pop()[0])
        crowd.engine.tick()
    crowd.drain()
    assert told(same) == told(events)
    assert told(events)[1].completion == 40
