"""Teams and budgets over REST: the examples of docs/teams.md, run as they are printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import requests

from tests.e2e.conftest import Gateway
from tests.tasks.system import until

PAGE = Path(__file__).parents[2] / "docs" / "teams.md"


def test_the_pages_examples_run_as_printed(gateway: Gateway) -> None:
    """Each succeeds; of three requests that count on a budget of two the last is refused by its name."""
    made = gateway.post("/admin/accounts", {"name": "an owner", "role": "user"})
    script = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL))
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        env={
            "PATH": os.environ["PATH"],
            "MOA_URL": gateway.url,
            "MOA_ADMIN_KEY": gateway.key,
            "ACCOUNT": made.json()["account"]["account_id"],
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: list[dict[str, object]] = []
    reader, rest = json.JSONDecoder(), done.stdout.strip()
    while rest:
        value, end = reader.raw_decode(rest)
        told.append(value)
        rest = rest[end:].strip()
    answers = [one for one in told if "choices" in one or "error" in one]
    assert ["error" in one for one in answers] == [False, False, True, False]
    error = answers[2]["error"]
    assert isinstance(error, dict)
    assert error["code"] == "insufficient_quota"
    assert "the budget nightly of team research's limit of 2 requests a day does not cover this request" in str(error)
    team = next(one["member"] for one in told if "member" in one)
    assert isinstance(team, dict)
    assert team["role"] == "TEAM_ROLE_OWNER"
    _is_logged(gateway, next(one["request"] for one in told if "request" in one))


def _is_logged(gateway: Gateway, request: Any) -> None:
    """Check what the log had of a request: what was said, and what the ledger charged; and that it is deleted."""
    said = request["content"]["text_request"]["messages"][0]["parts"][0]["text"]
    assert (said, request["status"], request["tags"]) == ("Hello", 200, ["weekly"])
    assert request["content"]["text_answer"]["events"][0]["text"]["text"]
    assert request["model"] == "local-text/moa-tiny-chat"

    def booked() -> Any:
        """Return the request's row of the ledger, which may come later than its record."""
        rows = gateway.get(f"/admin/accounts/{request['account_id']}/ledger").json().get("rows", [])
        return next((row for row in rows if row.get("request_id") == request["request_id"]), None)

    row = until(booked, what="the request's charge")
    usage = request["usage"]
    assert int(row["tokens"]) == usage["prompt_tokens"] + usage["completion_tokens"]
    left = gateway.get(f"/admin/requests?team_id={request['team_id']}&since=2026-01-01T00:00:00Z&page_size=500")
    assert left.status_code == 200, left.text
    assert request["log_id"] not in [one["log_id"] for one in left.json().get("requests", [])]


def test_a_warning_goes_to_no_host_inside(gateway: Gateway) -> None:
    """A URL that the egress guard refuses is refused when it is set."""
    for url in ("http://example.com/hook", "https://127.0.0.1/hook", "https://[::1]/hook", "https://169.254.169.254/"):
        answer = gateway.post("/admin/teams", {"name": "x", "warnings": {"webhook_url": url}})
        assert answer.status_code == 422, url
        assert "warnings.webhook_url" in answer.text
    missing = requests.post(f"{gateway.url}/admin/teams", json={}, timeout=30)
    assert missing.status_code == 401
