"""The documented desk API, from the edge to the shops, with pictures of desks."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from PIL import Image
from standardwebhooks import Webhook

from tests.emulators.naver import CLIENT_ID, CLIENT_SECRET, Naver, shelf
from tests.emulators.receiver import Receiver
from tests.emulators.vision import scene
from tests.tasks.system import System, until


@pytest.fixture(scope="module")
def naver() -> Iterator[Naver]:
    with Naver() as running:
        yield running


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, naver: Naver, receiver: Receiver) -> Iterator[System]:
    environment = {
        "MOA_NAVER_URL": naver.url,
        "MOA_NAVER_CLIENT_ID": CLIENT_ID,
        "MOA_NAVER_CLIENT_SECRET": CLIENT_SECRET,
        "MOA_EGRESS_ALLOW": f"127.0.0.1:{receiver.port}",
        "MOA_DESK_MAX_SIDE": "128",
        "MOA_TASK_PROVENANCE": "1",
        # Nobody is killed here: a worker that a busy machine holds up keeps its task, and begins no second image.
        "MOA_TASK_LEASE_S": "60",
    }
    with System(tmp_path_factory.mktemp("desk"), environment=environment, desk=True) as running:
        yield running


def data_uri(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


def begun(system: System, path: str = "/v1/generate", **body: Any) -> str:
    made = system.post(path, body)
    assert made.status_code == 202, made.text
    assert set(made.json()) == {"task_id", "status"}
    assert made.json()["status"] == "queued"
    found: str = made.json()["task_id"]
    return found


def result(system: System, task_id: str, path: str = "/v1/result/") -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = system.get(path + task_id).json()
        return found if found["status"] != "processing" else None

    found: dict[str, Any] = until(ended, what="the result")
    return found


def cheapest(name: str) -> list[dict[str, str]]:
    """What the document promises of an item, from what the shops have."""
    offered = sorted((item for item in shelf(name) if item["lprice"]), key=lambda item: int(item["lprice"]))
    return [
        {
            "title": item["title"].replace("<b>", "").replace("</b>", "").replace("&amp;", "&"),
            "price": f"{item['lprice']}원",
            "mall": item["mallName"] or "네이버",
            "category3": item["category3"],
            "category4": item["category4"],
            "link": item["link"],
            "image": item["image"],
        }
        for item in offered[:3]
    ]


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_a_desk_is_styled_and_its_things_are_found(system: System, prefix: str) -> None:
    """done, both images, and each thing's three cheapest offers under its own name, in the order found."""
    task_id = begun(
        system, f"{prefix}/generate", image_url=data_uri(scene(["monitor", "keyboard", "mouse"])), num_inference_steps=4
    )
    found = result(system, task_id, f"{prefix}/result/")
    assert list(found) == ["status", "initial_image_url", "processed_image_url", "모니터", "키보드", "마우스"]
    assert found["status"] == "done"
    for name in ("모니터", "키보드", "마우스"):
        assert found[name] == cheapest(name)
    image = requests.get(found["processed_image_url"], timeout=60)
    assert image.status_code == 200
    assert image.content.startswith(b"\x89PNG")
    name = found["processed_image_url"].rpartition("/")[2].partition("?")[0]
    assert len(name.split("_")) >= 3


def test_the_prompt_joins_caption_things_and_style(system: System) -> None:
    """What the model is asked for names what vision saw, the caller's wish and the document's style."""
    task_id = begun(
        system,
        initial_image_url=data_uri(scene(["plant", "mug"])),
        prompt="minimal wooden desk setup",
        num_inference_steps=2,
    )
    assert result(system, task_id)["status"] == "done"
    prompts = [line[2] for line in system.painted_lines()]
    [asked] = {prompt for prompt in prompts if "minimal wooden desk setup" in prompt}
    for words in ("a desk with a plant and a mug", "with plant, mug", "a realistic image", "aesthetically matches"):
        assert words in asked


