"""From an administrator's word to the engine's order: priorities through the whole gateway."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Gateway
from tests.e2e.test_accounts import Person, limit
from tests.e2e.test_native import CHAT, DRAW

_WORK = re.compile(r'moa_engine_work_total{model="(.*)",priority="(.*)"} (.*)')
QUICK = {**DRAW, "num_inference_steps": 1}


@pytest.fixture
def person(gateway: Gateway) -> Person:
    return Person(gateway)


def work(gateway: Gateway) -> dict[tuple[str, str], float]:
    """Return what the engines did so far, by model and priority, as the inference process counts it."""
    return {(model, priority): float(cost) for model, priority, cost in _WORK.findall(gateway.metrics("inference"))}


def priority_of(gateway: Gateway, ask: Callable[[], Any]) -> str:
    """Return the priority that the engine did a request's work at."""
    before = work(gateway)
    ask()
    grown = [priority for (model, priority), cost in work(gateway).items() if cost > before.get((model, priority), 0)]
    assert len(grown) == 1, grown
    return grown[0]


def comes_to(gateway: Gateway, ask: Callable[[], Any], priority: str) -> None:
    """Ask until the engine does it at a priority: routers hear of a change within two seconds."""
    deadline = time.monotonic() + 40
    while (found := priority_of(gateway, ask)) != priority:
        assert time.monotonic() < deadline, f"still {found}"


def give(gateway: Gateway, person: Person, priority: str) -> None:
    """Return an account a priority as its administrator."""
    answer = requests.patch(
        f"{gateway.url}/admin/accounts/{person.account_id}",
        json={"priority": priority},
        headers={"Authorization": f"Bearer {gateway.key}"},
        timeout=20,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["account"]["priority"] == priority


def answered(response: requests.Response) -> requests.Response:
    assert response.status_code in (200, 201), response.text
    return response


def test_the_engine_works_at_the_priority_that_an_administrator_gave(gateway: Gateway, person: Person) -> None:
    """Text and images alike, from the next moments on; the account sees it, and cannot change it."""
    assert priority_of(gateway, lambda: answered(person.post("/generate/text", CHAT))) == "normal"
    refused = person.ask("patch", f"/admin/accounts/{person.account_id}", {"priority": "PRIORITY_HIGH"})
    assert refused.status_code == 403
    give(gateway, person, "PRIORITY_HIGH")
    comes_to(gateway, lambda: answered(person.post("/create/image", QUICK)), "high")
    assert priority_of(gateway, lambda: answered(person.post("/generate/text", CHAT))) == "high"
    assert person.ask("get", "/account/limits").json()["priority"] == "PRIORITY_HIGH"
    unknown = requests.patch(
        f"{gateway.url}/admin/accounts/{person.account_id}",
        json={"priority": "PRIORITY_HIGHEST"},
        headers={"Authorization": f"Bearer {gateway.key}"},
        timeout=20,
    )
    assert unknown.status_code == 422, unknown.text


def test_a_key_for_the_background_yields(gateway: Gateway, person: Person) -> None:
    """A key is made with a lower priority or given one later, takes its account's again, and gets no higher one."""
    limit(gateway, person, keys=2)
    asked = {"name": "batch", "priority": "PRIORITY_LOW"}
    made = answered(person.ask("post", "/account/keys", asked)).json()
    assert made["key"]["priority"] == "PRIORITY_LOW"

    def chat() -> Any:
        headers = {"X-API-Key": made["api_key"]}
        return answered(requests.post(gateway.url + "/generate/text", json=CHAT, headers=headers, timeout=60))

    assert priority_of(gateway, chat) == "low"
    assert priority_of(gateway, lambda: answered(person.post("/generate/text", CHAT))) == "normal"
    path = f"/account/keys/{made['key']['key_id']}"
    freed = answered(person.ask("patch", path, {"priority": "PRIORITY_UNSPECIFIED"})).json()["key"]
    assert freed["name"] == "batch"
    assert freed.get("priority", "PRIORITY_UNSPECIFIED") == "PRIORITY_UNSPECIFIED"
    comes_to(gateway, chat, "normal")
    assert person.ask("patch", path, {"priority": "PRIORITY_HIGH"}).status_code == 422
    renamed = answered(person.ask("patch", path, {"name": "both", "priority": "PRIORITY_LOW"})).json()["key"]
    assert (renamed["name"], renamed["priority"]) == ("both", "PRIORITY_LOW")
    comes_to(gateway, chat, "low")


def test_a_task_comes_before_nobody(gateway: Gateway, person: Person) -> None:
    """A task of a high account is done at a normal priority, and one of a low account at a low one."""
    paint = {"input": {"prompt": "a red circle", "num_inference_steps": 1}}

    def predict() -> Any:
        made = answered(person.post("/v1/models/local/moa-tiny-image/predictions", paint)).json()
        assert made["status"] == "succeeded", made

    give(gateway, person, "PRIORITY_HIGH")
    comes_to(gateway, lambda: answered(person.post("/create/image", QUICK)), "high")
    assert priority_of(gateway, predict) == "normal"
    give(gateway, person, "PRIORITY_LOW")
    comes_to(gateway, predict, "low")
