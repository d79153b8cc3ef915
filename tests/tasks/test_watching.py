"""Following tasks: gRPC and server-sent events through the real edge, resumed where a reader left off."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import requests
from PIL import Image

from moa.common.v1 import media_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from tests.tasks.system import System, until


@pytest.fixture
def stub(system: System) -> Iterator[task_service_pb2_grpc.TaskServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{system.port['edge']}") as channel:
        yield task_service_pb2_grpc.TaskServiceStub(channel)


def metadata(system: System) -> tuple[tuple[str, str | bytes], ...]:
    return (("x-api-key", system.api_key),)


def create(system: System, stub: task_service_pb2_grpc.TaskServiceStub, prompt: str, **more: Any) -> task_pb2.Task:
    image = image_service_pb2.GenerateImageRequest(model="moa-tiny-image", prompt=prompt, **more)
    request = task_service_pb2.CreateTaskRequest(work=task_pb2.TaskWork(image=image))
    return stub.CreateTask(request, metadata=metadata(system)).task


def sse(system: System, task_id: str, **headers: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Read a task's stream to its end: number, kind and data of each event."""
    found = []
    answer = requests.get(
        f"{system.url}/v1/tasks/{task_id}/events", headers={**system.auth, **headers}, stream=True, timeout=60
    )
    if answer.status_code == 204:
        return []
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream"
    for block in answer.content.decode().split("\n\n"):
        if block:
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def test_both_streams_tell_the_whole_story_in_order(
    system: System, stub: task_service_pb2_grpc.TaskServiceStub
) -> None:
    """From created to succeeded, numbered without gaps; stage, step, steps, ETA and a preview that can be fetched."""
    task = create(system, stub, "story steps=4 pause=0.6", preview_every=1)
    events = [
        event
        for answer in stub.WatchTask(task_service_pb2.WatchTaskRequest(id=task.id), metadata=metadata(system))
        for event in answer.events
    ]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    kinds = [event.WhichOneof("event") for event in events]
    # On a busy machine a worker may be taken for dead: then another try is told behind the first.
    last = len(kinds) - 1 - kinds[::-1].index("submitted")
    assert set(kinds[1:last]) <= {"submitted", "started", "progress", "output", "requeued"}
    told = [kinds[0], *(kind for kind in kinds[last:] if kind != "progress")]
    assert told == ["created", "submitted", "started", "output", "succeeded"]
    steps = [event.progress for event in events[last:] if event.progress.stage == "diffusion"]
    assert {each.steps for each in steps} == {4}
    assert steps[-1].step == 4
    assert all(each.HasField("eta") for each in steps)
    assert requests.get(steps[0].preview_link, timeout=60).content.startswith(b"\x89PNG")
    shown = sse(system, task.id)
    assert [(number, kind) for number, kind, _ in shown] == [(e.sequence, e.WhichOneof("event")) for e in events]
    output = [data for _, kind, data in shown if kind == "output"][-1]
    assert requests.get(output["output"]["link"], timeout=60).status_code == 200


def test_a_reader_that_comes_back_gets_what_it_missed_and_no_more(
    system: System, stub: task_service_pb2_grpc.TaskServiceStub
) -> None:
    """After any event: by Last-Event-ID and by after_sequence, also when the task has ended."""
    task = create(system, stub, "resume")
    whole = sse(system, task.id)
    for last, _, _ in whole:
        rest = sse(system, task.id, **{"last-event-id": str(last)})
        assert [number for number, _, _ in rest] == list(range(last + 1, len(whole) + 1))
        request = task_service_pb2.WatchTaskRequest(id=task.id, after_sequence=last)
        seen = [e.sequence for answer in stub.WatchTask(request, metadata=metadata(system)) for e in answer.events]
        assert seen == [number for number, _, _ in rest]


def test_a_reader_survives_the_death_of_the_service(
    system: System, stub: task_service_pb2_grpc.TaskServiceStub
) -> None:
    """kill -9 breaks the stream; coming back with the last number, the reader has each event once."""
    task = create(system, stub, "survive gate=survive steps=4")
    until(lambda: (system.gates / "survive.reached").exists(), what="half of the work")
    seen: list[int] = []
    call = stub.WatchTask(task_service_pb2.WatchTaskRequest(id=task.id), metadata=metadata(system))

    def read() -> None:
        killed = False
        for answer in call:
            seen.extend(event.sequence for event in answer.events)
            if len(seen) >= 3 and not killed:
                killed = True
                system.kill("tasks")

    with pytest.raises(grpc.RpcError):
        read()
    system.ready("tasks")
    system.ready("edge")
    (system.gates / "survive").touch()

    def rest() -> list[int] | None:
        request = task_service_pb2.WatchTaskRequest(id=task.id, after_sequence=seen[-1])
        try:
            answers = list(stub.WatchTask(request, metadata=metadata(system)))
        except grpc.RpcError:
            return None
        return [event.sequence for answer in answers for event in answer.events]

    seen += until(rest, what="the rest")
    assert seen == list(range(1, len(seen) + 1))
    found = stub.GetTask(task_service_pb2.GetTaskRequest(id=task.id), metadata=metadata(system)).task
    assert (found.state, found.last_sequence) == (task_pb2.TASK_STATE_SUCCEEDED, seen[-1])


