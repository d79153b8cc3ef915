"""Webhooks: retried, given up, delivered again, signed with a secret that can be changed."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from standardwebhooks import Webhook, WebhookVerificationError

from services.tasks.settings import TaskSettings
from tests.emulators.receiver import Receiver
from tests.tasks.system import System, until


def begun(system: System, url: str, key: str = "", prompt: str = "hook") -> str:
    headers = {"authorization": f"Bearer {key or system.api_key}"}
    body = {"model": "google/gempix2", "prompt": prompt, "callback_url": url}
    made = requests.post(f"{system.url}/api/image/gen", json=body, headers=headers, timeout=20)
    assert made.status_code == 200, made.text
    found: str = made.json()["data"]["task_id"]
    return found


def deliveries(system: System, task_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = system.get(f"/v1/webhooks/deliveries?task_id={task_id}").json()["deliveries"]
    return found


def awaited(system: System, task_id: str, state: str) -> dict[str, Any]:
    found: dict[str, Any] = until(
        lambda: next((d for d in deliveries(system, task_id) if d["state"] == f"DELIVERY_STATE_{state}"), None),
        what=f"a {state.lower()} webhook",
    )
    return found


def test_a_receiver_that_recovers_gets_it_with_the_same_id(system: System, receiver: Receiver) -> None:
    """Two failures, then success: three attempts, one id, each with a signature of its own time."""
    task_id = begun(system, receiver.scripted(500, 503))
    found = awaited(system, task_id, "DELIVERED")
    assert (found["attempts"], found["last_status"]) == (3, 204)
    assert len(receiver.of(task_id)) == 3
    assert receiver.effects(task_id) == 1


def test_queue_run_retries_and_deliveries_are_measured(system: System, receiver: Receiver) -> None:
    """A task that is tried twice and whose webhook fails once: each shows in the worker's metrics."""
    before = system.metrics("worker")
    receiver.broken.add("/measured.png")
    body = {
        "model": "google/gempix2",
        "prompt": "measured",
        "images": [f"{receiver.url.removesuffix('/hook')}/measured.png"],
        "callback_url": receiver.scripted(500),
    }
    task_id = system.post("/api/image/gen", body).json()["data"]["task_id"]
    awaited(system, task_id, "DELIVERED")
    # Others' tasks may end meanwhile.
    least = {
        "moa_tasks_queue_wait_seconds_count": 2,
        "moa_tasks_run_seconds_count": 2,
        'moa_tasks_retried_total{reason="upstream_failed"}': 1,
        'moa_tasks_ended_total{state="failed"}': 1,
        'moa_webhook_attempts_total{outcome="failed"}': 1,
        'moa_webhook_attempts_total{outcome="delivered"}': 1,
        "moa_webhook_delay_seconds_count": 1,
    }

    def measured() -> bool:
        """Return whether all of it is counted: it is once it is on record."""
        after = system.metrics("worker")
        return all(after.get(sample, 0.0) - before.get(sample, 0.0) >= times for sample, times in least.items())

    until(measured, what="the metrics")


def test_by_default_a_receiver_has_hours_to_come_back() -> None:
    """Each pause is as long as the one before or longer, and together they last a day."""
    pauses = TaskSettings.model_fields["webhook_pauses_s"].default
    assert list(pauses) == sorted(pauses)
    assert sum(pauses) > 24 * 3600


def test_what_nobody_takes_is_given_up_and_can_be_delivered_again(system: System, receiver: Receiver) -> None:
    """After the last pause it is dead; redelivery begins anew, with the same id."""
    task_id = begun(system, receiver.scripted(*[500] * 4))
    dead = awaited(system, task_id, "DEAD")
    assert dead["attempts"] == 4
    assert "500" in dead["last_error"]
    again = system.post(f"/v1/webhooks/deliveries/{dead['id']}/redeliver", {})
    assert again.status_code == 200, again.text
    awaited(system, task_id, "DELIVERED")
    assert receiver.effects(task_id) == 1
    _, key = system.account()
    stolen = requests.post(
        f"{system.url}/v1/webhooks/deliveries/{dead['id']}/redeliver",
        json={},
        headers={"authorization": f"Bearer {key}"},
        timeout=60,
    )
    assert stolen.status_code == 404


