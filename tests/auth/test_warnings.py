"""Warnings that limits of teams and budgets are nearly used up: once each, whatever dies, by webhook and e-mail."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.keys import Keys
from services.auth.adapters.ledger import Borrowed, Ledger
from services.auth.adapters.mail import Mailer
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.teams import MEMBER, Teams
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.adapters.warnings import Delivery, Warnings
from services.auth.domain import keys
from services.auth.domain.accounts import EVERYTHING, Limits, VerifiedKey
from services.auth.domain.ledger import Booking, LeaseIds
from services.auth.warner import Warner
from services.common.egress import Egress
from services.common.errors import Unavailable
from services.common.signing import Secrets
from services.quota_client.amounts import Amount, ReservationId
from tests.auth.asking import PEPPER
from tests.emulators.mailbox import Mailbox
from tests.emulators.receiver import Receiver
from tests.killing import killed_at

SECRETS = Secrets("a root")


@dataclass
class Book:
    """A team whose account spends, with nobody beside it who warns."""

    url: str
    postgres: Postgres
    team_id: str
    who: VerifiedKey
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.postgres, grace_s=5, alive_s=5)

    async def borrow(self, amount: Amount, *, days: int = 0) -> Borrowed:
        """Hold an amount."""
        who = replace(self.who, day=self.who.day + timedelta(days=days))
        got = await self.ledger.borrow(who, holder="h", least=amount, need=amount, want=amount, ttl_s=60)
        assert isinstance(got, Borrowed)
        return got

    async def spend(self, amount: Amount, *, days: int = 0) -> None:
        """Have an amount charged."""
        block = await self.borrow(amount, days=days)
        name = ReservationId(LeaseIds(PEPPER).make(block.block_id, 1), "1", amount)
        settlement = quota_pb2.Settlement(
            reservation_id=str(name), charged=amount.message(), usage=usage_pb2.Usage(prompt_tokens=1), provider="p"
        )
        await self.ledger.settle([Booking(str(name), name.lease_id, block.block_id, amount, settlement)])

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as link:
            return link.execute(statement.encode()).fetchall()

    def written(self) -> list[tuple[str, int]]:
        """Return the warnings of the team."""
        return self.query(
            f"select limit_name, percent from warnings where subject = '{self.team_id}' order by starts, 1, percent"
        )


@pytest.fixture
async def book(migrated: str) -> AsyncIterator[Book]:
    """A team of 1,000 tokens a day and a dollar a month, whose warnings go nowhere that answers."""
    postgres = Postgres(migrated, size=4, wait_s=20)
    await postgres.open()
    teams = Teams(postgres)
    limits = {"tokens_a_day": 1000, "nano_usd_a_month": 10**9}
    told = {"warn_url": "http://127.0.0.1:1/hook", "warn_emails": ["lead@example.com"]}
    team = await teams.create(name="research", columns=limits | told, rules=[], key_count=1, actor="console")
    limits_of_account = Limits(tokens_a_day=10**6, key_count=1)
    account_id = await Accounts(postgres).create(role="user", limits=limits_of_account, rules=[EVERYTHING])
    await teams.put(team.id, account_id, MEMBER, actor="console")
    key = await Keys(postgres).create(account_id, keys.make(PEPPER))
    (who,) = await VerifiedKeys(postgres).by_ids([key.id])
    yield Book(migrated, postgres, team.id, who)
    await teams.delete(team.id, actor="console")
    async with postgres.transaction() as link:
        await link.execute("update warning_deliveries set given_up_at = now()")
    await postgres.close()


async def test_each_threshold_is_warned_of_once_a_period_by_what_is_charged(book: Book) -> None:
    """What is only held warns of nothing; a limit that is passed at one blow warns of each; the next day anew."""
    warnings = Warnings(book.postgres)
    held = await book.borrow(Amount(tokens=900))
    assert await warnings.note() == 0
    await book.ledger.expire([held.block_id])
    async with book.postgres.transaction() as link:
        await link.execute("update blocks set expires_at = now() - interval '1 s' where id = %s", (held.block_id,))
    await book.ledger.expire([held.block_id])
    await book.spend(Amount(tokens=499, nano_usd=1))
    assert await warnings.note() == 0
    await book.spend(Amount(tokens=1))
    assert await warnings.note() == 1
    assert await warnings.note() == 0
    await book.spend(Amount(tokens=500, nano_usd=8 * 10**8 - 1))
    assert await warnings.note() == 4
    assert sorted(book.written()) == [
        ("nano_usd_a_month", 50),
        ("nano_usd_a_month", 80),
        ("tokens_a_day", 50),
        ("tokens_a_day", 80),
        ("tokens_a_day", 100),
    ]
    await book.spend(Amount(tokens=600), days=1)
    assert await warnings.note() == 1


async def test_replicas_that_look_at_once_write_one_warning(book: Book) -> None:
    """Whoever comes second finds it written, with its deliveries."""
    await book.spend(Amount(tokens=1000))
    written = await asyncio.gather(*(Warnings(book.postgres).note() for _ in range(4)))
    assert sum(written) == len(book.written()) == 3
    sent = (
        "select count(*)::int from warning_deliveries d join warnings w on w.id = d.warning_id"
        f" where subject = '{book.team_id}'"
    )
    assert book.query(sent) == [(6,)]


async def test_a_kill_amid_writing_loses_no_warning(book: Book) -> None:
    """A warning and its deliveries are there together or not at all, and the next look writes them."""
    await book.spend(Amount(tokens=1000))
    code = (
        "import asyncio\nfrom services.auth.adapters.postgres import Postgres\n"
        "from services.auth.adapters.warnings import Warnings\n"
        f"async def main():\n    postgres = Postgres({book.url!r}, size=1, wait_s=20)\n    await postgres.open()\n"
        "    await Warnings(postgres).note()\nasyncio.run(main())"
    )
    await asyncio.to_thread(killed_at, code, book.url, "warning_deliveries", mode="access exclusive")
    assert book.written() == []
    assert await Warnings(book.postgres).note() == 3


async def test_a_warning_arrives_by_both_ways_and_is_tried_again(book: Book) -> None:
    """Signed for its team, under one id whatever the attempt; who fails is asked again."""
    with Receiver() as receiver:
        async with Mailbox() as mailbox, book.postgres.transaction() as link:
            url = receiver.scripted(500)
            await link.execute("update teams set warn_url = %s where id = %s", (url, book.team_id))
            await link.commit()
            egress = Egress([f"127.0.0.1:{receiver.port}"])
            warnings = Warnings(book.postgres)
            warner = Warner(warnings, egress, Mailer(mailbox.url, "moa@example.org"), SECRETS, pauses_s=(0.0, 0.0))
            mailbox.scripts.append("451 later")
            await book.spend(Amount(tokens=510))
            await warner.round()
            await egress.aclose()
            (first, body), (second, again) = receiver.arrived
            (mail,) = mailbox.arrived
    assert first["webhook-id"] == second["webhook-id"]
    signed = f"{second['webhook-id']}.{second['webhook-timestamp']}.".encode() + again
    key = base64.b64decode(SECRETS.secret(book.team_id, 1).removeprefix("whsec_"))
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert second["webhook-signature"] == f"v1,{signature}"
    told = json.loads(body)["data"]
    assert (told["subject"], told["name"], told["limit"]) == (book.team_id, "research", "tokens_a_day")
    assert (told["percent"], told["used"], told["most"]) == (50, "510 tokens", "1,000 tokens")
    assert mail["To"] == "lead@example.com"
    assert mail["Subject"] == "50% of the limit of the team research is used"
    assert "50% of the limit of 1,000 tokens a day of the team research is used: 510 tokens." in mail.get_content()


async def test_what_is_due_at_once_is_told_in_its_order(book: Book) -> None:
    """Who hears of 50, 80 and 100 percent at once hears the least first, though another is asked meanwhile."""
    async with Mailbox() as mailbox, book.postgres.transaction() as link:
        two = ["lead@example.com", "other@example.com"]
        await link.execute("update teams set warn_url = '', warn_emails = %s where id = %s", (two, book.team_id))
        await link.commit()
        await book.spend(Amount(tokens=1000))
        egress = Egress()
        await Warner(Warnings(book.postgres), egress, Mailer(mailbox.url, "moa@example.org"), SECRETS).round()
        await egress.aclose()
    for whose in two:
        told = [mail["Subject"].partition("%")[0] for mail in mailbox.arrived if mail["To"] == whose]
        assert told == ["50", "80", "100"]


class Forgetful(Warnings):
    """Dies after a warning was sent, and before that is noted."""

    async def delivered(self, delivery: Delivery) -> None:
        """Note nothing."""
        raise Unavailable("killed")


async def test_what_may_have_arrived_is_sent_again_under_the_same_id(book: Book) -> None:
    """A receiver that has each id once has each warning once."""
    with Receiver() as receiver:
        async with book.postgres.transaction() as link:
            await link.execute(
                "update teams set warn_url = %s, warn_emails = '{}' where id = %s", (receiver.url, book.team_id)
            )
        egress = Egress([f"127.0.0.1:{receiver.port}"])
        await book.spend(Amount(tokens=1000))
        await Warner(Forgetful(book.postgres), egress, Mailer("", ""), SECRETS).round()
        assert len(receiver.arrived) == 3
        other = Warner(Warnings(book.postgres), egress, Mailer("", ""), SECRETS)
        await other.round()
        assert len(receiver.arrived) == 3, "another takes it only when its lease is over"
        async with book.postgres.transaction() as link:
            await link.execute("update warning_deliveries set next_at = now() where delivered_at is null")
        await other.round()
        await egress.aclose()
    assert len(receiver.arrived) == 6
    assert len({headers["webhook-id"] for headers, _ in receiver.arrived}) == 3


async def test_a_host_inside_and_a_refused_address_are_given_up(book: Book) -> None:
    """The egress guard is asked again when a warning is sent; a mail server's refusal for good ends it."""
    async with Mailbox() as mailbox:
        mailbox.scripts.append("550 no such mailbox")
        await book.spend(Amount(tokens=510))
        egress = Egress()
        await Warner(Warnings(book.postgres), egress, Mailer(mailbox.url, "moa@example.org"), SECRETS).round()
        await egress.aclose()
    given_up = (
        "select channel from warning_deliveries d join warnings w on w.id = d.warning_id"
        f" where given_up_at is not null and delivered_at is null and subject = '{book.team_id}' order by 1"
    )
    assert book.query(given_up) == [("email",), ("webhook",)]
