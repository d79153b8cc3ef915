"""Log-ins with an identity provider: what is believed of it, whose an account is, and what groups give."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import grpc
import pytest
from aiohttp import web
from pydantic import ValidationError

from moa.account.v1 import account_pb2, oidc_service_pb2_grpc
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.account.v1 import oidc_service_pb2 as oidc_pb
from services.auth.adapters.group_rules import GroupRules
from services.auth.adapters.identities import Identities
from services.auth.adapters.oidc_issuer import Issuer as Asking
from services.auth.adapters.teams import Teams
from services.auth.adapters.tries import Tries
from services.auth.domain.oidc import is_path_of_ours
from services.auth.oidc_logins import CALLBACK, LASTS_S, OidcLogins
from services.auth.settings import AuthSettings
from services.common.egress import Egress
from services.common.rpc import rest
from tests.auth.asking import PEPPER
from tests.auth.client import PASSWORD, Client, code_of, connected
from tests.auth.conftest import Auth, Start
from tests.auth.test_log_ins import code_of_secret
from tests.emulators.issuer import Issuer, Manners, SigningKey

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
CONFLICT, NOT_FOUND, INVALID = grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
HOME = "https://moa.example.com"


@dataclass
class Browser:
    """Somebody's browser: keeps cookies, and follows where it is sent."""

    stub: oidc_service_pb2_grpc.OidcServiceAsyncStub
    client: Client
    http: aiohttp.ClientSession
    cookies: dict[str, str] = field(default_factory=dict)

    def sent(self, token: str = "", path: str = "") -> tuple[tuple[str, str], ...]:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = (*self.client.sent(token), *((("cookie", cookie),) if cookie else ()))
        return (*headers, (rest.ORIGINAL_PATH, path)) if path else headers

    async def _keep(self, call: Any) -> tuple[Any, str]:
        """Return an answer and where it sends the browser, and keep its cookies."""
        answer = await call
        location = ""
        for name, value in await call.initial_metadata():
            if name == "set-cookie":
                given, *attributes = value.split("; ")
                assert {"Path=/", "HttpOnly", "Secure"} <= set(attributes)
                name_of, _, text = given.partition("=")
                assert name_of.startswith("__Host-moa_oidc_")
                self.cookies.pop(name_of, None)
                if "Max-Age=0" not in attributes:
                    self.cookies[name_of] = text
            elif name == "location":
                location = value
        return answer, location

    async def start(self, return_to: str = "") -> str:
        """Return where the browser is sent to log in."""
        path = f"/auth/oidc/start?return_to={return_to}" if return_to else "/auth/oidc/start"
        _, location = await self._keep(self.stub.StartOidc(oidc_pb.StartOidcRequest(), metadata=self.sent(path=path)))
        return str(location)

    async def back(self, location: str) -> str:
        """Return where the browser is sent back to, having come back from the issuer to `location`."""
        path = location.removeprefix(HOME)
        call = self.stub.FinishOidc(oidc_pb.FinishOidcRequest(), metadata=self.sent(path=path))
        return (await self._keep(call))[1]

    async def at_issuer(self, location: str) -> str:
        """Return where the issuer sends the browser back to."""
        async with self.http.get(location, allow_redirects=False) as answer:
            assert answer.status == 302, await answer.text()
            return answer.headers["location"]

    async def arrive(self, return_to: str = "") -> str:
        """Log in at the issuer; return where that ended."""
        return await self.back(await self.at_issuer(await self.start(return_to)))

    async def log_in(self, **asked: Any) -> oidc_pb.LogInByOidcResponse:
        """Return a session by the log-in that has come back."""
        call = self.stub.LogInByOidc(oidc_pb.LogInByOidcRequest(**asked), metadata=self.sent())
        answer: oidc_pb.LogInByOidcResponse
        answer, _ = await self._keep(call)
        return answer

    async def through(self, **asked: Any) -> oidc_pb.LogInByOidcResponse:
        """Log in."""
        assert await self.arrive() == f"{HOME}/#oidc=ready"
        return await self.log_in(**asked)


@dataclass
class World:
    """A replica, its issuer, and browsers."""

    auth: Auth
    issuer: Issuer
    browser: Callable[[], Browser]
    before: int
    """The last entry of the audit log when it began."""

    def causes(self) -> list[str]:
        """Return why log-ins failed, by the audit log."""
        rows = self.auth.query(
            "select details from audit where act = 'log_in.failed' and id > %s order by id", self.before
        )
        return [text.removeprefix("cause=") for (details,) in rows for text in details if text.startswith("cause=")]


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as found:
        yield found