def test_a_receiver_that_is_gone_is_not_asked_again(system: System, receiver: Receiver) -> None:
    """410 ends it at once."""
    task_id = begun(system, receiver.scripted(410))
    assert awaited(system, task_id, "DEAD")["attempts"] == 1


def test_a_redirect_is_not_followed(system: System, receiver: Receiver) -> None:
    """Where a receiver points is no target that the caller gave."""
    task_id = begun(system, receiver.scripted(*[302] * 4))
    assert awaited(system, task_id, "DEAD")["last_status"] == 302


def test_a_changed_secret_signs_beside_the_old_one_for_a_day(system: System, receiver: Receiver) -> None:
    """Receivers can change over without losing a message; another account's secret verifies nothing."""
    _, key = system.account()
    headers = {"authorization": f"Bearer {key}"}

    def secret(path: str = "/v1/webhooks/default/secret") -> str:
        found: str = requests.get(f"{system.url}{path}", headers=headers, timeout=60).json()["key"]
        return found

    old = secret()
    rotated = requests.post(f"{system.url}/account/webhook-secret/rotate", json={}, headers=headers, timeout=60).json()
    assert rotated["key"] == secret() == secret("/account/webhook-secret") != old
    task_id = begun(system, receiver.url, key)
    until(lambda: receiver.of(task_id), what="the webhook")
    sent, _ = receiver.of(task_id)[0]
    [raw] = [data for head, data in receiver.arrived if head["webhook-id"] == sent["webhook-id"]]
    for good in (old, rotated["key"]):
        Webhook(good).verify(raw, sent)
    other = system.get("/v1/webhooks/default/secret").json()["key"]
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(raw, sent)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(raw + b" ", sent)


def test_whoever_is_logged_in_sees_and_changes_the_accounts_secret(system: System) -> None:
    """The dashboard's session does what the account's key does, as with everything under /account, until it ends."""
    body = {"email": "hooks@example.com", "password": "correct horse battery", "name": "hooks"}
    made = requests.post(f"{system.url}/account/signup", json=body, timeout=20)
    assert made.status_code == 200, made.text
    url = f"{system.url}/account/webhook-secret"
    session = {"authorization": f"Bearer {made.json()['session_token']}"}
    found = requests.post(
        f"{system.url}/account/keys", json={"name": "k", "manages": ["SCOPE_ACCOUNT"]}, headers=session, timeout=60
    )
    assert found.status_code == 200, found.text
    key = {"authorization": f"Bearer {found.json()['api_key']}"}
    first = requests.get(url, headers=session, timeout=60).json()["key"]
    assert first.startswith("whsec_")
    assert requests.get(url, headers=key, timeout=60).json()["key"] == first
    changed = requests.post(f"{url}/rotate", json={}, headers=session, timeout=60).json()
    assert changed["previous_until"]
    assert requests.get(url, headers=key, timeout=60).json()["key"] == changed["key"] != first

    def refused(headers: dict[str, str]) -> Any:
        """Return an answer that is no 429: another test may have tried as often as an address may."""
        answer = requests.get(url, headers=headers, timeout=60)
        return None if answer.status_code == 429 else (answer.status_code, answer.json()["detail"])

    assert until(lambda: refused({"authorization": "Bearer ses-of-nobody"}), what="a try")[0] == 401
    assert requests.post(f"{system.url}/account/logout", json={}, headers=session, timeout=60).status_code == 200
    ended = until(lambda: refused(session), what="a try")
    assert ended == (401, "the session has ended; log in again")


