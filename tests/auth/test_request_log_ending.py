"""How what is logged of requests ends: erased, too old, encrypted anew, put into a bucket."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.account.v1 import team_service_pb2 as team_pb
from services.auth.adapters.request_log_exports import Exports
from services.auth.adapters.request_log_resealing import Resealing
from services.auth.adapters.request_log_sweep import RequestLogSweep
from services.auth.backlogs import Backlogs
from services.common.content_sealing import ContentKeys
from services.common.errors import NotFound, StorageFailed
from tests.auth.client import Client
from tests.auth.conftest import Auth
from tests.auth.request_logs import NEW, OLD, PROMPT, content_team, found, log_of, logged, sweep_of, team


class Overtaken(RequestLogSweep):
    """A sweep before which another replica's sweeps, once it knows the months."""

    async def _months(self) -> list[str]:
        names = await super()._months()
        await RequestLogSweep(self._postgres, clock=lambda: 0.0).tidy()
        return names


async def test_what_is_erased_is_gone_at_once_also_what_comes_late(auth: Auth) -> None:
    """Of an account, and of a team: nobody reads it, a late batch is not written, and the sweep removes it."""
    team_id, log, now = content_team(auth), log_of(auth), datetime.now(UTC)
    theirs = [logged(team_id, account_id="acc_a", tags=["x"], at=now - timedelta(minutes=one)) for one in range(3)]
    others = logged(team_id, account_id="acc_b", tags=["x", "y"], at=now - timedelta(minutes=1))
    await log.write([*theirs, others])
    await log.erase(team_id, "acc_a", actor="acc_9")
    assert await found(log, team_id=team_id) == [others.log_id]
    with pytest.raises(NotFound):
        await log.get(theirs[0].log_id, "", actor="acc_9")
    late = logged(team_id, account_id="acc_a", at=now - timedelta(seconds=1))
    assert await log.write([late]) == []
    sweep = sweep_of(auth)
    await sweep.tidy()
    assert auth.query("select id from request_log where team_id = %s", team_id) == [(others.log_id,)]
    tags = auth.query("select tag, id from request_log_tags where team_id = %s order by tag", team_id)
    assert tags == [("x", others.log_id), ("y", others.log_id)]
    with psycopg.connect(auth.url) as link:
        # A transaction that had begun before.
        link.execute("update request_log set account_id = 'acc_a' where id = %s", (others.log_id,))
    await sweep.tidy()
    assert auth.query("select id from request_log where team_id = %s", team_id) == []
    after = logged(team_id, account_id="acc_a", at=datetime.now(UTC) + timedelta(minutes=5))
    assert await log.write([after]) == [after]
    await log.erase(team_id, "", actor="acc_9")
    await sweep_of(auth).tidy()
    assert auth.query("select id from request_log where team_id = %s", team_id) == [(after.log_id,)]


async def test_deleting_an_account_or_a_team_takes_its_requests_along(auth: Auth, client: Client, root: str) -> None:
    """What is of a person is erased from the log with the account, and a team's log ends with it."""
    team_id, log = await team(client, root, on=True), log_of(auth)
    account_id, _, _ = await auth.account()
    now = datetime.now(UTC) - timedelta(seconds=1)
    gone, stays = logged(team_id, account_id=account_id, at=now), logged(team_id, at=now)
    await log.write([gone, stays])
    await client.admin.DeleteAccount(admin_pb.DeleteAccountRequest(account_id=account_id), metadata=client.sent(root))
    assert await found(log, team_id=team_id) == [stays.log_id]
    await client.team.DeleteTeam(team_pb.DeleteTeamRequest(team_id=team_id), metadata=client.sent(root))
    assert await found(log, team_id=team_id) == []
    await sweep_of(auth).tidy()
    assert auth.query("select 1 from request_log where team_id = %s", team_id) == []


