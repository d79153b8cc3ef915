"""Whose account a log-in with an identity provider opens, and what groups give it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import ValidationError

from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.account.v1 import oidc_service_pb2 as oidc_pb
from services.auth.adapters.teams import Teams
from services.auth.settings import AuthSettings
from tests.auth.client import PASSWORD, code_of
from tests.auth.conftest import Auth
from tests.auth.oidc.browsers import HOME, Go
from tests.auth.test_log_ins import code_of_secret
from tests.emulators.issuer import Issuer

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
CONFLICT, NOT_FOUND = grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND


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