def test_typed_rest_creates_gets_lists_and_cancels(system: System) -> None:
    """The same contract as JSON, with fresh links, and NATIVE errors."""
    body = {"work": {"image": {"model": "moa-tiny-image", "prompt": "rest", "count": 2}}}
    system.post("/v1/tasks", body)  # one more than a page of one has
    made = system.post("/v1/tasks", body)
    assert made.status_code == 200, made.text
    task_id = made.json()["task"]["id"]
    done = until(
        lambda: (f := system.get(f"/v1/tasks/{task_id}").json()["task"])["state"] == "TASK_STATE_SUCCEEDED" and f,
        what="the end",
    )
    assert [output["index"] for output in done["outputs"]] == [0, 1]
    assert done["outputs"][0]["receipt"]["engine"] == "painter"
    listed = system.get("/v1/tasks?page_size=1").json()
    assert len(listed["tasks"]) == 1
    assert listed["next_page_token"]
    cancelled = system.post(f"/v1/tasks/{task_id}/cancel", {})
    assert cancelled.json()["task"]["state"] == "TASK_STATE_SUCCEEDED"
    assert system.get("/v1/tasks/ta0").json() == {"detail": "task not found", "code": "not_found"}
    assert system.post("/v1/tasks", {"work": {}}).status_code == 422


def test_a_running_task_is_cancelled_down_to_the_model(
    system: System, stub: task_service_pb2_grpc.TaskServiceStub
) -> None:
    """Within a moment the model stops, the task is cancelled, and nothing is charged."""
    prompt = "stop gate=never-2"
    task = create(system, stub, prompt)
    until(lambda: (system.gates / "never-2.reached").exists(), what="the work")
    stub.CancelTask(task_service_pb2.CancelTaskRequest(id=task.id), metadata=metadata(system))
    until(lambda: system.paintings("cancelled", prompt), what="the model's stop")
    events = sse(system, task.id)
    assert events[-1][1] == "cancelled"
    returned = "select kind, images, micro_credits from ledger where reference = %s or request_id = %s"
    assert until(lambda: system.query(returned, task.id, task.id), what="the return") == [("return", 1, 500_000)]


def test_a_deadline_ends_running_work(system: System, stub: task_service_pb2_grpc.TaskServiceStub) -> None:
    """A task that takes too long fails, its work is stopped, nothing is charged."""
    for deadline_s in (4, 16, 64):
        prompt = f"slow {deadline_s} gate=never-3"
        image = image_service_pb2.GenerateImageRequest(model="moa-tiny-image", prompt=prompt)
        request = task_service_pb2.CreateTaskRequest(work=task_pb2.TaskWork(image=image))
        request.deadline.FromSeconds(deadline_s)
        task = stub.CreateTask(request, metadata=metadata(system)).task
        events = sse(system, task.id)
        assert events[-1][1] == "failed"
        assert events[-1][2]["failed"]["error"]["reason"] == "REASON_DEADLINE_EXCEEDED"
        # On a busy machine it may end before it has begun: that one has no work to stop.
        if system.paintings("begin", prompt):
            break
    until(lambda: system.paintings("cancelled", prompt), what="the model's stop")