Go = Callable[..., Any]


@pytest.fixture
async def go(start: Start, issuer: Issuer) -> AsyncIterator[Go]:
    """Start replicas that know the issuer."""
    links: list[grpc.aio.Channel] = []
    http = aiohttp.ClientSession()

    async def begin(**settings: Any) -> World:
        auth = await start(
            **{
                "signup": "invite",
                "oidc_issuer": issuer.url,
                "oidc_client_id": issuer.client_id,
                "oidc_client_secret": issuer.client_secret,
                "oidc_signup": "open",
                **settings,
            }
        )
        client, link = await connected(auth.public_port)
        links.append(link)

        def browser() -> Browser:
            other = Client(client.account, client.admin, client.team, client.budget, client.log)
            return Browser(oidc_service_pb2_grpc.OidcServiceStub(link), other, http)

        issuer.person["sub"] = f"person-{time.monotonic_ns()}"
        ((before,),) = auth.query("select coalesce(max(id), 0) from audit")
        return World(auth, issuer, browser, before)

    yield begin
    await http.close()
    for link in links:
        await link.close()


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


async def test_two_first_log_ins_at_once_make_one_account(go: Go, issuer: Issuer) -> None:
    """The other one is told to try again, and gets the same account then."""
    world = await go()
    browsers = [world.browser() for _ in range(3)]
    for browser in browsers:
        assert await browser.arrive() == f"{HOME}/#oidc=ready"
    made = await asyncio.gather(*(browser.log_in() for browser in browsers), return_exceptions=True)
    accounts = set()
    for browser, answer in zip(browsers, made, strict=True):
        if isinstance(answer, BaseException):
            assert isinstance(answer, grpc.aio.AioRpcError)
            assert answer.code() == CONFLICT
            answer = await browser.log_in()
        accounts.add(answer.account.account_id)
    assert len(accounts) == 1
    assert world.auth.query("select count(*) from identities where subject = %s", issuer.person["sub"]) == [(1,)]


async def test_who_has_no_account_is_told_and_may_link_one(go: Go, issuer: Issuer, root: str) -> None:
    """By its session, with the log-in that has just come back; an address alone never opens an account."""
    world = await go(oidc_signup="closed")
    browser = world.browser()
    email = "linked@example.com"
    made = await browser.client.admin.CreateAccount(
        admin_pb.CreateAccountRequest(email=email, password=PASSWORD, role=account_pb2.ROLE_USER),
        metadata=browser.client.sent(root),
    )
    issuer.person |= {"email": email, "email_verified": True}
    assert await browser.arrive() == f"{HOME}/#oidc=ready"
    refused = browser.stub.LogInByOidc(oidc_pb.LogInByOidcRequest(), metadata=browser.sent())
    assert await code_of(refused) == DENIED
    assert world.causes() == ["no_account"]
    by_key = browser.stub.LinkIdentity(oidc_pb.LinkIdentityRequest(), metadata=browser.sent(root))
    assert await code_of(by_key) == DENIED
    log_in = pb.LogInRequest(email=email, password=PASSWORD)
    session = (await browser.client.account.LogIn(log_in, metadata=browser.client.sent())).session_token
    # Nobody who has found an old session opens the account for good.
    made_earlier = (
        "update sessions set created_at = created_at {} interval '20 minutes' where account_id = %s returning 1"
    )
    world.auth.query(made_earlier.format("-"), made.account.account_id)
    old = browser.stub.LinkIdentity(oidc_pb.LinkIdentityRequest(), metadata=browser.sent(session))
    assert await code_of(old) == UNAUTHENTICATED
    world.auth.query(made_earlier.format("+"), made.account.account_id)
    linked = await browser.stub.LinkIdentity(oidc_pb.LinkIdentityRequest(), metadata=browser.sent(session))
    assert linked.identity.issuer == issuer.url
    again = browser.stub.LinkIdentity(oidc_pb.LinkIdentityRequest(), metadata=browser.sent(session))
    assert await code_of(again) == UNAUTHENTICATED
    by_issuer = await world.browser().through()
    assert by_issuer.account.account_id == made.account.account_id
    # What is another's cannot be linked.
    stranger = await browser.client.admin.CreateAccount(
        admin_pb.CreateAccountRequest(email="stranger@example.com", password=PASSWORD),
        metadata=browser.client.sent(root),
    )
    log_in = pb.LogInRequest(email="stranger@example.com", password=PASSWORD)
    theirs = (await browser.client.account.LogIn(log_in, metadata=browser.client.sent())).session_token
    await browser.arrive()
    taken = browser.stub.LinkIdentity(oidc_pb.LinkIdentityRequest(), metadata=browser.sent(theirs))
    assert await code_of(taken) == CONFLICT
    listed = await browser.stub.ListIdentities(oidc_pb.ListIdentitiesRequest(), metadata=browser.sent(theirs))
    assert not listed.identities
    # Whoever has a password may unlink; the log-in is nobody's then.
    unlink = oidc_pb.UnlinkIdentityRequest(identity_id=linked.identity.identity_id)
    assert await code_of(browser.stub.UnlinkIdentity(unlink, metadata=browser.sent(theirs))) == NOT_FOUND
    await browser.stub.UnlinkIdentity(unlink, metadata=browser.sent(session))
    await browser.arrive()
    refused = browser.stub.LogInByOidc(oidc_pb.LogInByOidcRequest(), metadata=browser.sent())
    assert await code_of(refused) == DENIED
    acts = world.auth.query(
        "select act from audit where account_id = %s and act like 'identity.%%' order by id", made.account.account_id
    )
    assert acts == [("identity.linked",), ("identity.removed",)]
    assert stranger.account.account_id


