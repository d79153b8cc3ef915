"""A real auth server over the real PostgreSQL, in this process."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr

from deploy.local.database import Database
from deploy.local.ports import Ports
from moa.quota.v1 import quota_pb2
from services.auth.account_servicer import SignUpMode
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.keys import Keys
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.domain import keys, passwords
from services.auth.domain.accounts import CEILINGS, EVERYTHING, Limits
from services.auth.domain.quota import Quota
from services.auth.replica import serving
from services.auth.settings import AuthSettings
from services.common.errors import Unavailable
from services.common.rpc.client import channel
from services.quota_client import Admission, _pace
from services.quota_client._settling import DEFERRED_S
from tests import forking, poolers
from tests.auth.asking import PEPPER, TOKEN, Router
from tests.auth.client import Client, connected
from tests.databases import books


@dataclass
class Auth:
    """One replica, and the database behind it."""

    url: str
    postgres: Postgres
    accounts: Accounts
    keys: Keys
    port: int
    public_port: int
    stack: AsyncExitStack = field(repr=False)
    quota: Quota | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def account(
        self, *, tokens: int = 100_000, images: int = 50, rules: Sequence[quota_pb2.Rule] = (EVERYTHING,), **more: Any
    ) -> tuple[str, str, str]:
        """Create an account with a key; give the ids and the key."""
        limits = Limits(tokens_a_day=tokens, images_a_day=images, key_count=10)
        account_id = await self.accounts.create(role="user", limits=limits, rules=rules)
        key_id, secret = await self.key(account_id, **more)
        return account_id, key_id, secret

    async def key(self, account_id: str, **more: Any) -> tuple[str, str]:
        key = keys.make(PEPPER)
        return (await self.keys.create(account_id, key, **more)).id, key.secret

    async def quota_day(self, account_id: str) -> tuple[date, datetime]:
        """Return an account's quota day, and when it ends."""
        key_id, _ = await self.key(account_id)
        (who,) = await VerifiedKeys(self.postgres).by_ids([key_id])
        return who.day, who.resets_at.astimezone(UTC)

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as link:
            return link.execute(statement, parameters).fetchall()

    def spent(self, account_id: str) -> tuple[int, int]:
        """Return the tokens and images that the ledger charged to an account."""
        rows = self.query(
            "select coalesce(sum(tokens), 0)::bigint, coalesce(sum(images), 0)::bigint from ledger"
            " where account_id = %s and kind in ('settle', 'orphan', 'late')",
            account_id,
        )
        return rows[0][0], rows[0][1]

    def taken(self, subject: str) -> tuple[int, int]:
        """Return what is settled or held of today's quota."""
        rows = self.query("select tokens, images from quota_days where subject = %s", subject)
        return (rows[0][0], rows[0][1]) if rows else (0, 0)


Start = Callable[..., Awaitable[Auth]]
Admit = Callable[..., Awaitable[Admission]]


async def started(
    url: str,
    *,
    lease_s: float = 20.0,
    block_s: float = 60.0,
    fresh_s: float = 1.5,
    port: int = 0,
    signup: SignUpMode = "open",
    setup_token: str = "",
    setup_until: float = 0.0,
    database_wait_s: float = 20.0,
    ledger_retention_days: int | None = None,
    smtp_url: str = "",
    request_log_keys: str = "",
    **more: Any,
) -> Auth:
    """Start a replica; a busy machine is no database that is away, but for a test that says so."""
    stack = AsyncExitStack()
    config = AuthSettings(
        key_pepper=SecretStr(PEPPER.decode()),
        service_token=SecretStr(TOKEN),
        listen=f"127.0.0.1:{port}",
        public_listen="127.0.0.1:0",
        signup=signup,
        setup_token=SecretStr(setup_token),
        setup_until=setup_until,
        lease_s=lease_s,
        block_s=block_s,
        fresh_s=fresh_s,
        database_wait_s=database_wait_s,
        ledger_retention_days=ledger_retention_days,
        smtp_url=SecretStr(smtp_url),
        request_log_keys=SecretStr(request_log_keys),
        public_url="https://moa.example.com/",
        drain_s=0,
        **{**poolers.settings(url), **more},
    )
    replica = await stack.enter_async_context(serving(config))
    postgres = replica.postgres
    await _reached(postgres)
    ports = replica.port, replica.public_port
    return Auth(url, postgres, Accounts(postgres), Keys(postgres), *ports, stack, replica.quota)


