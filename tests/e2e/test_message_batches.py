"""Batches of messages through the whole gateway, answered by the local model."""

from __future__ import annotations

import json
from typing import Any

import requests

from tests.e2e.conftest import Gateway
from tests.tasks.system import until

PATH = "/v1/messages/batches"


def request(custom_id: str, **params: Any) -> dict[str, Any]:
    body = {"model": "moa-tiny-chat", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello!"}]}
    return {"custom_id": custom_id, "params": {**body, **params}}


def asked(gateway: Gateway, verb: str, path: str, **more: Any) -> requests.Response:
    headers = {"x-api-key": gateway.key, "anthropic-version": "2023-06-01", "moa-tags": "batched"}
    return requests.request(verb, gateway.url + path, headers=headers, timeout=60, **more)


def test_a_batch_from_creation_to_deletion(gateway: Gateway) -> None:
    """Each result is the message or the error that its request alone would get; each is charged, by its tags."""
    wrong = request("wrong", top_k="many")
    made = asked(gateway, "POST", PATH, json={"requests": [request("a"), wrong, request("b", model="no-such-model")]})
    assert made.status_code == 200, made.text
    batch = made.json()
    assert batch["id"].startswith("msgbatch_")
    assert batch["type"] == "message_batch"
    assert batch["results_url"] is None
    assert sum(batch["request_counts"].values()) == 3

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = asked(gateway, "GET", f"{PATH}/{batch['id']}").json()
        return found if found["processing_status"] == "ended" else None

    found = until(ended, what="the batch's end")
    assert found["request_counts"] == {"processing": 0, "succeeded": 1, "errored": 2, "canceled": 0, "expired": 0}
    assert found["results_url"] == f"{gateway.url}{PATH}/{batch['id']}/results"
    results = asked(gateway, "GET", found["results_url"].removeprefix(gateway.url))
    assert results.headers["content-type"] == "application/x-jsonl"
    by_id = {line["custom_id"]: line["result"] for line in map(json.loads, results.text.splitlines())}
    assert list(by_id) == ["a", "wrong", "b"]
    message = by_id["a"]["message"]
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "moa-tiny-chat")
    alone = asked(gateway, "POST", "/v1/messages", json=wrong["params"]).json()
    assert by_id["wrong"]["error"]["error"] == alone["error"]
    assert by_id["b"]["error"]["error"]["type"] == "not_found_error"
    spent = message["usage"]["input_tokens"] + message["usage"]["output_tokens"]

    def booked() -> bool:
        rows = gateway.get("/account/spend?by=month,tag").json().get("rows", [])
        return [int(row["tokens"]) for row in rows if row["group"] == "batched"] == [spent]

    until(booked, what="the charge")
    listed = asked(gateway, "GET", f"{PATH}?limit=1").json()
    assert [each["id"] for each in listed["data"]] == [listed["first_id"]] == [batch["id"]]
    deleted = asked(gateway, "DELETE", f"{PATH}/{batch['id']}")
    assert deleted.json() == {"id": batch["id"], "type": "message_batch_deleted"}
    gone = asked(gateway, "GET", f"{PATH}/{batch['id']}")
    assert (gone.status_code, gone.json()["type"]) == (404, "error")
    assert gone.json()["error"]["type"] == "not_found_error"


def test_what_is_refused_is_worded_as_anthropic_does(gateway: Gateway) -> None:
    """Its envelope and its statuses, on each of the paths."""
    refused = asked(gateway, "POST", PATH, json={"requests": []})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
    refused = asked(gateway, "GET", f"{PATH}?limit=0")
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
    for verb, path in (("POST", "msgbatch_x/cancel"), ("DELETE", "msgbatch_x"), ("GET", "msgbatch_x/results")):
        refused = asked(gateway, verb, f"{PATH}/{path}")
        assert (refused.status_code, refused.json()["error"]["type"]) == (404, "not_found_error"), path
    refused = requests.post(gateway.url + PATH, json={}, timeout=60)
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
