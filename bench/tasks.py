"""`python -m bench.tasks`: tasks a second, created and finished with an instant model, also with 10,000 waiting.

The whole path runs as processes of its own (PostgreSQL, auth, router, an instant painter, the task service and one
worker), on one machine that the load shares. Writes `build/bench/tasks.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc

from moa.image.v1 import image_service_pb2
from moa.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from tests.tasks.system import System

OUT = Path("build/bench/tasks.json")
WAITING = 10_000
ACCOUNTS = 50


async def create(system: System, count: int, at_once: int) -> float:
    """Create tasks over gRPC; give how many a second."""
    image = image_service_pb2.GenerateImageRequest(model="moa-tiny-image", prompt="bench steps=1", width=16, height=16)
    request = task_service_pb2.CreateTaskRequest(work=task_pb2.TaskWork(image=image))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{system.port['tasks']}") as channel:
        stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)
        left = iter(range(count))

        async def one_after_another() -> None:
            for _ in left:
                await stub.CreateTask(request, metadata=(("x-api-key", system.api_key),))

        began = time.monotonic()
        await asyncio.gather(*(one_after_another() for _ in range(at_once)))
        return count / (time.monotonic() - began)


def ended(system: System) -> int:
    """Count the tasks that ended well."""
    found: int = system.query("select count(*) from tasks.tasks where state = 4")[0][0]
    return found


def finished(system: System, count: int, wait_s: float, *, since: float | None = None, before: int = -1) -> float:
    """Return how many tasks end a second, until `count` more have ended or the time is up."""
    before = ended(system) if before < 0 else before
    began = time.monotonic() if since is None else since
    while (done := ended(system) - before) < count and time.monotonic() - began < wait_s:
        time.sleep(0.1)
    return done / (time.monotonic() - began)


def crowd(system: System, count: int) -> None:
    """Put `count` tasks of many accounts in the queue at once, copies of one that was created."""
    system.query(
        "insert into tasks.tasks (id, account_id, key_id, dialect, provider, model, work, fingerprint, state, "
        "created_at, not_before, deadline, price_micros) select 'ta' || gen_random_uuid(), t.account_id || '-' || "
        "(n %% %s), t.key_id, t.dialect, t.provider, t.model, t.work, '', 1, now(), now(), now() + interval '1 h', 0 "
        "from generate_series(1, %s) n, (select * from tasks.tasks limit 1) t",
        ACCOUNTS,
        count,
    )
    system.query(
        "insert into tasks.accounts (account_id) select distinct account_id from tasks.tasks on conflict do nothing"
    )


def claim_ms(system: System) -> float:
    """Return the time of the statement that chooses what to claim, in milliseconds, as PostgreSQL measures it."""
    from services.tasks.adapters.queue import _CHOOSE  # the statement itself is what is measured

    plan = system.query("explain (analyze, format json) " + _CHOOSE % {"count": "8", "per_account": "1000"})
    found: float = plan[0][0][0]["Execution Time"]
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--at-once", type=int, default=16)
    chosen = parser.parse_args()
    environment = {
        "MOA_TASK_WORKERS": "16",
        "MOA_TASK_PER_ACCOUNT": "1000",
        "MOA_TASK_WAITING_PER_ACCOUNT": "1000000",
        "MOA_TASK_LEASE_S": "15",
        "MOA_LOG_LEVEL": "warning",
    }
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, System(Path(folder), environment=environment) as system:
        # The measured accounts have no daily limit, so that the limit is not what is measured.
        system.query("update accounts set unlimited = true")
        asyncio.run(create(system, 20, 4))
        finished(system, 20, 10)
        before, since = ended(system), time.monotonic()
        results["created_per_s"] = asyncio.run(create(system, chosen.count, chosen.at_once))
        results["created_and_finished_per_s"] = finished(system, chosen.count, 60, since=since, before=before)
        crowd(system, WAITING)
        results["claim_ms_10k_waiting"] = claim_ms(system)
        results["finished_per_s_10k_waiting"] = finished(system, WAITING, 20)
        results["created_per_s_10k_waiting"] = asyncio.run(create(system, chosen.count, chosen.at_once))
    for name, value in results.items():
        print(f"{name:32} {value:10.1f}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
