"""The console's cookie at the edge: a session for its own page, and nothing for anybody else."""

from __future__ import annotations

import pytest
import requests

from deploy.local.stack import Stack
from tests.edge.upstream import Upstream

SESSION = "ses-abcDEF_-123"
COOKIE = {"cookie": f"theme=dark; moa-session={SESSION}; other=1"}
PAGE = {"moa-console": "1"}

REFUSED = [
    ({}, "no header that only a script of the page sends"),
    ({**PAGE, "sec-fetch-site": "cross-site"}, "another site"),
    ({**PAGE, "sec-fetch-site": "same-site"}, "another port or name of the same site"),
    ({**PAGE, "sec-fetch-site": "none"}, "somebody who typed the address"),
    ({**PAGE, "cookie": "moa-session=moa-a-key"}, "something else than a session"),
    ({**PAGE, "cookie": f"not-moa-session={SESSION}"}, "another name"),
    ({**PAGE, "cookie": f"__Host-moa-session={SESSION}"}, "a name of TLS over plain HTTP"),
]


def told(edge: Stack, headers: dict[str, str]) -> dict[str, str]:
    answer = requests.post(edge.url + "/generate/text", json={}, headers={**COOKIE, **headers}, timeout=60)
    assert answer.status_code == 200
    seen: dict[str, str] = answer.json()["metadata"]
    return seen


@pytest.mark.parametrize("site", [{}, {"sec-fetch-site": "same-origin"}])
def test_the_page_is_known_by_its_cookie(edge: Stack, upstream: Upstream, site: dict[str, str]) -> None:
    """It becomes the session's token for the services, which see no cookie."""
    seen = told(edge, {**PAGE, **site})
    assert seen["x-api-key"] == SESSION
    assert "cookie" not in seen


@pytest.mark.parametrize(("headers", "whose"), REFUSED, ids=[whose for _, whose in REFUSED])
def test_a_cookie_alone_is_nobody(edge: Stack, upstream: Upstream, headers: dict[str, str], whose: str) -> None:
    """A form, a link or a page of another origin has no session, whatever the browser sends along."""
    seen = told(edge, headers)
    assert "x-api-key" not in seen
    assert "cookie" not in seen


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "x-goog-api-key"])
def test_a_key_counts_before_the_cookie(edge: Stack, upstream: Upstream, name: str) -> None:
    """Who sends a key means it."""
    key = "Bearer moa-mine" if name == "authorization" else "moa-mine"
    seen = told(edge, {**PAGE, name: key})
    assert SESSION not in seen.values()
    assert seen[name] == key


def test_no_other_origin_may_send_cookies(edge: Stack, upstream: Upstream) -> None:
    """A browser that asks whether it may is not told so: neither for generation, nor for the account."""
    asks = {
        "origin": "https://evil.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "moa-console,content-type",
    }
    for path in ("/v1/chat/completions", "/account/keys", "/admin/accounts"):
        answer = requests.options(edge.url + path, headers=asks, timeout=60)
        assert "access-control-allow-credentials" not in answer.headers
        assert answer.headers.get("access-control-allow-origin") in (None, "*", "https://evil.example")
