"""The documented task and prediction APIs through the real edge, router and auth: samples, errors, callbacks."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from datetime import datetime
from typing import Any

import pytest
import requests
from standardwebhooks import Webhook

from moa.task.v1 import task_pb2
from services.tasks.dialects.task.servicer import result_of
from tests.emulators.painter import paint
from tests.emulators.receiver import Receiver
from tests.tasks.system import System, until


def finished(system: System, task_id: str) -> dict[str, Any]:
    """Query a task, as the document does, until it has ended."""

    def ended() -> dict[str, Any] | None:
        data: dict[str, Any] = system.get(f"/api/task/query?task_id={task_id}").json()["data"]
        return data if data["status"] in ("success", "failed") else None

    found: dict[str, Any] = until(ended, what="the task's end")
    return found


def created(system: System, body: dict[str, Any], **headers: str) -> str:
    made = system.post("/api/image/gen", body, **headers)
    assert made.status_code == 200, made.text
    assert made.json()["code"] == 0
    assert made.json()["message"] == "ok"
    task_id: str = made.json()["data"]["task_id"]
    assert re.fullmatch(r"ta[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", task_id)
    return task_id


# The task API (G).


def test_the_task_apis_sample_makes_an_image(system: System) -> None:
    """Create, query until success, fetch the image; the credits consumed have six decimals."""
    task_id = created(system, {"model": "google/gempix2", "prompt": "A beautiful landscape"})
    data = finished(system, task_id)
    assert {k: data[k] for k in ("task_id", "status", "consumed", "status_reason")} == {
        "task_id": task_id,
        "status": "success",
        "consumed": "0.500000",
        "status_reason": {"message": None},
    }
    datetime.fromisoformat(data["created_at"])
    [result] = data["result"]
    image = requests.get(result["image"], timeout=60)
    assert image.status_code == 200
    assert image.content == paint("A beautiful landscape", 0, 64, 64)
    assert image.headers["content-type"] == "image/png"
    name = result["image"].rpartition("/")[2].partition("?")[0]
    account = re.sub(r"[^A-Za-z0-9-]", "-", system.account_id)
    assert re.fullmatch(rf"{account}_\d{{8}}_[0-9a-f]{{32}}\.png", name)


def test_the_documents_curl_runs_as_written(system: System) -> None:
    """The sample of the document, host and key changed."""
    done = subprocess.run(
        [
            "curl", "-s", "-X", "POST", f"{system.url}/api/image/gen",
            "-H", "Content-Type: application/json",
            "-H", f"Authorization: Bearer {system.api_key}",
            "-d", '{\n    "model": "google/gempix2",\n    "prompt": "A beautiful landscape"\n  }',
        ],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["code"] == 0


def test_the_callback_is_the_documented_payload_and_is_signed(system: System, receiver: Receiver) -> None:
    """The payload has the document's fields and no other; the account's secret verifies it."""
    task_id = created(
        system,
        {"model": "google/gemini-2.5-flash-image", "prompt": "callback", "images": [], "callback_url": receiver.url},
    )
    until(lambda: receiver.of(task_id), what="the callback")
    headers, body = receiver.of(task_id)[0]
    assert set(body) == {"result", "status", "task_id", "consumed", "status_reason"}
    assert (body["status"], body["consumed"], body["status_reason"]) == ("success", "0.500000", {"message": None})
    assert requests.get(body["result"][0]["image"], timeout=60).status_code == 200
    secret = system.get("/v1/webhooks/default/secret").json()["key"]
    [raw] = [data for sent, data in receiver.arrived if sent["webhook-id"] == headers["webhook-id"]]
    assert Webhook(secret).verify(raw, headers) == body


def test_a_failed_tasks_callback_has_no_result_and_costs_nothing(system: System, receiver: Receiver) -> None:
    """result is null, status failed, the reason is told, nothing consumed."""
    task_id = created(
        system, {"model": "google/gempix2", "prompt": "x fail=content_policy", "callback_url": receiver.url}
    )
    until(lambda: receiver.of(task_id), what="the callback")
    _, body = receiver.of(task_id)[0]
    assert body == {
        "result": None,
        "status": "failed",
        "task_id": task_id,
        "consumed": "0.000000",
        "status_reason": {"message": "as asked"},
    }


def test_reference_images_may_be_data_uris(system: System) -> None:
    """Bytes reach the model; a link is fetched through the guard."""
    uri = "data:image/png;base64," + base64.b64encode(paint("reference", 0, 32, 32)).decode()
    task_id = created(system, {"model": "google/gempix2", "prompt": "Put them in a basket", "images": [uri, uri]})
    assert finished(system, task_id)["status"] == "success"


def test_reference_images_by_link_are_fetched_through_the_guard(system: System, receiver: Receiver) -> None:
    """Four links work; one that is missing, no image, or inside fails the task, says why, and costs nothing."""
    receiver.files["/reference.png"] = paint("reference", 0, 32, 32)
    receiver.files["/page.html"] = b"<html>"
    base = receiver.url.removesuffix("/hook")

    def made(*links: str) -> dict[str, Any]:
        body = {"model": "google/gempix2", "prompt": "Put them in a basket", "images": links}
        return finished(system, created(system, body))

    good = f"{base}/reference.png"
    assert made(good, good, good, good)["status"] == "success"
    for bad, why in (
        (f"{base}/missing.png", "404"),
        (f"{base}/page.html", "PNG, JPEG, GIF or WebP"),
        ("https://169.254.169.254/latest/meta-data/", "public internet"),
    ):
        failed = made(good, bad)
        assert (failed["status"], failed["result"], failed["consumed"]) == ("failed", None, "0.000000")
        assert why in failed["status_reason"]["message"]
        assert failed["status_reason"]["message"].startswith("images[1]")


def test_a_link_that_does_not_answer_is_tried_twice_and_named(system: System, receiver: Receiver) -> None:
    """It is the caller's to mend, so the task fails soon, with the reason, and no model is asked."""
    receiver.broken.add("/down.png")
    link = f"{receiver.url.removesuffix('/hook')}/down.png"
    task_id = created(system, {"model": "google/gempix2", "prompt": "nobody answers", "images": [link]})
    failed = finished(system, task_id)
    assert (failed["status"], failed["consumed"]) == ("failed", "0.000000")
    assert failed["status_reason"]["message"] == "images[0]: the URL answered 503"
    assert receiver.asked.count("/down.png") == 2
    assert system.paintings("begin", "nobody answers") == 0


