"""Log-ins with an identity provider: whose browser completes one, where it is sent, and what a failure tells."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from urllib.parse import parse_qs, urlsplit

import grpc
import pytest
from aiohttp import web

from moa.account.v1 import account_pb2, oidc_service_pb2_grpc
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import oidc_service_pb2 as oidc_pb
from services.auth.adapters.group_rules import GroupRules
from services.auth.adapters.identities import Identities
from services.auth.adapters.oidc_issuer import Issuer as Asking
from services.auth.adapters.tries import Tries
from services.auth.domain.oidc import is_path_of_ours
from services.auth.oidc_logins import CALLBACK, LASTS_S, OidcLogins
from services.common.egress import Egress
from tests.auth.asking import PEPPER
from tests.auth.client import Client, code_of
from tests.auth.conftest import Auth
from tests.auth.oidc.browsers import HOME, Go
from tests.emulators.issuer import Issuer, Manners, SigningKey

UNAUTHENTICATED, INVALID = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
async def test_somebody_logs_in_with_each_algorithm(go: Go, issuer: Issuer, alg: str) -> None:
    """Gets an account at the first log-in, and the same one at the next; the issuer finds nothing wrong with it."""
    world = await go()
    issuer.keys = [SigningKey.make(alg)]
    issuer.person |= {"email": f"Anna.{alg}@Example.com", "email_verified": True, "name": " Anna\n"}
    browser = world.browser()
    assert await browser.arrive("/console/keys?all=1") == f"{HOME}/console/keys?all=1#oidc=ready"
    first = await browser.log_in()
    account = first.account
    assert (account.email, account.name, account.role) == (
        f"anna.{alg.lower()}@example.com",
        "Anna",
        account_pb2.ROLE_USER,
    )
    session = browser.client.sent(first.session_token)
    assert (await browser.client.account.GetMe(pb.GetMeRequest(), metadata=session)).account == account
    again = await world.browser().through()
    assert again.account.account_id == account.account_id
    acts = world.auth.query("select act, details from audit where account_id = %s order by id", account.account_id)
    assert [act for act, _ in acts] == ["account.created", "identity.linked", "session.begun", "session.begun"]
    assert "by=oidc" in acts[-1][1]
    assert not issuer.refused
    assert not any("anna" in str(act).lower() for act in acts)


async def test_no_other_browser_completes_a_log_in_and_none_twice(go: Go, issuer: Issuer) -> None:
    """Neither with another's state, nor one that was made up, changed or used; and the issuer is not even asked."""
    world = await go()
    own, other = world.browser(), world.browser()
    location = await own.at_issuer(await own.start("/console"))
    expired = f"{HOME}/#oidc=failed:expired"
    assert await other.back(location) == expired
    assert await world.browser().back("/auth/oidc/callback?state=made-up&code=x") == expired
    assert await world.browser().back("/auth/oidc/callback") == expired
    kept = dict(own.cookies)
    # The cookie of one log-in opens none of another's state, under whatever name.
    theirs = await other.at_issuer(await other.start())
    (mine,), (name,) = kept.values(), other.cookies
    swapped = world.browser()
    swapped.cookies = {name: mine}
    assert await swapped.back(theirs) == expired
    swapped.cookies = {next(iter(kept)): mine[:-8] + "AAAAAAA="}
    assert await swapped.back(location) == expired
    assert issuer.fetched.count("/token") == 0
    assert await own.back(location) == f"{HOME}/console#oidc=ready"
    assert "__Host-moa_oidc_ready" in own.cookies
    own.cookies |= kept
    assert await own.back(location) == f"{HOME}/console#oidc=failed:expired"
    assert issuer.fetched.count("/token") == 1
    # Of what was no log-in of ours, nothing is written down.
    assert world.causes() == ["state_replayed"]