async def test_what_is_older_than_its_team_keeps_goes_in_batches(auth: Auth, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read by nobody from then on; months of which nothing is left are dropped, others stay.

    Another replica may do so between two steps of this one.
    """
    monkeypatch.setattr("services.auth.adapters.request_log_sweep.BATCH", 2)
    short, long, log = content_team(auth, days=3), content_team(auth, days=300), log_of(auth)
    now = datetime.now(UTC)
    await log.write([logged(team_id, at=now - timedelta(hours=1)) for team_id in (short, long)])
    with psycopg.connect(auth.url) as link:
        for days in (70, 105):  # of two months, whatever the date
            link.execute("call make_request_log_month((now() - make_interval(days => %s))::date)", (days,))
        for team_id, days in ((short, 4), (short, 4), (short, 5), (short, 70), (long, 105)):
            at = now - timedelta(days=days)
            link.execute("call make_request_log_month(%s)", (at.date(),))
            link.execute(
                "insert into request_log (id, at, team_id, account_id, key_id, request_id, model, status, error, facts)"
                " values (%s, %s, %s, '', '', '', '', 200, '', '')",
                (secrets.token_hex(8), at, team_id),
            )
    assert len(await found(log, team_id=short)) == 1
    await Overtaken(auth.postgres, clock=lambda: 0.0).tidy()
    left = "select count(*)::int from request_log where team_id = %s"
    assert (auth.query(left, short), auth.query(left, long)) == ([(1,)], [(2,)])
    months = {
        name for (name,) in auth.query("select relname from pg_class where relname ~ '^request_log_\\d{4}_\\d\\d$'")
    }
    assert f"request_log_{now - timedelta(days=70):%Y_%m}" not in months
    assert f"request_log_{now - timedelta(days=105):%Y_%m}" in months
    assert f"request_log_{now:%Y_%m}" in months


async def test_a_month_that_is_over_for_everybody_goes_at_once(auth: Auth, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows it has: none of them is deleted by itself."""
    monkeypatch.setattr("services.auth.adapters.request_log_sweep.BATCH", 1)
    monkeypatch.setattr("services.auth.adapters.request_log_sweep.AT_WORK_S", 0)
    team_id = content_team(auth, days=366)
    with psycopg.connect(auth.url) as link:
        link.execute("call make_request_log_month((now() - interval '420 days')::date)")
        link.execute(
            "insert into request_log (id, at, team_id, account_id, key_id, request_id, model, status, error, facts)"
            " select 'old_' || n, now() - interval '420 days', %s, '', '', '', '', 200, '', ''"
            " from generate_series(1, 9) n",
            (team_id,),
        )
    await sweep_of(auth).tidy()
    assert auth.query("select count(*)::int from request_log where team_id = %s", team_id) == [(0,)]


async def test_content_of_an_older_key_is_encrypted_anew(auth: Auth, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change of keys the older can be taken away once the log was gone through; what no key opens stays."""
    monkeypatch.setattr("services.auth.adapters.request_log_resealing.LOOKED_AT", 2)
    monkeypatch.setattr("services.auth.adapters.request_log_resealing.AT_ONCE", 1)
    team_id = content_team(auth)
    told = [logged(team_id, content=f"{PROMPT} {number}") for number in range(5)]
    lost = logged(team_id, content=PROMPT)
    await log_of(auth, OLD).write(told)
    await log_of(auth, f"lost:{'0' * 63}3").write([lost])
    resealing = Resealing(auth.postgres, ContentKeys(f"{NEW},{OLD}"))
    while await resealing.tidy():
        pass
    keys = auth.query("select content_key, count(*)::int from request_log where team_id = %s group by 1", team_id)
    assert dict(keys) == {"new": 5, "lost": 1}
    for number, each in enumerate(told):
        kept = await log_of(auth, NEW).get(each.log_id, team_id, actor="x")
        assert kept.request.content.text_request.messages[0].parts[0].text == f"{PROMPT} {number}"
    assert (await log_of(auth, NEW).get(lost.log_id, team_id, actor="x")).unreadable


async def test_the_sweep_goes_on_soon_where_there_is_more_and_whatever_fails() -> None:
    """A backlog is worked off for a quarter of the time, and a duty that fails keeps no other back."""
    pauses: list[float] = []
    done, left = asyncio.Event(), [True, True, False]

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) > len(left):
            done.set()
            await asyncio.Event().wait()

    async def fails() -> bool:
        raise ValueError("a bug")

    async def works() -> bool:
        return left[len(pauses) - 1]

    async with Backlogs([fails, works], sleep=sleep):
        await done.wait()
    assert pauses == [60, 3, 3, 60]


class Bucket:
    """Keeps objects, and refuses some."""

    def __init__(self, *, refusals: int = 0) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts = 0
        self.refusals = refusals

    async def put(self, name: str, data: bytes, *, content_type: str) -> None:
        self.puts += 1
        self.objects[name] = data
        if self.puts <= self.refusals:
            # It may have arrived all the same.
            raise StorageFailed("no answer")

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of all objects."""
        return [json.loads(text) for data in self.objects.values() for text in gzip.decompress(data).splitlines()]


async def test_what_the_bucket_does_not_take_is_put_again_under_the_same_name(auth: Auth) -> None:
    """Nothing is lost and nothing is there twice, and writing waits for no bucket; no word of content goes out."""
    bucket = Bucket(refusals=1)
    exports = Exports(auth.postgres, bucket, prefix="log/")
    team_id = content_team(auth)
    log = log_of(auth, exports=exports)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    first, second = logged(team_id, at=hour, content=PROMPT), logged(team_id, at=hour)
    earlier = logged(team_id, at=hour - timedelta(minutes=1), status=429, error="rate_limited")
    await log.write([first, earlier])
    await log.write([second])
    await log.write([second])
    assert not await exports.round()
    third = logged(team_id, at=hour)
    await log.write([third])
    while await exports.round():
        pass
    lines = bucket.lines()
    assert sorted(line["log_id"] for line in lines) == sorted(each.log_id for each in (first, second, third, earlier))
    assert PROMPT not in json.dumps(lines)
    assert {line["error"] for line in lines} == {"", "rate_limited"}
    assert {name.rpartition("/")[0] for name in bucket.objects} == {
        f"log/{hour:%Y/%m/%d/%H}",
        f"log/{hour - timedelta(minutes=1):%Y/%m/%d/%H}",
    }
    assert auth.query("select count(*)::int from request_log_exports") == [(0,)]


async def test_lines_that_no_bucket_takes_for_days_are_given_up(auth: Auth) -> None:
    """The database does not fill up with them."""
    exports = Exports(auth.postgres, Bucket(refusals=99))
    await log_of(auth, exports=exports).write([logged(content_team(auth))])
    await exports.tidy()
    assert auth.query("select count(*)::int from request_log_exports") == [(1,)]
    with psycopg.connect(auth.url) as link:
        link.execute("update request_log_exports set created_at = now() - interval '8 days'")
    await exports.tidy()
    assert auth.query("select count(*)::int from request_log_exports") == [(0,)]
