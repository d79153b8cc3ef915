"""The one-time link by which the first administrator gets an email and a password."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from deploy.local.first_login import LASTS_S, FirstLogin, is_unclaimed
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2
from services.auth.domain import keys
from services.auth.domain.accounts import CEILINGS, EVERYTHING
from tests.auth.asking import PEPPER
from tests.auth.client import PASSWORD, Client, code_of, connected
from tests.auth.conftest import Auth, Start

TOKEN = "the-token-of-the-link"
DENIED, ABORTED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.ABORTED


@asynccontextmanager
async def offered(start: Start, *, token: str = TOKEN, left_s: float = 60.0) -> AsyncIterator[tuple[Auth, Client]]:
    """Yield a replica that offers the link, with its first administrator there, and a caller."""
    auth = await start(setup_token=token, setup_until=time.time() + left_s)
    auth.query("update accounts set role = 'user', email = null where role = 'admin' returning 1")
    await auth.accounts.first(limits=CEILINGS, rules=[EVERYTHING], key=keys.make(PEPPER), micro_credits=0)
    client, link = await connected(auth.public_port)
    async with link:
        yield auth, client


async def claimed(client: Client, email: str, *, token: str = TOKEN, password: str = PASSWORD) -> pb.SetUpResponse:
    request = pb.SetUpRequest(setup_token=token, email=email, password=password)
    answer: pb.SetUpResponse = await client.account.SetUp(request, metadata=client.sent())
    return answer


async def test_the_first_administrator_logs_in(start: Start) -> None:
    """The administrator of the first key gets an email and a password; this session administers, and each later one."""
    async with offered(start) as (auth, client):
        made = await claimed(client, "Boss@example.com")
        assert made.account.email == "boss@example.com"
        login = pb.LogInRequest(email="boss@example.com", password=PASSWORD)
        again = await client.account.LogIn(login, metadata=client.sent())
        for token in (made.session_token, again.session_token):
            asked = admin_service_pb2.ListAccountsRequest()
            listed = await client.admin.ListAccounts(asked, metadata=client.sent(token))
            assert made.account.account_id in [account.account_id for account in listed.accounts]
        assert auth.query("select 1 from audit where act = 'account.claimed'")


async def test_the_link_is_used_once(start: Start) -> None:
    """A second use is refused, in the same words as a wrong token, and changes nothing."""
    async with offered(start) as (_, client):
        await claimed(client, "first@example.com")
        with pytest.raises(grpc.aio.AioRpcError) as replayed:
            await claimed(client, "second@example.com", password="another password")
        with pytest.raises(grpc.aio.AioRpcError) as guessed:
            await claimed(client, "second@example.com", token="wrong")
        assert (replayed.value.code(), replayed.value.details()) == (DENIED, guessed.value.details())
        login = pb.LogInRequest(email="first@example.com", password=PASSWORD)
        await client.account.LogIn(login, metadata=client.sent())


async def test_of_those_who_open_it_one_gets_in(start: Start) -> None:
    """Several who send their passwords at once: one gets the account, the others are told that the link was used."""
    async with offered(start) as (auth, client):
        emails = [f"opener{number}@example.com" for number in range(6)]
        ended = await asyncio.gather(*(claimed(client, email) for email in emails), return_exceptions=True)
        won = [email for email, answer in zip(emails, ended, strict=True) if isinstance(answer, pb.SetUpResponse)]
        assert len(won) == 1
        assert auth.query("select email from accounts where role = 'admin'") == [(won[0],)]


@pytest.mark.parametrize(
    ("email", "password"), [("nobody", PASSWORD), ("boss@example.com", "short"), ("taken-here@example.com", PASSWORD)]
)
async def test_a_mistake_does_not_use_it_up(start: Start, email: str, password: str) -> None:
    """A bad email, a bad password, or another's email is refused, and the link still works."""
    async with offered(start) as (_, client):
        if email.startswith("taken"):
            await client.sign_up(email)
        code = await code_of(claimed(client, email, password=password))
        assert code == (ABORTED if email.startswith("taken") else grpc.StatusCode.INVALID_ARGUMENT)
        await claimed(client, "boss@example.com")


@pytest.mark.parametrize(
    ("token", "left_s", "sent"),
    [(TOKEN, -1.0, TOKEN), ("the-token-of-the-next-start", 60.0, TOKEN), ("", 60.0, ""), (TOKEN, 60.0, "é")],
    ids=["ended", "restarted", "not offered", "no ASCII"],
)
async def test_a_link_that_is_no_use(start: Start, token: str, left_s: float, sent: str) -> None:
    """One that has ended, one of an earlier start, none where none is offered: refused, and no account changes."""
    async with offered(start, token=token, left_s=left_s) as (auth, client):
        assert await code_of(claimed(client, "boss@example.com", token=sent)) == DENIED
        assert auth.query("select email from accounts where role = 'admin'") == [(None,)]


async def test_guessing_is_slowed(start: Start) -> None:
    """Ten wrong tokens of one address are refused; then it has to wait, and another address does not."""
    async with offered(start) as (auth, client):
        codes = [await code_of(claimed(client, "boss@example.com", token=f"guess {n}")) for n in range(10)]
        assert codes == [DENIED] * 10
        # A busy machine takes so long for these that another try has come back.
        while codes[-1] == DENIED and len(codes) < 40:
            codes.append(await code_of(claimed(client, "boss@example.com", token=f"guess {len(codes)}")))
        assert codes[-1] == grpc.StatusCode.RESOURCE_EXHAUSTED
        owner, link = await connected(auth.public_port)
        async with link:
            await claimed(owner, "boss@example.com")


async def test_it_is_no_use_where_an_administrator_can_log_in(start: Start) -> None:
    """An administrator who was made with a password ends the link, for good."""
    async with offered(start) as (auth, client):
        await auth.accounts.create(
            role="admin", limits=CEILINGS, rules=[EVERYTHING], email="other@example.com", password_hash="x"
        )
        assert await code_of(claimed(client, "boss@example.com")) == DENIED


async def test_what_the_launcher_prints(start: Start) -> None:
    """A link with the token that the service is told, as long as it is needed; each start has another, for an hour."""
    async with offered(start) as (auth, client):
        first, second = FirstLogin(), FirstLogin()
        token = first.environment["MOA_SETUP_TOKEN"]
        assert first.url("http://host") == f"http://host/#setup={token}"
        assert is_unclaimed(auth.url)
        assert token != second.environment["MOA_SETUP_TOKEN"]
        assert 0 < float(first.environment["MOA_SETUP_UNTIL"]) - time.time() <= LASTS_S + 1
        await claimed(client, "boss@example.com")
        assert not is_unclaimed(auth.url)