G_ERRORS = [
    ("no prompt", {"model": "google/gempix2"}, 400, {"code": 1, "message": "failed", "detail": "prompt is required"}),
    (
        "empty prompt",
        {"model": "m", "prompt": " "},
        400,
        {"code": 1, "message": "failed", "detail": "prompt is required"},
    ),
    ("no model", {"prompt": "x"}, 400, {"code": 1, "message": "failed", "detail": "model is required"}),
    (
        "five images",
        {"model": "google/gempix2", "prompt": "x", "images": ["https://example.com/a.png"] * 5},
        400,
        {"code": 1, "message": "failed", "detail": "at most 4 images"},
    ),
    (
        "an image that is no link",
        {"model": "google/gempix2", "prompt": "x", "images": ["ftp://x"]},
        400,
        {"code": 1, "message": "failed", "detail": "images[0]: an https link or a data: URI is expected"},
    ),
    (
        "a text that is none",
        {"model": "google/gempix2", "prompt": 5},
        400,
        {"code": 1, "message": "failed", "detail": "prompt: expected a string, got a whole number"},
    ),
    (
        "a callback inside",
        {"model": "google/gempix2", "prompt": "x", "callback_url": "https://127.0.0.1/x"},
        400,
        {"code": 1, "message": "failed", "detail": "callback_url: this host is not on the public internet"},
    ),
    (
        "an unknown model",
        {"model": "no/such", "prompt": "x"},
        404,
        {"code": 1, "message": "unknown model 'no/such'; GET /v1/models lists those that you may use"},
    ),
]