def test_guessing_sessions_is_slowed(system: System) -> None:
    """Many wrong tokens from one address are refused for a while, and a right one is not."""
    body = {"email": "guessed@example.com", "password": "correct horse battery", "name": "guessed"}
    made = requests.post(f"{system.url}/account/signup", json=body, timeout=20).json()

    def status(token: str) -> int:
        headers = {"authorization": f"Bearer {token}"}
        return requests.get(f"{system.url}/account/webhook-secret", headers=headers, timeout=60).status_code

    until(lambda: status("ses-of-nobody") == 429, what="the refusal")
    assert status(made["session_token"]) == 200


@pytest.mark.parametrize("path", ["/v1/webhooks/default/secret", "/account/webhook-secret"])
def test_a_key_that_manages_nothing_sees_no_secret(system: System, path: str) -> None:
    """Who holds the secret can pose as the gateway: a key without SCOPE_ACCOUNT neither reads nor changes it."""
    made = system.post("/account/keys", {})
    assert made.status_code == 200, made.text
    narrow = {"authorization": f"Bearer {made.json()['api_key']}"}
    assert requests.get(system.url + path, headers=narrow, timeout=60).status_code == 403
    assert requests.post(f"{system.url}{path}/rotate", json={}, headers=narrow, timeout=60).status_code == 403


def test_no_page_of_another_origin_reads_the_accounts_secret(system: System) -> None:
    """The account's path is same-origin: a browser is told nothing that lets another page read it."""
    found = system.get("/account/webhook-secret", origin="https://elsewhere.example")
    assert found.status_code == 200
    assert "access-control-allow-origin" not in found.headers


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "https://127.0.0.1/hook",
        "https://[::ffff:169.254.169.254]/hook",
        "https://10.1.2.3/hook",
        "https://user:pw@example.com/hook",
        "ftp://example.com/hook",
        "https://localhost/hook",
        "https://2130706433/hook",
        "https://127.1/hook",
        "https://[/hook",
        "nonsense",
    ],
)
def test_targets_inside_are_refused_at_once(system: System, url: str) -> None:
    """A webhook that would never be called is refused when the task is created."""
    body = {"model": "google/gempix2", "prompt": "x", "callback_url": url}
    found = system.post("/api/image/gen", body)
    assert found.status_code == 400
    assert found.json()["detail"].startswith("callback_url: ")


def test_a_target_inside_is_refused_at_delivery(system: System, receiver: Receiver) -> None:
    """What a delivery was written for is judged again when it is sent: it is dead at its first attempt."""
    task_id = begun(system, receiver.url)
    sent = awaited(system, task_id, "DELIVERED")
    system.query("update tasks.deliveries set url = 'https://localhost/hook' where id = %s returning id", sent["id"])
    again = system.post(f"/v1/webhooks/deliveries/{sent['id']}/redeliver", {})
    assert again.status_code == 200, again.text
    dead = awaited(system, task_id, "DEAD")
    assert dead["attempts"] == 1
    assert "public internet" in dead["last_error"]


def test_deliveries_are_listed_page_by_page(system: System, receiver: Receiver) -> None:
    """The newest first, each once, the account's own only."""
    _, key = system.account()
    made = [begun(system, receiver.url, key, f"page {n}") for n in range(3)]
    headers = {"authorization": f"Bearer {key}"}

    def page(token: str) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(
            f"{system.url}/v1/webhooks/deliveries",
            params={"page_size": "2", "page_token": token},
            headers=headers,
            timeout=60,
        ).json()
        return found

    until(lambda: all(receiver.of(task_id) for task_id in made), what="the webhooks")
    first = page("")
    second = page(first["next_page_token"])
    assert len(first["deliveries"]) == 2
    assert len(second["deliveries"]) == 1
    assert {d["task_id"] for d in first["deliveries"] + second["deliveries"]} == set(made)