def test_outputs_that_cannot_be_stored_wait_and_cost_nothing_more(
    system: System, stub: task_service_pb2_grpc.TaskServiceStub
) -> None:
    """Storage fails for good: nothing is charged; resuming stores what was made, without making it anew."""
    prompt = "store me"
    system.objects.rename(system.objects.with_name("away"))
    system.objects.write_text("not a folder")
    try:
        image = image_service_pb2.GenerateImageRequest(model="moa-tiny-image", prompt=prompt)
        request = task_service_pb2.CreateTaskRequest(work=task_pb2.TaskWork(image=image))
        request.deadline.FromMilliseconds(60_000)
        task = stub.CreateTask(request, metadata=metadata(system)).task
        until(lambda: system.query("select 1 from tasks.tasks where id = %s and made", task.id), what="the image")
        # Its last attempt.
        system.query("update tasks.tasks set attempts = 100 where id = %s", task.id)
        events = sse(system, task.id)
        assert events[-1][2]["failed"]["error"]["reason"] == "REASON_STORAGE_FAILED"
    finally:
        system.objects.unlink()
        system.objects.with_name("away").rename(system.objects)
    painted = system.paintings("begin", prompt)
    resume = task_service_pb2.ResumeTaskRequest(id=task.id)
    again = stub.ResumeTask(resume, metadata=metadata(system)).task
    assert again.id != task.id
    assert stub.ResumeTask(resume, metadata=metadata(system)).task.id == again.id
    assert sse(system, again.id)[-1][1] == "succeeded"
    assert system.paintings("begin", prompt) == painted
    charged = "select request_id, micro_credits from ledger where kind = 'settle' and request_id = any(%s)"
    assert until(lambda: system.query(charged, [task.id, again.id]), what="the charge") == [(again.id, 500_000)]


def test_a_task_counts_in_its_minute_and_by_its_tags(system: System) -> None:
    """Images a minute bind tasks from when they are asked for; spending is reported by their dialect and tags."""
    limited = system.post("/account/keys", {"limits": {"images_per_minute": 1}}).json()
    key = {"authorization": f"Bearer {limited['api_key']}"} | {"moa-tags": "nightly, art"}
    body = {"work": {"image": {"model": "moa-tiny-image", "prompt": "a lamp"}}}
    two = {"work": {"image": {"model": "moa-tiny-image", "prompt": "a lamp", "count": 2}}}
    refused = system.post("/v1/tasks", two, **key)
    assert (refused.status_code, "1 image a minute for this key" in refused.text) == (429, True)
    task_id = system.post("/v1/tasks", body, **key).json()["task"]["id"]
    refused = system.post("/v1/tasks", body, **key)
    assert (refused.status_code, "1 image a minute for this key" in refused.text) == (429, True)
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert sse(system, task_id)[-1][1] == "succeeded"
    booked = "select dialect, tags from ledger where kind = 'settle' and request_id = %s"
    assert until(lambda: system.query(booked, task_id), what="the charge") == [("tasks", ["art", "nightly"])]


def test_a_key_sees_the_tasks_that_it_could_have_made(system: System) -> None:
    """A key for text, or for another model, neither reads, lists, follows nor ends the account's image tasks."""
    body = {"work": {"image": {"model": "moa-tiny-image", "prompt": "a lamp"}}}
    made = system.post("/v1/tasks", body)
    assert made.status_code == 200, made.text
    task_id = made.json()["task"]["id"]

    def key(**scope: object) -> dict[str, str]:
        found = system.post("/account/keys", {"scopes": [{"provider": "*", "model": "*", **scope}]})
        assert found.status_code == 200, found.text
        return {"x-api-key": found.json()["api_key"]}

    def statuses(headers: dict[str, str]) -> list[int]:
        url = f"{system.url}/v1/tasks"
        asked = [
            requests.get(f"{url}/{task_id}", headers=headers, timeout=20),
            requests.get(f"{url}/{task_id}/events", headers=headers, timeout=20),
            requests.get(url, headers=headers, timeout=20),
            requests.post(f"{url}/{task_id}/cancel", json={}, headers=headers, timeout=20),
        ]
        return [answer.status_code for answer in asked]

    assert statuses(key(operations=["OPERATION_TEXT"])) == [404, 404, 403, 404]
    assert statuses(key(model="other-*")) == [404, 404, 200, 404]
    wide = key(operations=["OPERATION_TASK"])
    assert requests.get(f"{system.url}/v1/tasks/{task_id}", headers=wide, timeout=20).status_code == 200


def test_a_variation_needs_no_prompt(system: System, stub: task_service_pb2_grpc.TaskServiceStub) -> None:
    """Its image says all; what is made of words alone is refused without any."""
    image = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(image, "PNG")
    given = media_pb2.ImageInput(data=image.getvalue(), mime_type="image/png")
    with pytest.raises(grpc.RpcError, match="prompt is required"):
        create(system, stub, " ")
    with pytest.raises(grpc.RpcError, match="prompt is required"):
        create(system, stub, "", images=[given])
    task = create(system, stub, "", operation=image_pb2.OPERATION_VARIATION, images=[given])
    request = task_service_pb2.WatchTaskRequest(id=task.id)
    *_, last = [event for answer in stub.WatchTask(request, metadata=metadata(system)) for event in answer.events]
    assert last.WhichOneof("event") == "succeeded"