@pytest.mark.parametrize(("body", "status", "answer"), [row[1:] for row in G_ERRORS], ids=[row[0] for row in G_ERRORS])
def test_the_task_apis_refusals(system: System, body: Any, status: int, answer: dict[str, Any]) -> None:
    """Every documented error body, and those beside them in the same form."""
    found = system.post("/api/image/gen", body)
    assert (found.status_code, found.json()) == (status, answer)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer dk-1234567890abcdef"}, {"authorization": "Basic x"}])
def test_the_two_documented_401_bodies(system: System, headers: dict[str, str]) -> None:
    """Creation says code 1, query says code 401."""
    gen = requests.post(f"{system.url}/api/image/gen", json={"prompt": "x"}, headers=headers, timeout=60)
    assert (gen.status_code, gen.json()) == (401, {"code": 1, "message": "Invalid API key"})
    query = requests.get(f"{system.url}/api/task/query?task_id=ta0", headers=headers, timeout=60)
    assert (query.status_code, query.json()) == (401, {"code": 401, "message": "Invalid API key"})


def test_the_query_finds_only_ones_own_tasks(system: System) -> None:
    """An unknown task and another account's are the same documented 404."""
    task_id = created(system, {"model": "google/gempix2", "prompt": "mine"})
    _, other = system.account()
    for given in ("ta823dfb-eaac-44fd-aec2-3e2c7ba8e071", task_id):
        key = other if given == task_id else system.api_key
        found = requests.get(
            f"{system.url}/api/task/query",
            params={"task_id": given},
            headers={"authorization": f"Bearer {key}"},
            timeout=60,
        )
        assert (found.status_code, found.json()) == (404, {"code": 1, "message": "task not found"})


def test_bad_json_and_no_credit(system: System) -> None:
    """A body that is no JSON is 400 in the document's form; an account without credit is 402 and gets no task."""
    bad = requests.post(f"{system.url}/api/image/gen", data="{", headers=system.auth, timeout=60)
    assert bad.status_code == 400
    assert bad.json()["message"] == "failed"
    account, key = system.account(micro_credits=400_000)
    body = {"model": "google/gempix2", "prompt": "too dear"}
    poor = requests.post(
        f"{system.url}/api/image/gen", json=body, headers={"authorization": f"Bearer {key}"}, timeout=60
    )
    assert (poor.status_code, poor.json()) == (402, {"code": 1, "message": "not enough credits"})
    assert system.query("select count(*) from tasks.tasks where account_id = %s", account) == [(0,)]
    # What it had reserved of its images is given back.
    until(
        lambda: system.query("select images from quota_days where subject = %s", account) in ([], [(0,)]),
        what="the quota's return",
    )


@pytest.mark.parametrize(
    ("state", "attempts", "status"),
    [
        (task_pb2.TASK_STATE_PENDING, 0, "pending"),
        (task_pb2.TASK_STATE_PENDING, 1, "submitted"),
        (task_pb2.TASK_STATE_SUBMITTED, 1, "submitted"),
        (task_pb2.TASK_STATE_RUNNING, 1, "in_progress"),
        (task_pb2.TASK_STATE_SUCCEEDED, 1, "success"),
        (task_pb2.TASK_STATE_FAILED, 1, "failed"),
        (task_pb2.TASK_STATE_CANCELLED, 1, "failed"),
    ],
)
def test_every_state_has_a_documented_word(state: task_pb2.TaskState.ValueType, attempts: int, status: str) -> None:
    """The document knows five words; a result is shown with one of them alone."""
    shown = task_pb2.Task(id="ta1", state=state, attempts=attempts, consumed_micros=1_234_567)
    shown.outputs.add(link="https://moa.example/files/x.png")
    found = result_of(shown)
    assert (found["status"], found["consumed"]) == (status, "1.234567")
    assert (found["result"] is not None) == (status == "success")