def test_the_gateways_own_link_is_read_from_the_store(system: System) -> None:
    """An image that was made before can be styled; another account's cannot."""
    first = result(system, begun(system, prompt="a monitor on a desk", num_inference_steps=2))
    link = first["processed_image_url"]
    again = result(system, begun(system, initial_image_url=link, num_inference_steps=2))
    assert again["status"] == "done"
    assert again["initial_image_url"] == link
    _, key = system.account()
    headers = {"authorization": f"Bearer {key}"}
    made = requests.post(f"{system.url}/v1/generate", json={"image_url": link}, headers=headers, timeout=60).json()
    stolen = until(
        lambda: (
            (f := requests.get(f"{system.url}/v1/result/{made['task_id']}", headers=headers, timeout=60).json())[
                "status"
            ]
            != "processing"
            and f
        ),
        what="the refusal",
    )
    assert (stolen["status"], stolen["error_code"]) == ("failed", "NOT_FOUND")


def test_what_is_no_desk_gets_shopping_alone_and_is_told_so(system: System) -> None:
    """No new image, the things found all the same."""
    found = result(system, begun(system, image_url=data_uri(scene(["mouse"], desk=False))))
    assert found["status"] == "done"
    assert found["processed_image_url"] is None
    assert found["skipped"] == "not_a_desk"
    assert found["마우스"] == cheapest("마우스")


def test_a_failed_synthesis_gets_shopping_alone_and_is_told_so(system: System) -> None:
    """The model refuses; the shops still answer, and nothing is charged for the image that was not made."""
    task_id = begun(system, image_url=data_uri(scene(["mouse"])), prompt="fail=content_policy")
    found = result(system, task_id)
    assert found["status"] == "done"
    assert found["processed_image_url"] is None
    assert found["skipped"] == "synthesis_failed"
    assert found["마우스"] == cheapest("마우스")


def test_a_shop_that_fails_takes_nothing_else(system: System, naver: Naver) -> None:
    """One item's search fails for good: its list is empty, the rest stands."""
    naver.scripts.extend([500] * 3)
    found = result(system, begun(system, image_url=data_uri(scene(["mouse"])), num_inference_steps=2))
    assert found["status"] == "done"
    assert found["마우스"] == []
    assert found["processed_image_url"]


def test_a_prompt_alone_finds_what_it_names(system: System) -> None:
    """No original: text to image, and the items that the prompt names, in either language."""
    found = result(system, begun(system, prompt="나무 책상 위의 키보드와 desk lamp", num_inference_steps=2))
    assert found["initial_image_url"] is None
    assert found["processed_image_url"]
    assert [name for name in found if name in ("키보드", "스탠드")] == ["키보드", "스탠드"]


def test_progress_is_told_while_it_runs(system: System) -> None:
    """processing, with the stage and its steps."""
    task_id = begun(system, image_url=data_uri(scene(["mug"])), prompt="gate=desk-half", num_inference_steps=4)
    until(lambda: (system.gates / "desk-half.reached").exists(), what="half of the steps")
    shown = until(
        lambda: (f := system.get(f"/v1/result/{task_id}").json()).get("stage") == "synthesis" and f, what="progress"
    )
    assert shown["status"] == "processing"
    assert shown["steps"] == 4
    (system.gates / "desk-half").touch()
    assert result(system, task_id)["status"] == "done"


def test_the_webhook_carries_the_result(system: System, receiver: Receiver) -> None:
    """The documented object with task_id and image_url, signed."""
    task_id = begun(
        system,
        image_url=data_uri(scene(["keyboard"])),
        prompt="dark-themed desk with LED strip",
        webhook_url=receiver.url,
        num_inference_steps=2,
    )
    until(lambda: receiver.of(task_id), what="the webhook")
    headers, body = receiver.of(task_id)[0]
    assert body["status"] == "done"
    assert body["키보드"] == cheapest("키보드")
    assert requests.get(body["image_url"], timeout=60).status_code == 200
    secret = system.get("/v1/webhooks/default/secret").json()["key"]
    [raw] = [data for sent, data in receiver.arrived if sent["webhook-id"] == headers["webhook-id"]]
    Webhook(secret).verify(raw, headers)


