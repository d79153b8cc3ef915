"""Accounts, keys, permissions and daily limits through the real edge."""

from __future__ import annotations

import itertools
import time
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.addresses import From
from tests.dialects import ANSWERING
from tests.e2e.conftest import Gateway
from tests.e2e.test_native import CHAT, DRAW

_PEOPLE = itertools.count(1)


class Person:
    """Somebody who signed up, with a session and a first key.

    From an address of their own: an address may not sign up as fast as tests do.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._url = gateway.url
        self.email = f"{uuid4().hex}@example.com"
        body = {"email": self.email, "password": "correct horse battery", "name": "시험"}
        with requests.Session() as session:
            session.mount("http://", From(f"127.1.0.{next(_PEOPLE)}"))
            made = session.post(gateway.url + "/account/signup", json=body, timeout=20)
        assert made.status_code == 200, made.text
        self.session = made.json()["session_token"]
        self.account_id = made.json()["account"]["account_id"]
        created = self.ask("post", "/account/keys", {"name": "first"})
        assert created.status_code == 200, created.text
        self.key_id, self.key = created.json()["key"]["key_id"], created.json()["api_key"]

    def ask(self, verb: str, path: str, body: Any = None) -> requests.Response:
        """Ask with the session."""
        headers = {"Authorization": f"Bearer {self.session}"}
        return requests.request(verb, self._url + path, json=body, headers=headers, timeout=20)

    def post(self, path: str, body: Any) -> requests.Response:
        """Ask with the key."""
        return requests.post(self._url + path, json=body, headers={"X-API-Key": self.key}, timeout=60)


@pytest.fixture
def person(gateway: Gateway) -> Person:
    return Person(gateway)


def limit(gateway: Gateway, person: Person, **limits: int) -> None:
    """Change an account's limits as its administrator."""
    now = person.ask("get", "/account/limits").json()["limits"]
    answer = requests.patch(
        f"{gateway.url}/admin/accounts/{person.account_id}",
        json={"limits": {**now, **limits}},
        headers={"Authorization": f"Bearer {gateway.key}"},
        timeout=20,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["account"]["limits"] == {**now, **limits}


def test_a_new_account_uses_local_models_only(gateway: Gateway, person: Person) -> None:
    """Local models answer; another provider's are 403, told by its name."""
    assert person.post("/generate/text", CHAT).status_code == 200
    listed = requests.get(gateway.url + "/providers", headers={"X-API-Key": person.key}, timeout=60).json()
    assert listed["providers"] == ["local-text", "local-embedding", "local-image"]


def test_a_revoked_key_is_401_within_two_seconds(person: Person) -> None:
    """A warm key that is revoked ends everywhere within two seconds."""
    assert person.post("/generate/text", CHAT).status_code == 200
    assert person.ask("delete", f"/account/keys/{person.key_id}").status_code == 200
    revoked = asked = time.monotonic()
    while (answer := person.post("/generate/text", CHAT)).status_code == 200:
        # Judged by when the request began: how long the machine took to answer it counts for nothing.
        assert asked - revoked < 2.0
        asked = time.monotonic()
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


def test_a_spent_image_quota_is_429_with_the_time_of_its_reset(gateway: Gateway, person: Person) -> None:
    """The second of one image a day is refused; what is left and when it begins anew stand in headers."""
    limit(gateway, person, images_a_day=1)
    quick = {**DRAW, "num_inference_steps": 1}
    first = person.post("/create/image", quick)
    assert first.status_code == 200, first.text
    assert first.headers["x-ratelimit-remaining-images"] == "0"
    assert '"images";q=1;qu="images";w=86400' in first.headers["ratelimit-policy"]
    second = person.post("/create/image", quick)
    assert (second.status_code, second.json()["code"]) == (429, "quota_exhausted")
    assert 0 < int(second.headers["retry-after"]) <= 86_400
    assert '"images";r=0;t=' in second.headers["ratelimit"]
    assert second.headers["x-ratelimit-remaining-images"] == "0"


def test_a_small_token_quota_clamps_the_answer(gateway: Gateway, person: Person) -> None:
    """When less is left than was asked for, the answer is shorter, not refused, and ends with `length`."""
    ask = {"model": "moa-tiny-chat", "messages": [{"role": "user", "content": "Tell me a story about a cat."}]}
    limit(gateway, person, tokens_a_day=40)
    answer = person.post("/v1/chat/completions", {**ask, "max_tokens": 200})
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert answer.json()["usage"]["total_tokens"] <= 40
    refused = person.post("/v1/chat/completions", ask)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")


def test_another_accounts_key_cannot_be_seen_or_revoked(gateway: Gateway, person: Person) -> None:
    """What belongs to somebody else does not exist for a stranger."""
    stranger = Person(gateway)
    assert stranger.ask("delete", f"/account/keys/{person.key_id}").status_code == 404
    assert person.post("/generate/text", CHAT).status_code == 200
    assert stranger.ask("get", "/admin/accounts").status_code == 403


def test_a_limited_key_makes_none_without_its_limits(gateway: Gateway) -> None:
    """Refused over REST with 403 and the name of what is missing; what is no more than the key itself is made."""
    little = {"tokens_a_day": 100, "requests_per_minute": 100, "priority": "PRIORITY_LOW"}
    asked = {**little, "expires_in": "3600s", "manages": ["SCOPE_ACCOUNT"]}
    made = gateway.post("/account/keys", asked).json()
    assert made["key"]["manages"] == ["SCOPE_ACCOUNT"]
    path = f"/account/keys/{made['key']['key_id']}"

    def ask(verb: str, path: str, body: Any = None, key: str = made["api_key"]) -> requests.Response:
        return requests.request(verb, gateway.url + path, json=body, headers={"X-API-Key": key}, timeout=20)

    for missing in [*little, "expires_in"]:
        answer = ask("post", "/account/keys", {name: asked[name] for name in asked if name != missing})
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
        assert missing in answer.text
    assert ask("patch", path, {"priority": "PRIORITY_NORMAL"}).status_code == 403
    assert ask("get", "/admin/accounts").status_code == 403
    child = ask("post", "/account/keys", {**little, "expires_in": "60s"}).json()
    for verb, where in (("post", "/account/keys"), ("delete", path), ("get", "/account/webhook-secret")):
        answer = ask(verb, where, key=child["api_key"])
        assert answer.status_code == 403
        assert "SCOPE_ACCOUNT" in answer.text
    for one in (child, made):
        assert ask("delete", f"/account/keys/{one['key']['key_id']}").status_code == 200


def test_an_administrators_limited_key_raises_no_account(gateway: Gateway, person: Person) -> None:
    """Over REST it cannot make somebody else an administrator, who would then make keys without limits: 403."""
    asked = {"tokens_a_day": 10, "images_a_day": 0, "expires_in": "600s", "priority": "PRIORITY_LOW"}
    made = gateway.post("/account/keys", {**asked, "manages": ["SCOPE_ADMIN"]}).json()
    path = f"/admin/accounts/{person.account_id}"
    for verb, where, body in (
        ("patch", path, {"role": "ROLE_ADMIN"}),
        ("patch", path, {"priority": "PRIORITY_HIGH"}),
        ("post", f"{path}/rules", {"rule": {}}),
        ("post", f"{path}/credits", {"micro_credits": "5"}),
        ("post", "/admin/accounts", {"role": "ROLE_ADMIN"}),
        ("post", "/admin/invitations", {}),
    ):
        headers = {"X-API-Key": made["api_key"]}
        answer = requests.request(verb, gateway.url + where, json=body, headers=headers, timeout=20)
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied"), (where, answer.text)
        assert "an administrator's key without limits, or do this logged in" in answer.text
    assert person.ask("post", "/account/keys", {"manages": ["SCOPE_ADMIN"]}).status_code == 422
    assert gateway.post(f"{path}/rules", {"rule": {"provider": "local-*"}}).status_code == 200


def test_usage_is_told_by_day_and_model(person: Person) -> None:
    """What was charged is in the account's own usage."""
    spent = person.post("/generate/text", CHAT).json()["usageMetadata"]
    deadline = time.monotonic() + 40
    while not (rows := person.ask("get", "/account/usage").json().get("rows")):
        assert time.monotonic() < deadline, "the settlement was not booked"
    assert [(r["model"], int(r["prompt_tokens"]), int(r["completion_tokens"])) for r in rows] == [
        ("moa-tiny-chat", spent["promptTokenCount"], spent["candidatesTokenCount"])
    ]
    (row,) = person.ask("get", "/account/usage?group_by=month&group_by=model").json()["rows"]
    assert (row["month"], row["model"], row["key_id"]) == (rows[0]["day"][:7], "moa-tiny-chat", "")
    refused = person.ask("get", "/account/usage?group_by=week")
    assert (refused.status_code, "is none of month" in refused.text) == (422, True)


_TOLD = {
    "ratelimit",
    "ratelimit-policy",
    *(
        f"x-ratelimit-{what}-{unit}"
        for what in ("limit", "remaining", "reset")
        for unit in ("requests", "tokens", "images")
    ),
}


@pytest.mark.parametrize("dialect", ANSWERING)
def test_every_answer_and_every_429_tells_what_is_left(gateway: Gateway, person: Person, dialect: str) -> None:
    """Answers and refusals of each dialect carry limits, rests and resets of requests, tokens and images."""
    limit(gateway, person, requests_per_minute=1)
    refused, rig = 0, ANSWERING[dialect]
    asked, headers = rig.text("moa-tiny-chat", "Hello!"), rig.key(person.key)
    while refused < 2:
        answer = requests.post(gateway.url + asked.path, headers=headers, timeout=60, **asked.how)
        assert answer.status_code in (200, 429), answer.text
        # The limit is a moment old: the first requests may not have heard of it.
        if "x-ratelimit-limit-requests" in answer.headers or answer.status_code == 429:
            assert set(map(str.lower, answer.headers)) >= _TOLD
        refused += answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