async def test_the_only_way_to_log_in_is_not_unlinked(go: Go, root: str) -> None:
    """Whoever has no password would be locked out; an administrator may, and ends the sessions with it."""
    browser = (await go()).browser()
    session = (await browser.through()).session_token
    listed = await browser.stub.ListIdentities(oidc_pb.ListIdentitiesRequest(), metadata=browser.sent(session))
    (own,) = listed.identities
    unlink = oidc_pb.UnlinkIdentityRequest(identity_id=own.identity_id)
    assert await code_of(browser.stub.UnlinkIdentity(unlink, metadata=browser.sent(session))) == CONFLICT
    me = await browser.client.account.GetMe(pb.GetMeRequest(), metadata=browser.client.sent(session))
    account_id, admin = me.account.account_id, browser.client.sent(root)
    listing = admin_pb.ListAccountIdentitiesRequest(account_id=account_id)
    assert list((await browser.client.admin.ListAccountIdentities(listing, metadata=admin)).identities) == [own]
    take = admin_pb.UnlinkAccountIdentityRequest(account_id=account_id, identity_id=own.identity_id)
    await browser.client.admin.UnlinkAccountIdentity(take, metadata=admin)
    gone = browser.client.account.GetMe(pb.GetMeRequest(), metadata=browser.client.sent(session))
    assert await code_of(gone) == UNAUTHENTICATED
    assert await code_of(browser.client.admin.UnlinkAccountIdentity(take, metadata=admin)) == NOT_FOUND


async def test_an_address_that_is_taken_makes_no_second_account(go: Go, issuer: Issuer, root: str) -> None:
    """Without the operator's word the log-in is refused; with it the account is the person's, and what another may have
    set up of it ends."""
    email = "owner@example.com"
    issuer.person |= {"email": email, "email_verified": True}
    world = await go()
    browser = world.browser()
    made = await browser.client.admin.CreateAccount(
        admin_pb.CreateAccountRequest(email=email, password=PASSWORD), metadata=browser.client.sent(root)
    )
    log_in = pb.LogInRequest(email=email, password=PASSWORD)
    before = await browser.client.account.LogIn(log_in, metadata=browser.client.sent())
    await browser.arrive()
    refused = browser.stub.LogInByOidc(oidc_pb.LogInByOidcRequest(), metadata=browser.sent())
    assert await code_of(refused) == CONFLICT
    assert world.causes() == ["address_taken"]
    linking = await go(oidc_link_by_email=True)
    issuer.person |= {"email": email, "email_verified": False}
    unverified = await linking.browser().through()
    assert unverified.account.account_id != made.account.account_id
    assert unverified.account.email == ""
    issuer.person |= {"email_verified": True, "sub": issuer.person["sub"] + "-2"}
    right = await linking.browser().through()
    assert right.account.account_id == made.account.account_id
    ended = browser.client.account.GetMe(pb.GetMeRequest(), metadata=browser.client.sent(before.session_token))
    assert await code_of(ended) == UNAUTHENTICATED
    assert await code_of(browser.client.account.LogIn(log_in, metadata=browser.client.sent())) == UNAUTHENTICATED


