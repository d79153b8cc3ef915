"""What callers see when they leave, and when a process is killed: a gateway of its own, because it is broken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from safetensors import safe_open

from tests import stacks, waiting
from tests.e2e.conftest import Gateway
from tests.e2e.test_native import CHAT, DRAW

# Whichever comes first has the start of a whole gateway in its time, on whatever is free.
pytestmark = pytest.mark.timeout(300)

LONG_DRAW = {**DRAW, "num_inference_steps": 150, "n": 4, "stream": True}
STEPS = 60


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose processes may be killed."""
    # After so long a request whose router died counts as lost.
    environment = {"MOA_IDEMPOTENCY_LEASE_S": "2"}
    with stacks.gateway(tmp_path_factory.mktemp("fragile"), environment=environment) as stack:
        yield Gateway(stack)


def until(true: Callable[[], bool], *, within_s: float = 60.0) -> None:
    """Wait for a condition of another process that nothing announces."""
    deadline = time.monotonic() + within_s
    pauses = waiting.pauses()
    while not true():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(next(pauses))


@contextmanager
def frozen(gateway: Gateway, name: str) -> Iterator[psutil.Process]:
    """Have a process stand still in the block."""
    process = psutil.Process(gateway.stack.pid(name))
    process.suspend()
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def counted(gateway: Gateway, process: str, metric: str, label: str) -> float:
    """Sum what a process counts under a label."""
    lines = [line for line in gateway.metrics(process).splitlines() if line.startswith(f"{metric}{{") and label in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def begun(gateway: Gateway) -> tuple[requests.Response, Iterator[bytes]]:
    """Start a long image and read up to its first progress event."""
    answer = gateway.post("/create/image", LONG_DRAW, stream=True)
    lines = answer.iter_lines()
    for line in lines:
        if b'"progress"' in line:
            return answer, lines
    raise AssertionError("no progress")


def test_a_client_that_leaves_stops_the_diffusion(fragile: Gateway) -> None:
    """Closing the connection mid-way stops the steps long before the end."""
    cancelled, left = (
        partial(counted, fragile, "inference", "moa_engine_ended_total", 'how="cancelled"'),
        partial(counted, fragile, "router", "moa_rpc_ended_total", 'code="CANCELLED"'),
    )
    before, left_before = cancelled(), left()
    answer, _ = begun(fragile)
    with frozen(fragile, "inference"):
        # On a busy machine the image might be done before the engine hears of it.
        answer.close()
        until(lambda: left() > left_before)
    until(lambda: fragile.metric("inference", "moa_engine_running") == 0)
    assert cancelled() == before + 1
    # The engine is free for the next caller at once, and nobody was charged for the image that never came.
    assert fragile.post("/create/image", {**DRAW, "num_inference_steps": 2}).status_code == 200


def test_a_killed_engine_ends_the_stream_with_an_error_and_comes_back(fragile: Gateway) -> None:
    """kill -9 mid-stream is an in-band error, never a clean end; a moment later requests are answered again."""
    answer, lines = begun(fragile)
    fragile.stack.kill("inference")
    rest = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    assert rest[-1]["error"]["code"] == "unavailable"
    answer.close()
    fragile.stack.await_ready("inference")
    until(lambda: fragile.post("/generate/text", CHAT).status_code == 200)


def test_a_killed_router_breaks_the_connection_visibly(fragile: Gateway) -> None:
    """A stream whose router died does not end as if it were complete."""
    answer, lines = begun(fragile)
    fragile.stack.kill("router")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        for _ in lines:
            pass
    answer.close()
    fragile.stack.await_ready("router")
    until(lambda: fragile.post("/generate/text", CHAT).status_code == 200)


def test_what_a_killed_router_was_doing_is_not_done_again(fragile: Gateway) -> None:
    """kill -9 amid a request with an idempotency key: asked again it is said to run, and soon to be lost, and no client
    is to try again by itself; it is not done again under that key, and another key is served."""
    headers = {"X-API-Key": fragile.key, "Idempotency-Key": "cut"}

    def ask(key: str, body: dict[str, Any], **more: Any) -> requests.Response:
        return requests.post(
            fragile.url + "/create/image", json=body, headers={**headers, "Idempotency-Key": key}, timeout=60, **more
        )

    answer = ask("cut", LONG_DRAW, stream=True)
    assert any(b'"progress"' in line for line in answer.iter_lines())
    fragile.stack.kill("router")
    answer.close()
    fragile.stack.await_ready("router")
    told: list[str] = []

    def lost() -> bool:
        again = ask("cut", LONG_DRAW)
        assert again.status_code in (409, 503), again.text
        if again.status_code == 409:
            told.append(again.json()["code"])
            assert (again.headers.get("x-should-retry") == "false") == (told[-1] == "answer_lost")
        return told[-1:] == ["answer_lost"]

    until(lost)
    assert set(told) <= {"request_running", "answer_lost"}
    another = ask("another", {**DRAW, "num_inference_steps": 2})
    assert another.status_code == 200
    assert ask("another", {**DRAW, "num_inference_steps": 2}).content == another.content


def test_a_response_of_a_killed_router_is_made_by_the_next(fragile: Gateway) -> None:
    """kill -9 amid a response in the background: it is made whole all the same, and charged as one."""
    headers = {"X-API-Key": fragile.key}
    turned = requests.patch(f"{fragile.url}/account/me", json={"stores_responses": True}, headers=headers, timeout=20)
    assert turned.status_code == 200, turned.text
    words = {"model": "moa-tiny-chat", "input": "What can you do?", "background": True, "max_output_tokens": 200}
    name = fragile.post("/v1/responses", words).json()["id"]
    fragile.stack.kill("router")
    fragile.stack.await_ready("router")
    until(lambda: fragile.get(f"/v1/responses/{name}").json().get("status") == "completed")
    made = fragile.get(f"/v1/responses/{name}").json()
    assert made["output"][0]["content"][0]["text"]
    account_id = fragile.get("/account/me").json()["account"]["account_id"]

    def charged() -> list[int]:
        rows = fragile.get(f"/admin/accounts/{account_id}/ledger").json()["rows"]
        mine = [row for row in rows if row.get("request_id") == name.removeprefix("resp_")]
        return [int(row["tokens"]) for row in mine if int(row.get("tokens", 0))]

    until(lambda: charged() == [made["usage"]["total_tokens"]])


def test_a_service_that_is_down_is_503_in_the_dialect(tmp_path: Path) -> None:
    """While a part is down, callers read a clear 503, with the time after which to retry."""
    with stacks.gateway(tmp_path, processes=("auth", "router", "edge")) as stack:
        crippled = Gateway(stack)
        answer = crippled.post("/generate/text", CHAT)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"]
        assert crippled.get("/providers").status_code == 200


def test_a_second_start_keeps_keys_and_usage(tmp_path: Path) -> None:
    """The key made at the first start works after the second, and what was spent stays spent.

    The key is new until it has been shown, which a start that fails never comes to.
    """

    def used(gateway: Gateway) -> int:
        told = gateway.get("/account/usage")
        assert told.status_code == 200, told.text
        return sum(int(row["charged_images"]) for row in told.json().get("rows", []))

    processes = ("auth", "router", "edge")
    with stacks.painted(tmp_path, processes=processes) as stack:
        assert stack.new_key
        first = Gateway(stack)
        key = first.key
        assert first.post("/create/image", DRAW).status_code == 200
        until(lambda: used(first) == 1)
    with stacks.painted(tmp_path, processes=processes) as stack:
        assert stack.new_key
        stack.key_was_shown()
        assert not stack.new_key
        second = Gateway(stack)
        assert second.key == key
        assert used(second) == 1
        assert second.post("/create/image", DRAW).status_code == 200
        until(lambda: used(second) == 2)


def test_a_tasks_image_goes_on_where_a_killed_engine_left_it(fragile: Gateway) -> None:
    """kill -9 of the inference process amid a task: the task is done all the same, its image has the bytes of a task
    that nothing happened to, and steps that a checkpoint held are not taken again."""
    image = {"model": "moa-tiny-image", "prompt": "a red circle on a white background", "seed": 11}
    image |= {"width": 64, "height": 64, "diffusion": {"steps": STEPS}}

    def made() -> str:
        answer = fragile.post("/v1/tasks", {"work": {"image": image}})
        assert answer.ok, answer.text
        return str(answer.json()["task"]["id"])

    def task(name: str) -> dict[str, Any]:
        shown: dict[str, Any] = fragile.get(f"/v1/tasks/{name}").json()["task"]
        return shown

    def is_done(name: str) -> bool:
        return bool(task(name).get("outputs"))

    def keeps() -> bool:
        return any(kept.glob("*.safetensors"))

    kept = fragile.stack.root / "state" / "checkpoints"
    while True:
        disturbed = made()
        until(lambda name=disturbed: keeps() or is_done(name), within_s=120)  # type: ignore[misc]
        with frozen(fragile, "inference"):
            if any(steps_of(file) < STEPS for file in kept.glob("*.safetensors")):
                fragile.stack.kill("inference")
                break
        # It was done before it could be stopped.
        until(lambda name=disturbed: is_done(name) and not keeps(), within_s=120)  # type: ignore[misc]
    fragile.stack.await_ready("inference", wait_s=120)
    until(lambda: is_done(disturbed), within_s=240)
    steps = fragile.metric("inference", "moa_engine_ticks_total")
    assert 0 < steps < STEPS, "what the checkpoint held was not made again"
    undisturbed = made()
    until(lambda: is_done(undisturbed), within_s=240)
    assert task(disturbed)["outputs"][0]["sha256"] == task(undisturbed)["outputs"][0]["sha256"]


def steps_of(file: Path) -> int:
    """Return how many steps a checkpoint holds."""
    with safe_open(file, framework="np") as held:
        return int(json.loads(held.metadata()["facts"])["at"])
