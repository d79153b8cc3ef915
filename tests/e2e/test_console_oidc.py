"""Somebody who logs in at the console by an identity provider, in headless Chromium: `make browser` runs it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.auth.test_log_ins import code_of_secret
from tests.e2e import consoles
from tests.e2e.consoles import Console
from tests.emulators.issuer import Issuer, running

pytestmark = pytest.mark.long


async def press(console: Console, words: str) -> None:
    """Press the button that says so."""
    found = f"[...document.querySelectorAll('button')].find(one => one.innerText.includes({json.dumps(words)}))"
    await console.page.until(f"(one => one !== undefined && (one.click(), true))({found})")


async def test_somebody_comes_by_the_identity_provider_and_goes(tmp_path: Path) -> None:
    """There and back by a button, with the account's second factor where the provider asked for none; its refusal is
    told, logging out ends the session there, too, and an account that there is links an identity and unlinks it."""
    with running(Issuer()) as issuer:
        environment = {
            "MOA_OIDC_ISSUER": issuer.url,
            "MOA_OIDC_CLIENT_ID": issuer.client_id,
            "MOA_OIDC_CLIENT_SECRET": issuer.client_secret,
            "MOA_OIDC_NAME": "Example",
            "MOA_OIDC_SIGNUP": "open",
        }
        with consoles.house(tmp_path, environment=environment) as house:
            issuer.redirect_uri = f"{house.stack.url}/auth/oidc/callback"
            async with consoles.at(house) as console:
                issuer.manners.declines = True
                await press(console, "Log in with Example")
                await console.sees("did not work (declined)")
                issuer.manners.declines = False
                await press(console, "Log in with Example")
                await console.there("#logout")
                assert await console.page.run("location.hash.includes('oidc')") is False
                factor = await console.page.run(
                    "fetch('/account/second-factor', {method: 'POST', headers: {'moa-console': '1'}, body: '{}'})"
                    ".then(answer => answer.json())"
                )
                confirm = json.dumps({"code": code_of_secret(factor["uri"], time.time())})
                confirmed = await console.page.run(
                    "fetch('/account/second-factor/confirm', {method: 'POST', headers: {'moa-console': '1'},"
                    f" body: {json.dumps(confirm)}}}).then(answer => answer.status)"
                )
                assert confirmed == 200
                await console.page.run("window.before = true")
                await console.page.click("#logout")
                # The console is loaded anew when the provider sends the browser back.
                await console.page.until("window.before === undefined && document.querySelector('form#login') !== null")
                assert issuer.fetched[-1] == "/logout"
                await press(console, "Log in with Example")
                await console.sees("Code of your authenticator")
                assert await console.page.run("document.querySelector('input[name=password]')") is None
                code = code_of_secret(factor["uri"], time.time() + 30)
                await console.page.fill("form", {"totp_code": code})
                await console.there("#logout")
                await console.unharmed()
            async with consoles.at(house) as console:
                await console.sign_up()
                issuer.person["sub"] = "another"
                await console.visit("account")
                # The page reads the identities before this one is linked.
                linking = "path === '/account/identities' && method === 'POST'"
                async with console.held(linking, anew=True):
                    await console.page.click("#link-identity")
                    await console.page.until("window.answered?.includes('GET /account/identities') ?? false")
                await console.sees("Linked.")
                await console.sees(issuer.url)
                await console.page.click("#logout")
                await press(console, "Log in with Example")
                await console.there("#logout")
                await console.visit("account")
                await press(console, "Unlink")
                await console.page.until(f"!document.body.innerText.includes({json.dumps(issuer.url)})")
                await console.unharmed()
    assert not issuer.refused
