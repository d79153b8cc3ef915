"""Log-ins: a second factor that counts once, and sessions that their account sees and ends."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from urllib.parse import parse_qs, urlsplit

import grpc
import pytest

from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from services.auth.adapters.second_factors import SecondFactors
from services.auth.domain import totp
from tests.auth.asking import PEPPER
from tests.auth.client import PASSWORD, Client, code_of, connected
from tests.auth.conftest import Auth, Start
from tests.emulators.mailbox import Mailbox

INVALID, DENIED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED

VECTORS = [
    (59, "287082"),
    (1111111109, "081804"),
    (1111111111, "050471"),
    (1234567890, "005924"),
    (2000000000, "279037"),
]
"""RFC 6238, appendix B, of SHA-1: the last six of its eight digits."""
SECRET = b"12345678901234567890"


@pytest.mark.parametrize(("at", "code"), VECTORS)
def test_codes_are_those_of_the_rfc(at: int, code: str) -> None:
    """And are taken at their time, a step before and after, with the space that apps show, and at no other time."""
    step = at // totp.STEP_S
    assert totp.code_at(SECRET, step) == code
    for drift_s in (-20, 0, totp.STEP_S):
        assert totp.step_of(SECRET, f"{code[:3]} {code[3:]}", now=at + drift_s, after=0) == step
    for off in (at + 2 * totp.STEP_S, max(0, at - 10 * totp.STEP_S) if at > 1000 else at + 3600):
        assert totp.step_of(SECRET, code, now=off, after=0) is None
    assert totp.step_of(SECRET, code, now=at, after=step) is None


@pytest.mark.parametrize("code", ["", "12345", "1234567", "12345x", "１２３４５６"])
def test_what_is_no_code_is_none(code: str) -> None:
    """Six ASCII digits are."""
    assert totp.step_of(SECRET, code, now=59, after=0) is None


def code_of_secret(uri: str, at: float) -> str:
    """Return what an app shows that has read the picture."""
    (secret,) = parse_qs(urlsplit(uri).query)["secret"]
    return totp.code_at(base64.b32decode(secret), int(at) // totp.STEP_S)


async def test_a_code_counts_once(auth: Auth) -> None:
    """Whoever saw it cannot use it again, nor an earlier one; what the database keeps is sealed."""
    account_id, _, _ = await auth.account()
    now = 1_000_000.0
    factors = SecondFactors(auth.postgres, pepper=PEPPER, clock=lambda: now)
    secret = await factors.begin(account_id)
    await factors.confirm(account_id, totp.code_at(secret, int(now) // 30))
    assert not await factors.check(account_id, totp.code_at(secret, int(now) // 30))
    now += 60
    latest = totp.code_at(secret, int(now) // 30)
    assert await factors.check(account_id, latest)
    for code in (latest, totp.code_at(secret, int(now) // 30 - 1)):
        assert not await factors.check(account_id, code)
    ((kept,),) = auth.query("select totp from accounts where id = %s", account_id)
    assert secret not in bytes(kept)


async def test_a_second_factor_is_set_used_and_taken_away(client: Client, root: str, auth: Auth) -> None:
    """Without its code nobody logs in, a confirmed one ends other sessions, and each act is in the audit log."""
    email = "two.factors@example.com"
    account = await client.sign_up(email)
    session = client.sent(account.session_token)
    log_in = pb.LogInRequest(email=email, password=PASSWORD)
    other = await client.account.LogIn(log_in, metadata=client.sent())
    begun = await client.account.BeginSecondFactor(pb.BeginSecondFactorRequest(), metadata=session)
    assert begun.uri.startswith("otpauth://totp/Moa%3Atwo.factors%40example.com?secret=")
    await client.account.LogIn(log_in, metadata=client.sent())
    wrong = client.account.ConfirmSecondFactor(pb.ConfirmSecondFactorRequest(code="1"), metadata=session)
    assert await code_of(wrong) == grpc.StatusCode.INVALID_ARGUMENT
    first = code_of_secret(begun.uri, time.time())
    await client.account.ConfirmSecondFactor(pb.ConfirmSecondFactorRequest(code=first), metadata=session)
    ended = client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(other.session_token))
    assert await code_of(ended) == grpc.StatusCode.UNAUTHENTICATED
    for code in ("", first, "000000x"):
        log_in.totp_code = code
        assert await code_of(client.account.LogIn(log_in, metadata=client.sent())) == grpc.StatusCode.UNAUTHENTICATED
    again = client.account.BeginSecondFactor(pb.BeginSecondFactorRequest(), metadata=session)
    assert await code_of(again) == grpc.StatusCode.ABORTED
    log_in.totp_code = code_of_secret(begun.uri, time.time() + 30)
    assert (await client.account.LogIn(log_in, metadata=client.sent())).session_token
    account_id = account.account.account_id
    admin = client.sent(root)
    change = admin_pb.UpdateAccountRequest(account_id=account_id, second_factor=True)
    assert await code_of(client.admin.UpdateAccount(change, metadata=admin)) == grpc.StatusCode.INVALID_ARGUMENT
    change.second_factor = False
    await client.admin.UpdateAccount(change, metadata=admin)
    log_in.totp_code = ""
    assert (await client.account.LogIn(log_in, metadata=client.sent())).session_token
    audit = await client.admin.ListAudit(admin_pb.ListAuditRequest(account_id=account_id), metadata=admin)
    assert [entry.act for entry in audit.entries] == [
        "session.begun",
        "second_factor.removed",
        "session.begun",
        "second_factor.set",
        "session.begun",
        "session.begun",
    ]


async def test_a_second_factor_is_removed_by_its_code(client: Client) -> None:
    """And by nothing else that its account has."""
    session = client.sent((await client.sign_up("no.second@example.com")).session_token)
    begun = await client.account.BeginSecondFactor(pb.BeginSecondFactorRequest(), metadata=session)
    confirm = pb.ConfirmSecondFactorRequest(code=code_of_secret(begun.uri, time.time()))
    await client.account.ConfirmSecondFactor(confirm, metadata=session)
    remove = pb.RemoveSecondFactorRequest(code="123")
    refused = client.account.RemoveSecondFactor(remove, metadata=session)
    assert await code_of(refused) == grpc.StatusCode.INVALID_ARGUMENT
    remove.code = code_of_secret(begun.uri, time.time() + 30)
    await client.account.RemoveSecondFactor(remove, metadata=session)
    log_in = pb.LogInRequest(email="no.second@example.com", password=PASSWORD)
    assert (await client.account.LogIn(log_in, metadata=client.sent())).session_token


async def test_sessions_are_seen_and_ended(client: Client) -> None:
    """Their account's alone, by ids that are not their tokens; keys see none."""
    made = await client.sign_up("sessions@example.com")
    own = client.sent(made.session_token)
    other = await client.account.LogIn(
        pb.LogInRequest(email="sessions@example.com", password=PASSWORD), metadata=client.sent()
    )
    listed = (await client.account.ListSessions(pb.ListSessionsRequest(), metadata=own)).sessions
    assert [one.current for one in listed] == [False, True]
    assert listed[0].address == client.address
    assert not any(one.session_id in made.session_token + other.session_token for one in listed)
    stranger = client.sent((await client.sign_up("strange@example.com")).session_token)
    end = pb.EndSessionRequest(session_id=listed[0].session_id)
    assert await code_of(client.account.EndSession(end, metadata=stranger)) == grpc.StatusCode.NOT_FOUND
    await client.account.EndSession(end, metadata=own)
    ended = client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(other.session_token))
    assert await code_of(ended) == grpc.StatusCode.UNAUTHENTICATED
    assert await code_of(client.account.EndSession(end, metadata=own)) == grpc.StatusCode.NOT_FOUND
    key = await client.account.CreateKey(pb.CreateKeyRequest(), metadata=own)
    by_key = client.account.ListSessions(pb.ListSessionsRequest(), metadata=client.sent(key.api_key))
    assert await code_of(by_key) == grpc.StatusCode.PERMISSION_DENIED