ERRORS: list[tuple[dict[str, Any], int, dict[str, str]]] = [
    ({}, 400, {"detail": "Prompt must not be empty."}),
    ({"prompt": ""}, 400, {"detail": "Prompt must not be empty."}),
    ({"prompt": "", "image_url": "https://example.com/a.png"}, 400, {"detail": "Prompt must not be empty."}),
    (
        {"prompt": "x", "guidance_scale": -1},
        422,
        {"error_code": "INVALID_INPUT", "message": "Guidance scale cannot be negative."},
    ),
    (
        {"prompt": "x", "height": 8192},
        422,
        {"error_code": "INVALID_INPUT", "message": "Height must be at least 8 and below 8192."},
    ),
    (
        {"prompt": "x", "width": 9000},
        422,
        {"error_code": "INVALID_INPUT", "message": "Width must be at least 8 and below 8192."},
    ),
    (
        {"prompt": "x", "num_inference_steps": 0},
        422,
        {"error_code": "INVALID_INPUT", "message": "Number of inference steps must be 1 to 150."},
    ),
    (
        {"prompt": 5},
        422,
        {"error_code": "INVALID_INPUT", "message": "prompt: expected a string or null, got a whole number"},
    ),
    (
        {"image_url": "file:///etc/passwd"},
        422,
        {
            "error_code": "INVALID_INPUT",
            "message": "initial_image_url: an https link or a data: URI is expected",
        },
    ),
]


@pytest.mark.parametrize(("body", "status", "answer"), ERRORS)
def test_refusals_are_worded_as_documented(
    system: System, body: dict[str, Any], status: int, answer: dict[str, str]
) -> None:
    """Every documented error body, and those beside them in the same form."""
    found = system.post("/v1/generate", body)
    assert (found.status_code, found.json()) == (status, answer)


def test_keys_and_other_accounts(system: System) -> None:
    """No key is 401, another account's task is 404, each in the dialect's form."""
    nobody = requests.post(f"{system.url}/generate", json={"prompt": "x"}, timeout=60)
    assert nobody.status_code == 401
    assert set(nobody.json()) == {"error_code", "message"}
    missing = system.get("/result/ta0")
    assert (missing.status_code, missing.json()) == (404, {"error_code": "NOT_FOUND", "message": "task not found"})


@pytest.mark.parametrize(
    "inside", ["https://127.0.0.1/x.png", "https://169.254.169.254/latest/meta-data/", "https://[::1]/x.png"]
)
def test_an_image_inside_is_never_fetched(system: System, inside: str) -> None:
    """The guard stands between callers and the gateway's own network."""
    found = result(system, begun(system, image_url=inside))
    assert (found["status"], found["error_code"]) == ("failed", "INVALID_INPUT")
    assert "public internet" in found["message"]


def test_health_and_info_need_no_key(system: System) -> None:
    """Every part by name, and what the document lists."""
    health = requests.get(f"{system.url}/healthcheck", timeout=60)
    assert health.status_code == 200
    assert health.json()["status"] == "ok"
    assert set(health.json()["dependencies"]) == {"tasks", "desk", "vision", "image", "shopping", "store"}
    info = requests.get(f"{system.url}/info", timeout=60).json()
    assert info["model"] == "moa-tiny-image"
    assert info["resolution"] == {"width": 128, "height": 128}
    assert info["defaults"]["num_inference_steps"] == 50
    assert info["defaults"]["guidance_scale"] == 7.5
    assert info["version"]


def test_health_without_a_part_that_desks_need(system: System) -> None:
    """503 while the desk service answers nothing, and which part it is; well again when it does."""
    stopped = system.pid("desk")
    os.kill(stopped, signal.SIGSTOP)
    try:
        gone = requests.get(f"{system.url}/healthcheck", timeout=30)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert (gone.status_code, gone.json()["status"]) == (503, "down")
    assert gone.json()["dependencies"]["desk"]["status"] == "down"
    until(lambda: requests.get(f"{system.url}/healthcheck", timeout=20).status_code == 200, what="the desk's return")


