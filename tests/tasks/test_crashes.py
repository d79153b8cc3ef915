"""The crash matrix: every process killed at every point of a task. Nothing is lost, and nothing happens twice."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
import requests

from moa.task.v1 import task_pb2
from services.auth.adapters.checker import Checker
from tests.emulators.painter import paint
from tests.emulators.receiver import Receiver
from tests.tasks.system import System, until

VICTIMS = ("worker", "tasks", "router", "painter", "auth", "edge", "postgres")


class Journey:
    """One task on its way, which a test stops at the points that it names."""

    def __init__(self, system: System, receiver: Receiver, victim: str, point: str) -> None:
        name = f"{victim}-{point}"
        self.system = system
        self.receiver = receiver
        self.victim = victim
        self.gate = f"gate-{name}"
        self.prompt = f"{name} gate={self.gate} steps=4"
        self.task_id = ""

    def create(self) -> None:
        """Create the task as a careful caller does: what was not answered is repeated, with its key."""
        body = {"model": "google/gempix2", "prompt": self.prompt, "callback_url": self.receiver.url}

        def answered() -> requests.Response | None:
            try:
                made = self.system.post("/api/image/gen", body, **{"idempotency-key": self.gate})
            except requests.ConnectionError:
                return None
            return None if made.status_code == 503 else made

        made = until(answered, what="the creation")
        assert made.status_code == 200, made.text
        self.task_id = made.json()["data"]["task_id"]

    def state(self) -> int:
        found: int = self.system.query("select state from tasks.tasks where id = %s", self.task_id)[0][0]
        return found

    def await_state(self, *states: int) -> None:
        until(lambda: self.state() in states, what=f"state {states}")

    def await_half(self) -> None:
        until(lambda: (self.system.gates / f"{self.gate}.reached").exists(), what="half of the work")

    def open_gate(self) -> None:
        (self.system.gates / self.gate).touch()

    @contextmanager
    def store_away(self) -> Iterator[None]:
        """Nothing can be stored meanwhile."""
        objects = self.system.objects
        objects.rename(objects.with_name("away"))
        objects.write_text("not a folder")
        try:
            yield
        finally:
            objects.unlink()
            objects.with_name("away").rename(objects)

    def await_spooled(self) -> None:
        until(
            lambda: self.system.query("select 1 from tasks.tasks where id = %s and made", self.task_id),
            what="what was made to be kept",
        )


# The points. Each brings the task to where the victim dies, and calls `kill` there.


def before_creation(journey: Journey, kill: Callable[[], None]) -> None:
    kill()
    journey.create()
    journey.open_gate()


def while_creating(journey: Journey, kill: Callable[[], None]) -> None:
    """The caller's request and the death race each other."""
    killer = threading.Thread(target=kill)
    killer.start()
    journey.create()
    killer.join()
    journey.open_gate()


def right_after_creation(journey: Journey, kill: Callable[[], None]) -> None:
    journey.create()
    kill()
    journey.open_gate()


def when_submitted(journey: Journey, kill: Callable[[], None]) -> None:
    journey.create()
    journey.await_state(task_pb2.TASK_STATE_SUBMITTED, task_pb2.TASK_STATE_RUNNING)
    kill()
    journey.open_gate()


def half_way(journey: Journey, kill: Callable[[], None]) -> None:
    journey.create()
    journey.await_half()
    kill()
    journey.open_gate()


def half_way_twice(journey: Journey, kill: Callable[[], None]) -> None:
    journey.create()
    journey.await_half()
    # Before the death: whoever takes over may come to half of the work before this one is back.
    (journey.system.gates / f"{journey.gate}.reached").unlink()
    kill()
    # Only the deaths of who does the work have it done again.
    if journey.victim in ("worker", "router", "painter"):
        journey.await_half()
    kill()
    journey.open_gate()


def as_the_image_comes(journey: Journey, kill: Callable[[], None]) -> None:
    """The image is on its way to the worker as the victim dies."""
    journey.create()
    journey.await_half()
    journey.open_gate()
    kill()


def made_but_not_stored(journey: Journey, kill: Callable[[], None]) -> None:
    journey.create()
    with journey.store_away():
        journey.await_half()
        journey.open_gate()
        journey.await_spooled()
        kill()


def as_it_ends(journey: Journey, kill: Callable[[], None]) -> None:
    """The last transaction, the settlement and the webhook are on their way as the victim dies."""
    journey.create()
    journey.open_gate()
    until(
        lambda: journey.system.query("select 1 from tasks.objects where task_id = %s", journey.task_id),
        what="the stored output",
    )
    kill()