async def mailed(mailbox: Mailbox, count: int) -> str:
    """Wait for so many mails, and return what the last one's link has behind the #."""
    async with asyncio.timeout(60):
        while len(mailbox.arrived) < count:
            await asyncio.sleep(0.02)
    (token,) = re.findall(r"https://moa\.example\.com/#reset=(\S+)", mailbox.arrived[-1].get_content())
    return str(token)


async def test_a_forgotten_password_is_replaced_by_a_mailed_link(start: Start) -> None:
    """Once, within half an hour, by the newest link alone; sessions end; whether an address has an account is not told,
    and an address is not flooded."""
    async with Mailbox() as mailbox:
        auth = await start(smtp_url=mailbox.url)
        client, link = await connected(auth.public_port)
        async with link:
            email = "forgetful@example.com"
            made = await client.sign_up(email)
            ask = pb.AskPasswordResetRequest(email="Forgetful@example.com")
            await client.account.AskPasswordReset(ask, metadata=client.sent())
            older = await mailed(mailbox, 1)
            assert mailbox.arrived[0]["To"] == email
            await client.account.AskPasswordReset(ask, metadata=client.sent())
            token = await mailed(mailbox, 2)
            nobody = pb.AskPasswordResetRequest(email="nobody@example.com")
            assert (
                await client.account.AskPasswordReset(nobody, metadata=client.sent()) == pb.AskPasswordResetResponse()
            )
            short = pb.ResetPasswordRequest(token=token, password="short")
            assert await code_of(client.account.ResetPassword(short, metadata=client.sent())) == INVALID
            for used in (older, "reset_made-up", ""):
                wrong = pb.ResetPasswordRequest(token=used, password="a new password")
                assert await code_of(client.account.ResetPassword(wrong, metadata=client.sent())) == DENIED
            right = pb.ResetPasswordRequest(token=token, password="a new password")
            await client.account.ResetPassword(right, metadata=client.sent())
            assert await code_of(client.account.ResetPassword(right, metadata=client.sent())) == DENIED
            gone = client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(made.session_token))
            assert await code_of(gone) == grpc.StatusCode.UNAUTHENTICATED
            client.address = "198.51.100.7"
            log_in = pb.LogInRequest(email=email, password="a new password")
            assert (await client.account.LogIn(log_in, metadata=client.sent())).session_token
            await client.account.AskPasswordReset(ask, metadata=client.sent())
            with pytest.raises(grpc.aio.AioRpcError, match="too many links were asked for this address") as flood:
                await client.account.AskPasswordReset(ask, metadata=client.sent())
            assert flood.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            late = await mailed(mailbox, 3)
            auth.query("update password_resets set expires_at = now() - interval '1 second' returning 1")
            ended = pb.ResetPasswordRequest(token=late, password="a third password")
            assert await code_of(client.account.ResetPassword(ended, metadata=client.sent())) == DENIED
            acts = auth.query("select act from audit where account_id = %s order by id", made.account.account_id)
            assert [act for (act,) in acts] == [
                "password_reset.asked",
                "password_reset.asked",
                "password.reset",
                "session.begun",
                "password_reset.asked",
            ]


async def test_a_gateway_without_mail_says_so(client: Client) -> None:
    """And whom to ask."""
    ask = client.account.AskPasswordReset(pb.AskPasswordResetRequest(email="a@example.com"), metadata=client.sent())
    assert await code_of(ask) == DENIED
