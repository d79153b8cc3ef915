"""Memory under large images: what runs at once is held, about twice; what waits or is done is not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moa.task.v1 import task_pb2
from tests.tasks.system import System, until

LARGE_MB = 2
AT_ONCE = 8
"""Tasks that the worker runs at once, by the fixture's settings."""
COUNT = 48
MOST_MB = AT_ONCE * LARGE_MB * 5
"""What a process may hold over idle: measured are 50, with what it works in; all images together take 96."""
NONE_MB = 8
"""What a process may hold over idle that holds no image."""


def memory_mb(system: System, name: str, what: str) -> float:
    """Return the memory that a process holds (`VmRSS`), or the most that it ever held (`VmHWM`)."""
    for line in Path(f"/proc/{system.pid(name)}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no {what}")


def create(system: System, prompts: list[str]) -> list[str]:
    def one(prompt: str) -> str:
        found: str = system.post("/api/image/gen", {"model": "google/gempix2", "prompt": prompt}).json()["data"][
            "task_id"
        ]
        return found

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(one, prompts))


def await_state(system: System, made: list[str], state: task_pb2.TaskState.ValueType, count: int) -> None:
    until(
        lambda: (
            system.query("select count(*) from tasks.tasks where id = any(%s) and state = %s", made, state)
            == [(count,)]
        ),
        what=f"{count} tasks in state {state}",
        wait_s=300,
    )


@pytest.mark.timeout(300)  # a gigabyte goes through five processes and the database, on whatever is free
@pytest.mark.parametrize(("images", "rounds"), [(1, 2), (2, 1)])
def test_memory_follows_what_runs_at_once_and_not_what_was_created(system: System, images: int, rounds: int) -> None:
    """Forty-eight large images, of whose tasks eight run at the same moment: the peak is that of eight.

    The processes are new, so that their peak is of these images alone. One that held what is done would need 96 MB.
    With one image a task it goes to the store from the worker's memory, in two rounds; with two, from the spool.
    """
    for name in ("worker", "router"):
        system.kill(name)
        system.ready(name)
    warm = create(system, ["a small one"])
    await_state(system, warm, task_pb2.TASK_STATE_SUCCEEDED, 1)
    idle = {name: memory_mb(system, name, "VmRSS") for name in ("worker", "router", "tasks")}
    for number in range(rounds):
        gate = f"memory-{images}-{number}"
        prompts = [
            f"large {each} megabytes={LARGE_MB} steps=4 gate={gate}" for each in range(COUNT // images // rounds)
        ]
        made = create(system, prompts) if images == 1 else [predict(system, prompt, images) for prompt in prompts]
        await_state(system, made, task_pb2.TASK_STATE_RUNNING, AT_ONCE)
        (system.gates / gate).touch()
        await_state(system, made, task_pb2.TASK_STATE_SUCCEEDED, len(made))
        for name in ("worker", "router"):
            peak = memory_mb(system, name, "VmHWM") - idle[name]
            assert peak < MOST_MB, f"{name}: {peak:.0f} MB over idle in round {number}"
    # The process that answers holds no image at all.
    assert memory_mb(system, "tasks", "VmHWM") - idle["tasks"] < NONE_MB


def predict(system: System, prompt: str, images: int) -> str:
    made = system.post(
        "/v1/models/local/moa-tiny-image/predictions",
        {"input": {"prompt": prompt, "n": images}},
        prefer="respond-async",
    )
    assert made.status_code == 201, made.text
    found: str = made.json()["id"]
    return found


def test_what_brings_the_schema_up_to_date_is_not_kept(system: System) -> None:
    """The task service found no schema and made one; Alembic and what it stands on are in none of the processes."""
    for name in ("auth", "tasks", "worker"):
        mapped = Path(f"/proc/{system.pid(name)}/maps").read_text()
        assert "psycopg" in mapped  # a compiled part of what is loaded is seen here
        assert "sqlalchemy" not in mapped, name
