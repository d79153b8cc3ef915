"""Servers that callers name and that mean harm: as references and as webhooks, through the whole path."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.emulators.hostile import SENDING_BYTES, Hostile
from tests.tasks.system import System, until

MOST_BYTES = 10 * 2**20
"""What an image may have."""
AHEAD_BYTES = 2**20 + SENDING_BYTES
"""What an HTTP client may have read ahead of who reads the body, and by how much reading is told too high."""


@dataclass(frozen=True)
class Field:
    """A gateway that may call `outside`, which leads to `inside`, where nobody may be led."""

    system: System
    outside: Hostile
    inside: Hostile
    unanswered: str = ""
    """A task whose webhook is never answered. It is given up in its time, while the tests do something else."""

    def created(self, **body: Any) -> str:
        """Create a task; give its id."""
        made = self.system.post("/api/image/gen", {"model": "google/gempix2", "prompt": "x", **body})
        assert made.status_code == 200, made.text
        task_id: str = made.json()["data"]["task_id"]
        return task_id

    def failure(self, task_id: str) -> str:
        """Wait for a task's failure; give what it says."""

        def ended() -> dict[str, Any] | None:
            data: dict[str, Any] = self.system.get(f"/api/task/query?task_id={task_id}").json()["data"]
            return data if data["status"] in ("success", "failed") else None

        found: dict[str, Any] = until(ended, what="the task's end")
        assert (found["status"], found["consumed"]) == ("failed", "0.000000"), found
        message: str = found["status_reason"]["message"]
        return message

    def delivery(self, task_id: str) -> dict[str, Any]:
        """Wait for what becomes of a task's webhook."""

        def settled() -> dict[str, Any] | None:
            found = self.system.get(f"/v1/webhooks/deliveries?task_id={task_id}").json()["deliveries"]
            return next((each for each in found if each["state"] != "DELIVERY_STATE_PENDING"), None)

        found: dict[str, Any] = until(settled, what="the webhook's end")
        return found

    def memory_bytes(self, name: str) -> int:
        """Return the most memory that a process ever had."""
        told = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.system.pid(name)}/status").read_text())
        assert told
        return int(told[1]) * 1024


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with Hostile() as inside:
        leads = (f"{inside.url}/image.png", "https://169.254.169.254/latest/meta-data/", "https://[::1]/image.png")
        with Hostile(*leads) as outside:
            environment = {
                "MOA_EGRESS_ALLOW": f"127.0.0.1:{outside.port}",
                "MOA_TASK_ATTEMPTS": "1",
                "MOA_TASK_WORKERS": "8",
                "MOA_TASK_PER_ACCOUNT": "8",
                "MOA_WEBHOOK_PAUSES_S": "[]",
                "MOA_WEBHOOK_TIMEOUT_S": "15",
                # A worker that a busy machine holds up keeps its task, whose one attempt this is.
                "MOA_TASK_LEASE_S": "60",
            }
            with System(tmp_path_factory.mktemp("guarded"), environment=environment) as system:
                made = Field(system, outside, inside)
                yield replace(made, unanswered=made.created(callback_url=f"{outside.url}/silent"))


def test_hostile_references_fail_their_task_and_harm_nothing_else(field: Field) -> None:
    """Slow, endless and huge bodies are cut, redirects to inside not followed; each is told by its number.

    The router's memory grows by no more than a few images, an image is served meanwhile, and nothing is charged.
    """
    outside, base = field.outside, field.outside.url
    good = f"{base}/image.png"
    before = field.memory_bytes("router")
    slow, endless, huge, *inside = (
        field.created(images=[good, f"{base}/{path}"])
        for path in ("slow", "endless", "huge", "redirect/0", "redirect/1", "redirect/2")
    )
    fine = field.system.post("/v1/models/local/moa-tiny-image/predictions", {"input": {"prompt": "y", "image": good}})
    assert fine.json()["status"] == "succeeded"
    for task_id in inside:
        assert field.failure(task_id).startswith("images[1]: ")
    for task_id in (endless, huge):
        assert field.failure(task_id) == "images[1]: more than 10 MB"
    assert field.failure(slow) == "images[1]: the URL did not answer in time"
    until(lambda: {"/slow", "/endless", "/huge"} <= set(outside.left), what="the gateway's hanging up")
    assert field.inside.asked == []
    assert 0 < outside.read_bytes["/endless"] <= MOST_BYTES + AHEAD_BYTES
    # What says that it is too large is not read at all.
    assert outside.read_bytes["/huge"] <= AHEAD_BYTES
    assert field.memory_bytes("router") - before < 6 * MOST_BYTES


def test_hostile_receivers_cost_a_status_line(field: Field) -> None:
    """A receiver's body is never read, a silent one is left in time, a redirect is not followed."""
    outside, base = field.outside, field.outside.url
    before = field.memory_bytes("worker")
    outside.read_bytes.clear()
    left = Counter(outside.left)
    made = {
        path: field.created(callback_url=f"{base}/{path}")
        for path in ("slow", "endless", "huge", "redirect/0", "redirect/1")
    }
    made["silent"] = field.unanswered
    ended = {path: field.delivery(task_id) for path, task_id in made.items()}
    for path in ("slow", "endless", "huge"):
        assert (ended[path]["state"], ended[path]["attempts"]) == ("DELIVERY_STATE_DELIVERED", 1)
    assert ended["silent"]["state"] == "DELIVERY_STATE_DEAD"
    assert "in time" in ended["silent"]["last_error"]
    for path in ("redirect/0", "redirect/1"):
        assert (ended[path]["state"], ended[path]["last_status"]) == ("DELIVERY_STATE_DEAD", 307)
    left.update(("/slow", "/endless", "/huge"))
    left["/silent"] = 1
    until(lambda: Counter(outside.left) >= left, what="the gateway's hanging up")
    assert field.inside.asked == []
    assert set(outside.read_bytes) <= {"/endless", "/huge"}
    assert max(outside.read_bytes.values(), default=0) <= AHEAD_BYTES
    assert field.memory_bytes("worker") - before < 2 * MOST_BYTES
