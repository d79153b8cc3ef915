"""A log-in with an identity provider, through the real edge, as a browser makes it."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import requests

from tests.e2e.conftest import Gateway
from tests.emulators.issuer import Issuer

PAGE = {"moa-console": "1", "sec-fetch-site": "same-origin"}


def test_a_browser_logs_in_uses_a_model_and_logs_out(gateway: Gateway, issuer: Issuer) -> None:
    """By redirects and cookies alone; its session is in a cookie of the page."""
    issuer.redirect_uri = f"{gateway.url}/auth/oidc/callback"
    with requests.Session() as browser:
        methods = browser.get(f"{gateway.url}/auth/methods", timeout=20).json()
        assert methods["oidc"]["name"] == "Example"
        start = browser.get(
            methods["oidc"]["start_url"], params={"return_to": "/docs?a=b"}, allow_redirects=False, timeout=20
        )
        assert (start.status_code, start.content) == (302, b"")
        assert start.headers["cache-control"] == "no-store"
        assert start.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in start.headers
        assert start.headers["location"].startswith(f"{issuer.url}/authorize?")
        back = browser.get(start.headers["location"], allow_redirects=False, timeout=20).headers["location"]
        assert back.startswith(issuer.redirect_uri)
        # Identity providers add what is their own.
        arrived = browser.get(f"{back}&session_state=x&scope=openid", allow_redirects=False, timeout=20)
        assert (arrived.status_code, arrived.headers["location"]) == (302, f"{gateway.url}/docs?a=b#oidc=ready")
        assert re.search("moa_oidc_ready=[^;]+;.*HttpOnly; SameSite=Strict", arrived.headers["set-cookie"])
        log_in = browser.post(f"{gateway.url}/account/login/oidc", json={}, headers=PAGE, timeout=20)
        assert log_in.status_code == 200, log_in.text
        assert log_in.json()["session_token"] == ""
        assert [cookie.name for cookie in browser.cookies] == ["moa-session"]
        account = browser.get(f"{gateway.url}/account/me", headers=PAGE, timeout=20).json()["account"]
        assert account == log_in.json()["account"]
        body = {"model": "moa-tiny-chat", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}
        chat = browser.post(f"{gateway.url}/v1/chat/completions", json=body, headers=PAGE, timeout=60)
        assert chat.status_code == 200, chat.text
        again = browser.get(back, allow_redirects=False, timeout=20)
        assert again.headers["location"] == f"{gateway.url}/#oidc=failed:expired"
        ended = browser.post(f"{gateway.url}/account/logout", json={}, headers=PAGE, timeout=20)
        hint = parse_qs(urlsplit(ended.json()["end_session_url"]).query)["id_token_hint"]
        assert len(hint) == 1
        assert browser.get(f"{gateway.url}/account/me", headers=PAGE, timeout=20).status_code == 401
        preflight = {"origin": "https://evil.example", "access-control-request-method": "GET"}
        asked = browser.options(f"{gateway.url}/auth/methods", headers=preflight, timeout=20)
        assert asked.status_code == 405
        refused = browser.get(f"{gateway.url}/auth/oidc/start?return_to=//evil.example", timeout=20)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_field")
    assert not issuer.refused
    assert gateway.metric("auth", "moa_oidc_log_ins_total") >= 3