async def test_a_log_in_that_takes_too_long_has_ended(auth: Auth, issuer: Issuer) -> None:
    """Its cookie says so, sealed, whatever the browser keeps; and the audit log takes only so many failures."""
    now = time.time()
    egress = Egress([f"127.0.0.1:{issuer.port}"])
    asking = Asking(
        egress,
        issuer=issuer.url,
        client_id=issuer.client_id,
        client_secret=issuer.client_secret,
        redirect_uri=HOME + CALLBACK,
        home=HOME,
        scopes="",
        groups_claim="groups",
    )
    tries = Tries(auth.postgres, pepper=PEPPER, kind="oidc", tries=60, every_s=1)
    notes = Tries(auth.postgres, pepper=PEPPER, kind="a test's notes", tries=2, every_s=3600)
    logins = OidcLogins(
        asking,
        Identities(auth.postgres, pepper=PEPPER),
        GroupRules(None),
        tries,
        notes,
        pepper=PEPPER,
        public_url=HOME,
        sign_up="open",
        domains=(),
        by_email=False,
        clock=lambda: now,
    )
    sent = await logins.begin("/console", "198.51.100.9")
    name, _, value = sent.cookies[0].partition(";")[0].partition("=")
    (state,) = parse_qs(urlsplit(sent.location).query)["state"]
    given = {"state": state, "error": "access_denied"}
    now += LASTS_S
    late = await logins.finish(given, {name: value}, "198.51.100.9")
    assert late.location == f"{HOME}/#oidc=failed:expired"
    now -= 1
    in_time = await logins.finish(given, {name: value}, "198.51.100.9")
    assert in_time.location == f"{HOME}/console#oidc=failed:declined"
    # What strangers do is in the audit log for ever, so no more of it than this.
    ((before,),) = auth.query("select count(*) from audit where act = 'log_in.failed'")
    for _ in range(3):
        await logins.finish(given, {name: value}, "198.51.100.9")
    assert auth.query("select count(*) from audit where act = 'log_in.failed'") == [(before + 1,)]
    await egress.aclose()


async def test_failures_are_told_by_their_reason_and_written_down_by_their_cause(go: Go, issuer: Issuer) -> None:
    """Without a word of the person; what the issuer says is not repeated."""
    world = await go()
    cases: list[tuple[Manners, str, str]] = [
        (Manners(declines=True), "declined", "declined"),
        (Manners(claims={"nonce": "another", "email": "a@b.example"}), "token", "token_nonce"),
        (Manners(claims={"aud": "another"}), "token", "token_audience"),
        (Manners(token_answer=web.json_response({"error": "x"}, status=401)), "issuer", "token_endpoint_refused"),
    ]
    for manners, reason, cause in cases:
        issuer.manners = manners
        browser = world.browser()
        assert await browser.arrive("/console") == f"{HOME}/console#oidc=failed:{reason}"
        assert not browser.cookies
        assert world.causes()[-1] == cause
        with pytest.raises(grpc.aio.AioRpcError, match="log in with the identity provider first"):
            await browser.log_in()
    await issuer.stop()
    assert (await world.browser().start("/console")).startswith(issuer.url)  # its document is still known
    other = await go()
    assert await other.browser().start("/console") == f"{HOME}/console#oidc=failed:issuer"


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("/", True),
        ("/console/keys?tab=a&b=%2F", True),
        ("", False),
        ("console", False),
        ("//evil.example", False),
        ("/\\evil.example", False),
        ("\\/evil.example", False),
        ("https://evil.example/", False),
        ("/a#b", False),
        ("/a\r\nset-cookie: x", False),
        ("/a\n", False),
        ("/\u00e9", False),
        ("/" + "a" * 600, False),
        ("javascript:alert(1)", False),
    ],
)
def test_a_browser_is_sent_back_to_paths_of_ours_alone(path: str, ours: bool) -> None:
    """No other host, no fragment of another's, and nothing that would end a header."""
    assert is_path_of_ours(path) is ours