async def _reached(postgres: Postgres, within_s: float = 30.0) -> None:
    """Wait for the first connection: a replica starts without it."""
    end = time.monotonic() + within_s
    while True:
        try:
            async with postgres.transaction():
                return
        except Unavailable:
            assert time.monotonic() < end, "the database never answered"
            await asyncio.sleep(0.05)


REAL_HASHING = (passwords.HASHER, passwords.DECOY)
"""What is run outside of the tests: it takes 0.2 s of CPU a password."""


@pytest.fixture(scope="session", autouse=True)
def _cheap_passwords() -> Iterator[None]:
    """Passwords whose hash takes no time, for replicas in this process."""
    with pytest.MonkeyPatch.context() as patch:
        cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
        patch.setattr(passwords, "HASHER", cheap)
        patch.setattr(passwords, "DECOY", cheap.hash("a password that nobody has"))
        yield


@pytest.fixture(scope="module")
def migrated(database: Database) -> str:
    """Return the URL of a database with auth's schema that this test module alone uses."""
    return books(database)


@pytest.fixture
async def start(migrated: str) -> AsyncIterator[Start]:
    """Start replicas that end with the test."""
    running: list[Auth] = []

    async def go(**settings: Any) -> Auth:
        auth = await started(migrated, **settings)
        running.append(auth)
        return auth

    yield go
    for auth in running:
        await auth.stack.aclose()


@pytest.fixture
async def auth(start: Start) -> Auth:
    return await start()


@pytest.fixture
async def admit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Admit]:
    """Start the router's half against replicas; ends with the test. It waits long for auth: the machine may be busy."""
    running: list[tuple[Admission, grpc.aio.Channel]] = []

    async def go(
        *replicas: Auth,
        journal: Path | None = tmp_path / "journal",
        deferred_s: float = DEFERRED_S,
        call_s: float = 60.0,
    ) -> Admission:
        # Who has no answer of a pace in time goes on alone, beyond what all may do together.
        monkeypatch.setattr(_pace, "CALL_S", call_s)
        link = channel("ipv4:" + ",".join(auth.address for auth in replicas))
        admission = Router(
            link, service_token=TOKEN, journal=journal, deferred_s=deferred_s, call_s=call_s, settle_every_s=0.05
        )
        await admission.start()
        running.append((admission, link))
        return admission

    yield go
    for admission, link in running:
        await admission.stop()
        await link.close()


@pytest.fixture
async def client(auth: Auth) -> AsyncIterator[Client]:
    """A caller of the public services."""
    made, link = await connected(auth.public_port)
    yield made
    await link.close()


@pytest.fixture
async def root(auth: Auth) -> str:
    """An administrator's key."""
    key = keys.make(PEPPER)
    await auth.accounts.create(role="admin", limits=CEILINGS, rules=[EVERYTHING], key=key, actor="console")
    return key.secret


async def spawned(
    url: str, *, lease_s: float = 20.0, block_s: float = 60.0, database_wait_s: float = 20.0
) -> tuple[forking.Begun, str]:
    """Start a replica as a process of its own, as `started` does; give it and its address."""
    ports = Ports()
    shared, own = poolers.urls(url)
    address = f"127.0.0.1:{ports.any()}"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "MOA_DATABASE_URL": shared,
        "MOA_DATABASE_SESSION_URL": own,
        "MOA_KEY_PEPPER": PEPPER.decode(),
        "MOA_SERVICE_TOKEN": TOKEN,
        "MOA_LISTEN": address,
        "MOA_PUBLIC_LISTEN": f"127.0.0.1:{ports.any()}",
        "MOA_LEASE_S": str(lease_s),
        "MOA_BLOCK_S": str(block_s),
        "MOA_DATABASE_WAIT_S": str(database_wait_s),
        "MOA_LOG_LEVEL": "error",
    }
    process = await forking.begun("services.auth", environment)
    link = channel(address)  # gRPC's own pauses between two tries grow to minutes
    try:
        await asyncio.wait_for(link.channel_ready(), 110)
    except BaseException:
        process.kill()
        raise
    finally:
        await link.close()
    return process, address
