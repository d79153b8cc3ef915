"""What is told of engines while they work."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from inference.engine import Standing
from inference.packages import Packages
from inference.recent import Rates, Recent
from inference.registry import Held, Registry
from inference.states import ModelServicer
from moa.inference.v1 import model_service_pb2 as pb
from services.catalogue import Watched
from tests import shipped


def test_rates_are_of_the_last_ten_whole_seconds() -> None:
    """The second that runs is not in them, and neither is what is over: an engine that rests has none."""
    now = [100.0]
    recent = Recent(lambda: now[0])
    assert recent.rates() == Rates(0.0, 0.0, 0.0)
    for _ in range(20):
        recent.add(4, 0.25)
    assert recent.rates() == Rates(0.0, 0.0, 0.0)
    now[0] = 101.5
    recent.add(8, 0.5)
    assert recent.rates() == Rates(2.0, 4.0, 0.5)
    now[0] = 103.0
    assert recent.rates().steps_per_s == 2.1
    now[0] = 111.0
    assert recent.rates() == Rates(0.1, 8.0, 0.05)
    now[0] = 130.0
    assert recent.rates() == Rates(0.0, 0.0, 0.0)


async def test_engines_are_described() -> None:
    """A loaded model with what it has to do, one that is loading with how far it is; the processor is always there."""
    catalogue = shipped.catalogue()
    chat, image = (catalogue.find(name) for name in ("moa-tiny-chat", "moa-tiny-image"))
    standing = Standing(3, 2, 1.5, 8, Rates(10.0, 6.0, 0.5), 77)
    engine: Any = SimpleNamespace(standing=lambda: standing)
    held = [Held(chat, engine, 5, 1000, "ready", 1.0), Held(image, None, 1, 0, "weights", 0.4)]
    registry = cast(Registry, SimpleNamespace(held=lambda: held, budget_bytes=4000))
    watched = cast(Watched, SimpleNamespace(now=catalogue))
    servicer = ModelServicer(watched, registry, cast(Packages, None), "images")
    answer = await servicer.DescribeEngines(pb.DescribeEnginesRequest(), None)
    assert (answer.pool, answer.budget_bytes, answer.devices[0].name) == ("images", 4000, "cpu")
    assert answer.devices[0].total_bytes > 0
    loaded, loading = answer.engines
    assert (loaded.model, loaded.makes, loaded.state) == (chat.full_id, "text", pb.MODEL_STATE_READY)
    assert (loaded.waiting, loaded.running, loaded.work_seconds, loaded.most_rows) == (3, 2, 1.5, 8)
    assert (loaded.steps_per_second, loaded.rows_per_step, loaded.busy, loaded.steps) == (10.0, 6.0, 0.5, 77)
    assert (loaded.users, loaded.size_bytes) == (5, 1000)
    assert (loading.state, loading.percent, loading.stage) == (pb.MODEL_STATE_LOADING, 40, "weights")
    assert not loading.HasField("work_seconds")