def before_the_webhook_is_noted(journey: Journey, kill: Callable[[], None]) -> None:
    """The receiver has it; that it has it may not be on record yet."""
    journey.create()
    journey.open_gate()
    until(lambda: journey.receiver.of(journey.task_id), what="the webhook")
    kill()


POINTS = (
    before_creation,
    while_creating,
    right_after_creation,
    when_submitted,
    half_way,
    half_way_twice,
    as_the_image_comes,
    made_but_not_stored,
    as_it_ends,
    before_the_webhook_is_noted,
)


Point = Callable[[Journey, Callable[[], None]], None]

MATRIX = list(product(VICTIMS, POINTS))
# All seventy take ten minutes: `MOA_CRASH_MATRIX=full`. By default each victim dies, and each point is died at.
CHOSEN = (
    MATRIX
    if os.environ.get("MOA_CRASH_MATRIX") == "full"
    else [(VICTIMS[number % len(VICTIMS)], point) for number, point in enumerate(POINTS)]
)


@pytest.mark.parametrize(("victim", "point"), CHOSEN, ids=[f"{v}-{p.__name__}" for v, p in CHOSEN])
def test_no_death_loses_a_task_or_doubles_its_effects(
    system: System, receiver: Receiver, victim: str, point: Point
) -> None:
    """It succeeds; one terminal event, one charge of credits and of one image, one webhook effect, one result."""
    journey = Journey(system, receiver, victim, point.__name__)
    _quiet(system)
    spent_before = spent(system)

    def kill() -> None:
        system.kill(victim)
        if victim != "postgres":
            system.ready(victim)

    point(journey, kill)
    journey.await_state(task_pb2.TASK_STATE_SUCCEEDED, task_pb2.TASK_STATE_FAILED, task_pb2.TASK_STATE_CANCELLED)
    _check(journey, spent_before)


def _quiet(system: System) -> None:
    """Wait until nothing of earlier tests is under way, which would be charged while this one counts."""
    ended = [task_pb2.TASK_STATE_SUCCEEDED, task_pb2.TASK_STATE_FAILED, task_pb2.TASK_STATE_CANCELLED]
    until(
        lambda: (
            not system.query(
                "select 1 from tasks.tasks where not (state = any(%s)) union all select 1 from tasks.quota_outbox",
                ended,
            )
        ),
        what="the end of what earlier tests began",
    )


def spent(system: System) -> tuple[int, int]:
    """What the first account has been charged: micro-credits, images."""
    ((micros, images),) = system.query(
        "select coalesce(sum(micro_credits), 0)::bigint, coalesce(sum(images), 0)::bigint from ledger "
        "where account_id = %s and kind in ('settle', 'late', 'orphan')",
        system.account_id,
    )
    return micros, images


def _check(journey: Journey, before: tuple[int, int]) -> None:
    system, task_id = journey.system, journey.task_id
    assert system.query("select state, consumed_micros from tasks.tasks where id = %s", task_id) == [
        (task_pb2.TASK_STATE_SUCCEEDED, 500_000)
    ]
    events = [
        task_pb2.TaskEvent.FromString(row[0])
        for row in system.query("select event from tasks.events where task_id = %s order by sequence", task_id)
    ]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    kinds = [event.WhichOneof("event") for event in events]
    assert [k for k in kinds if k in ("succeeded", "failed", "cancelled")] == ["succeeded"]
    assert kinds[-1] == "succeeded"
    assert kinds.count("output") == 1
    until(lambda: not system.query("select 1 from tasks.quota_outbox"), what="the settlement")
    assert spent(system) == (before[0] + 500_000, before[1] + 1)
    until(
        lambda: system.query("select 1 from tasks.deliveries where task_id = %s and state = 2", task_id),
        what="the webhook's delivery",
    )
    assert journey.receiver.effects(task_id) == 1
    _, body = journey.receiver.of(task_id)[-1]
    assert body["status"] == "success"
    image = _fetched(system, body["result"][0]["image"])
    assert image == paint(journey.prompt, 0, 64, 64)


async def test_after_all_deaths_the_books_balance(system: System) -> None:
    """Tokens, images, dollars and credits of every account add up, and each task's price was booked at most once."""
    _quiet(system)
    assert not (await Checker(system.database.url("moa")).check(whole=True)).faults
    twice = (
        "select request_id from ledger where micro_credits > 0 and kind in ('settle', 'late', 'orphan')"
        " group by request_id having count(*) > 1"
    )
    assert system.query(twice) == []


def _fetched(system: System, link: str) -> bytes:
    def get() -> Any:
        try:
            answer = requests.get(link, timeout=60)
        except OSError:
            return None
        return answer.content if answer.status_code == 200 else None

    found: bytes = until(get, what="the image")
    return found