async def test_a_path_that_is_not_ours_is_refused_at_the_start(go: Go) -> None:
    """By its name, and so is one that is given twice."""
    browser = (await go()).browser()
    for query in ("return_to=//evil.example", "return_to=/a&return_to=/b", "return_to=https%3A%2F%2Fevil.example"):
        sent = browser.sent(path=f"/auth/oidc/start?{query}")
        assert await code_of(browser.stub.StartOidc(oidc_pb.StartOidcRequest(), metadata=sent)) == INVALID


async def test_a_log_in_is_good_for_one_session_on_any_replica(go: Go, issuer: Issuer) -> None:
    """Begun at one, taken back by another, completed by the first; then it is used up."""
    one, two = await go(), await go()
    browser, elsewhere = one.browser(), two.browser()
    elsewhere.cookies = browser.cookies
    location = await browser.at_issuer(await browser.start())
    assert await elsewhere.back(location) == f"{HOME}/#oidc=ready"
    ready = dict(browser.cookies)
    both = one.browser(), two.browser()
    for each in both:
        each.cookies = dict(ready)
    made = await asyncio.gather(*(each.log_in() for each in both), return_exceptions=True)
    refused = [answer for answer in made if isinstance(answer, grpc.aio.AioRpcError)]
    assert [answer.code() for answer in refused] == [UNAUTHENTICATED]
    browser.cookies |= ready
    used = browser.stub.LogInByOidc(oidc_pb.LogInByOidcRequest(), metadata=browser.sent())
    assert await code_of(used) == UNAUTHENTICATED
    ((kept,),) = one.auth.query("select id_token from sessions order by created_at desc limit 1")
    assert b"eyJ" not in bytes(kept)


async def test_logging_out_ends_the_session_with_the_issuer(go: Go, issuer: Issuer, root: str) -> None:
    """The answer tells where; a session that a password began has nothing to end there."""
    browser = (await go()).browser()
    session = browser.client.sent((await browser.through()).session_token)
    left = await browser.client.account.LogOut(pb.LogOutRequest(), metadata=session)
    query = parse_qs(urlsplit(left.end_session_url).query)
    assert left.end_session_url.startswith(f"{issuer.url}/logout?realm=a&")
    assert query["post_logout_redirect_uri"] == [f"{HOME}/"]
    body = query["id_token_hint"][0].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(body + "=="))["sub"] == issuer.person["sub"]
    gone = browser.client.account.GetMe(pb.GetMeRequest(), metadata=session)
    assert await code_of(gone) == UNAUTHENTICATED


async def test_a_gateway_without_an_issuer_says_so(client: Client, auth: Auth) -> None:
    """And tells pages how people log in."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{auth.public_port}") as link:
        stub = oidc_service_pb2_grpc.OidcServiceStub(link)
        methods = await stub.GetLogInMethods(oidc_pb.GetLogInMethodsRequest(), metadata=client.sent())
        assert methods == oidc_pb.GetLogInMethodsResponse(password=True, sign_up="open", password_reset=False)
        assert await code_of(stub.StartOidc(oidc_pb.StartOidcRequest(), metadata=client.sent())) == NOT_FOUND


async def test_pages_are_told_of_the_issuer(go: Go) -> None:
    """By the name that people call it, and where to send their browser."""
    browser = (await go(oidc_name="Example")).browser()
    methods = await browser.stub.GetLogInMethods(oidc_pb.GetLogInMethodsRequest(), metadata=browser.sent())
    assert methods.oidc == oidc_pb.OidcMethod(name="Example", start_url=f"{HOME}/auth/oidc/start")


async def test_many_starts_from_one_address_are_slowed(go: Go) -> None:
    """The browser is sent back with why, not to the issuer."""
    browser = (await go()).browser()
    began, count = time.monotonic(), 0
    while not (place := await browser.start()).startswith(HOME):
        count += 1
    assert place == f"{HOME}/#oidc=failed:busy"
    came_back = time.monotonic() - began + 1
    assert 60 <= count <= 60 + came_back
    assert len(browser.cookies) <= 16