def test_a_task_waits_behind_its_accounts_others(system: System) -> None:
    """Eight of an account run at once here: the ninth is pending while the others are in progress, then it runs too."""
    body = {"model": "google/gempix2", "prompt": "crowd gate=crowd steps=4"}
    made = [created(system, body) for _ in range(9)]

    def statuses() -> list[str]:
        return sorted(system.get(f"/api/task/query?task_id={task_id}").json()["data"]["status"] for task_id in made)

    until(lambda: statuses() == ["in_progress"] * 8 + ["pending"], what="eight at once")
    (system.gates / "crowd").touch()
    assert [finished(system, task_id)["status"] for task_id in made] == ["success"] * 9


def test_another_accounts_output_is_no_reference_without_its_signature(system: System) -> None:
    """The owner names it by its bare address, whoever was given the whole link by that; nobody else reaches it."""
    link = finished(system, created(system, {"model": "google/gempix2", "prompt": "mine alone"}))["result"][0]["image"]
    bare = link.partition("?")[0]
    _, key = system.account()
    stranger = {"authorization": f"Bearer {key}"}

    def used(reference: str, headers: dict[str, str]) -> dict[str, Any]:
        body = {"model": "google/gempix2", "prompt": "use it", "images": [reference]}
        made = requests.post(f"{system.url}/api/image/gen", json=body, headers=headers, timeout=60).json()
        url = f"{system.url}/api/task/query?task_id={made['data']['task_id']}"

        def ended() -> dict[str, Any] | None:
            data: dict[str, Any] = requests.get(url, headers=headers, timeout=60).json()["data"]
            return data if data["status"] in ("success", "failed") else None

        found: dict[str, Any] = until(ended, what="the end")
        return found

    assert used(bare, system.auth)["status"] == "success"
    assert used(link, stranger)["status"] == "success"
    refused = used(bare, stranger)
    assert (refused["status"], refused["consumed"]) == ("failed", "0.000000")
    assert refused["status_reason"]["message"].startswith("images[0]: ")


def test_an_image_of_a_task_counts_once_as_an_image(system: System) -> None:
    """Success charges one image and the price, a failure neither."""
    account, key = system.account()
    headers = {"authorization": f"Bearer {key}"}

    def make(prompt: str) -> None:
        body = {"model": "google/gempix2", "prompt": prompt}
        made = requests.post(f"{system.url}/api/image/gen", json=body, headers=headers, timeout=60).json()
        task_id = made["data"]["task_id"]
        until(
            lambda: system.query("select state from tasks.tasks where id = %s and state >= 4", task_id),
            what="the end",
        )

    for prompt in ("one", "two", "no fail=content_policy"):
        make(prompt)
    until(lambda: not system.query("select 1 from tasks.quota_outbox"), what="the settlement")
    spent = (
        "select coalesce(sum(images), 0)::int from ledger "
        "where account_id = %s and kind in ('settle', 'late', 'orphan')"
    )
    assert system.query(spent, account) == [(2,)]
    charged = "select sum(micro_credits)::int from ledger where account_id = %s and kind = 'settle'"
    assert system.query(charged, account) == [(1_000_000,)]
    taken = "select micro_credits, images from quota_counters where subject = %s and period = 'total'"
    until(lambda: system.query(taken, account) == [(1_000_000, 2)], what="the end of what was set aside")


def test_an_idempotency_key_makes_one_task(system: System) -> None:
    """The same request gives the same task; another under the key is 422."""
    body = {"model": "google/gempix2", "prompt": "idempotent"}
    first = created(system, body, **{"idempotency-key": "once"})
    assert created(system, body, **{"idempotency-key": "once"}) == first
    other = system.post("/api/image/gen", {**body, "prompt": "other"}, **{"idempotency-key": "once"})
    assert other.status_code == 422
    assert other.json()["code"] == 1
