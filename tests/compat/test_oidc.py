"""Log-ins with a certified identity provider, for Node, as published."""

from __future__ import annotations

import asyncio
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import aiohttp
import pytest

from deploy.local.ports import Ports
from services.auth.adapters.oidc_issuer import Issuer
from services.auth.domain.oidc import LogInFailed, Person
from services.common.egress import Egress
from tests.compat import environments
from tests.compat.runner import PROGRAMS

HOME = "https://moa.example.com"
VERIFIER, NONCE, STATE = "v" * 43, "n" * 43, "s" * 43


@asynccontextmanager
async def provider(methods: str) -> AsyncIterator[str]:
    """Yield the address of a provider that runs, whose clients authenticate by these methods."""
    folder = await asyncio.to_thread(environments.node, "oidc-provider")
    program = folder / "oidc_provider.mjs"
    await asyncio.to_thread(shutil.copy, PROGRAMS / program.name, program)
    port = Ports().any()
    line = ("node", str(program), str(port), methods)
    process = await asyncio.create_subprocess_exec(*line, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while (said := await process.stdout.readline()) != b"up\n":
                assert said, "the provider ended"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stdin.close()
        await process.wait()


async def logged_in(http: aiohttp.ClientSession, url: str) -> dict[str, list[str]]:
    """Follow a browser through the provider's pages; return what the way back says."""
    for _ in range(12):
        async with http.get(url, allow_redirects=False) as answer:
            text, moved = await answer.text(), answer.headers.get("location")
        if moved is None:
            action, prompt = re.search('action="([^"]+)"', text), re.search(r'name="prompt" value="(\w+)"', text)
            assert action is not None
            assert prompt is not None
            typed = {"prompt": prompt[1], "login": "anna", "password": "x"}
            async with http.post(urljoin(url, action[1]), data=typed, allow_redirects=False) as answer:
                moved = answer.headers["location"]
        url = urljoin(url, moved)
        if url.startswith(HOME):
            return parse_qs(urlsplit(url).query)
    raise AssertionError(url)


CLIENTS = [("rsa", "a secret: +%"), ("ec", "another secret"), ("public", "")]


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_certified_provider_vouches_for_people() -> None:
    """With each algorithm, by a secret in the header, in the form, and by PKCE alone; a code is good once and with its
    verifier, and the way back names the provider."""
    for names, methods in ((("rsa", "public"), "client_secret_basic,none"), (("ec",), "client_secret_post")):
        async with provider(methods) as url:
            for name, secret in CLIENTS:
                if name in names:
                    await check(url, name, secret)


async def check(url: str, client: str, secret: str) -> None:
    egress = Egress([url.removeprefix("http://")])
    issuer = Issuer(
        egress,
        issuer=url,
        client_id=client,
        client_secret=secret,
        redirect_uri=f"{HOME}/auth/oidc/callback",
        home=f"{HOME}/",
        scopes="email groups",
        groups_claim="groups",
    )
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:

        async def back() -> dict[str, list[str]]:
            return await logged_in(http, await issuer.begin(state=STATE, nonce=NONCE, verifier=VERIFIER))

        async def cause(**asked: Any) -> str:
            with pytest.raises(LogInFailed) as failure:
                await issuer.person(**{"verifier": VERIFIER, "nonce": NONCE, "named": url, **asked})
            return failure.value.cause

        said = await back()
        assert (said["state"], said["iss"]) == ([STATE], [url])
        code = said["code"][0]
        person, token = await issuer.person(code=code, verifier=VERIFIER, nonce=NONCE, named=url)
        assert person == Person(url, "anna", "anna@example.com", "", ("research",), second_factor=False)
        assert await cause(code=code) == "code_refused"
        assert await cause(code=(await back())["code"][0], verifier="w" * 43) == "code_refused"
        assert await cause(code=(await back())["code"][0], named=None) == "other_issuer"
        assert await cause(code=(await back())["code"][0], nonce="m" * 43) == "token_nonce"
        async with http.get(await issuer.end_session_url(token)) as answer:
            assert answer.status == 200, await answer.text()
    await egress.aclose()