def test_addresses_are_no_names_where_anybody_signs_up() -> None:
    """The settings refuse to link by them there; an issuer that others could speak for, too."""
    given: dict[str, Any] = {"database_url": "postgresql:///moa", "key_pepper": "p" * 16, "service_token": "t" * 16}
    for wrong in (
        {"signup": "open", "oidc_link_by_email": True},
        {"oidc_issuer": "http://issuer.example.com", "oidc_client_id": "moa"},
        {"oidc_issuer": "https://issuer.example.com?a=b", "oidc_client_id": "moa"},
        {"oidc_issuer": "issuer.example.com", "oidc_client_id": "moa"},
        {"oidc_issuer": "https://issuer.example.com"},
    ):
        with pytest.raises(ValidationError):
            AuthSettings(**given, **wrong)
    given |= {"oidc_issuer": "https://i.example.com/realms/a", "oidc_client_id": "moa", "oidc_groups": ""}
    assert AuthSettings(**given).oidc_groups is None


async def test_a_disabled_account_stays_out(go: Go, root: str) -> None:
    """Whatever the issuer says; and a deleted one is not found again."""
    world = await go()
    browser = world.browser()
    account_id = (await browser.through()).account.account_id
    admin = browser.client.sent(root)
    await browser.client.admin.UpdateAccount(
        admin_pb.UpdateAccountRequest(account_id=account_id, disabled=True), metadata=admin
    )
    await browser.arrive()
    refused = browser.stub.LogInByOidc(oidc_pb.LogInByOidcRequest(), metadata=browser.sent())
    assert await code_of(refused) == DENIED
    assert world.causes() == ["account_disabled"]
    await browser.client.admin.DeleteAccount(admin_pb.DeleteAccountRequest(account_id=account_id), metadata=admin)
    assert world.auth.query("select 1 from identities where account_id = %s", account_id) == []
    assert (await world.browser().through()).account.account_id != account_id


async def test_a_second_factor_is_asked_for_unless_the_issuer_did(go: Go, issuer: Issuer) -> None:
    """`mfa` in the token's `amr`; a wrong code leaves the log-in good for another try."""
    world = await go()
    browser = world.browser()
    session = browser.client.sent((await browser.through()).session_token)
    begun = await browser.client.account.BeginSecondFactor(pb.BeginSecondFactorRequest(), metadata=session)
    first = code_of_secret(begun.uri, time.time())
    await browser.client.account.ConfirmSecondFactor(pb.ConfirmSecondFactorRequest(code=first), metadata=session)
    await browser.arrive()
    for code in ("", first):
        refused = browser.stub.LogInByOidc(oidc_pb.LogInByOidcRequest(totp_code=code), metadata=browser.sent())
        assert await code_of(refused) == UNAUTHENTICATED
    assert (await browser.log_in(totp_code=code_of_secret(begun.uri, time.time() + 30))).session_token
    assert world.causes() == ["second_factor_wrong"]
    issuer.manners.claims = {"amr": ["pwd", "otp"]}
    await browser.arrive()
    refused = browser.stub.LogInByOidc(oidc_pb.LogInByOidcRequest(), metadata=browser.sent())
    assert await code_of(refused) == UNAUTHENTICATED
    issuer.manners.claims = {"amr": ["pwd", "mfa"]}
    assert (await browser.through()).session_token


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


async def test_groups_count_from_log_in_to_log_in(go: Go, issuer: Issuer, tmp_path: Path, auth: Auth) -> None:
    """By the claim that the operator names: they decide who gets an account, its team and its role."""
    made = await Teams(auth.postgres).create(name="research", columns={}, rules=[], key_count=1, actor="console")
    file = tmp_path / "groups.yaml"
    file.write_text(f"- {{group: research, team: {made.id}, role: owner}}\n")
    world = await go(oidc_groups=file, oidc_groups_claim="realm_access.roles", oidc_signup="groups")
    browser = world.browser()
    await browser.arrive()
    refused = browser.stub.LogInByOidc(oidc_pb.LogInByOidcRequest(), metadata=browser.sent())
    assert await code_of(refused) == DENIED
    issuer.manners.claims = {"realm_access": {"roles": ["other", "research"]}}
    account = (await browser.through()).account
    assert (account.team_id, account.team_role) == (made.id, account_pb2.TEAM_ROLE_OWNER)
    file.write_text(f"- {{group: research, team: {made.id}}}\n- {{group: other, team: {made.id}, role: owner}}\n")
    keeper, _, _ = await auth.account()
    await Teams(auth.postgres).put(made.id, keeper, "owner", actor="console")
    account = (await world.browser().through()).account
    assert (account.team_id, account.team_role) == (made.id, account_pb2.TEAM_ROLE_MEMBER)
    issuer.manners.claims = {"_claim_names": {"realm_access.roles": "src1"}}
    assert (await world.browser().through()).account.team_id == made.id
    issuer.manners.claims = {}
    assert (await world.browser().through()).account.team_id == ""