@contextmanager
def store_away(system: System) -> Iterator[None]:
    """Nothing can be stored meanwhile."""
    system.objects.rename(system.objects.with_name("away"))
    system.objects.write_text("not a folder")
    try:
        yield
    finally:
        system.objects.unlink()
        system.objects.with_name("away").rename(system.objects)


def paintings(system: System, wish: str) -> int:
    """Count the images that were begun for a wish; it is part of what the model is asked for."""
    return sum(line[0] == "begin" and wish in line[2] for line in system.painted_lines())


def test_a_store_that_is_away_for_a_while_costs_no_second_image(system: System) -> None:
    """The task waits, with what shops offer already in hand; then it stores the image that was made."""
    with store_away(system):
        task_id = begun(system, image_url=data_uri(scene(["mouse"])), prompt="nowhere to go", num_inference_steps=1)
        until(
            lambda: system.query("select 1 from tasks.tasks where id = %s and made and attempts > 1", task_id),
            what="another attempt",
        )
    found = result(system, task_id)
    assert found["status"] == "done"
    assert found["마우스"] == cheapest("마우스")
    assert requests.get(found["processed_image_url"], timeout=60).content.startswith(b"\x89PNG")
    assert paintings(system, "nowhere to go") == 1


def test_a_store_that_fails_for_good_is_the_documented_error_and_can_be_resumed(system: System) -> None:
    """S3_UPLOAD_FAILED; the resumed task has the image and the offers of the first, and nothing is made anew."""
    with store_away(system):
        task_id = begun(system, image_url=data_uri(scene(["mouse"])), prompt="never arrives", num_inference_steps=1)
        until(lambda: system.query("select 1 from tasks.tasks where id = %s and made", task_id), what="the image")
        # Its last attempt.
        system.query("update tasks.tasks set attempts = 100 where id = %s", task_id)
        assert result(system, task_id) == {
            "status": "failed",
            "error_code": "S3_UPLOAD_FAILED",
            "message": "Failed to upload image to S3.",
        }
    resumed = system.post(f"/v1/tasks/{task_id}/resume", {})
    assert resumed.status_code == 200, resumed.text
    again = result(system, resumed.json()["task"]["id"])
    assert again["status"] == "done"
    assert again["마우스"] == cheapest("마우스")
    assert requests.get(again["processed_image_url"], timeout=60).content.startswith(b"\x89PNG")
    assert paintings(system, "never arrives") == 1


def test_an_original_that_does_not_answer_is_tried_twice_and_named(system: System, receiver: Receiver) -> None:
    """It is the caller's to mend."""
    receiver.broken.add("/desk.png")
    task_id = begun(system, image_url=f"{receiver.url.removesuffix('/hook')}/desk.png")
    found = result(system, task_id)
    assert found["status"] == "failed"
    assert found["message"] == "initial_image_url: the URL answered 503"
    assert receiver.asked.count("/desk.png") == 2


def test_a_desk_says_how_it_was_made(system: System) -> None:
    """The file itself names model and task, as every task's output does; beside it lies what made it, and no prompt."""
    task_id = begun(system, prompt="a secret desk", num_inference_steps=2)
    link = result(system, task_id)["processed_image_url"]
    with Image.open(io.BytesIO(requests.get(link, timeout=60).content)) as image:
        said = str(image.info["Description"])
    assert "local-image/moa-tiny-image" in said
    assert task_id in said
    name = link.rpartition("/")[2].partition("?")[0]
    noted = (system.objects / ".notes" / f"{name}.json").read_text()
    assert {"task", "model", "prompt-sha256", "sha256", "steps"} <= set(json.loads(noted)["metadata"])
    assert "secret desk" not in noted + said
