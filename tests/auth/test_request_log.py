"""The log of requests: what is kept of whom, who reads it, and how it goes."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import psycopg
import pytest
from pydantic import SecretStr, ValidationError

from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as account_service
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.account.v1 import request_log_service_pb2 as pb
from moa.account.v1 import team_service_pb2 as team_pb
from moa.quota.v1 import quota_pb2
from moa.requestlog.v1 import request_log_pb2, request_log_service_pb2, request_log_service_pb2_grpc
from moa.requestlog.v1.request_log_pb2 import LoggedRequest
from services.auth.adapters.request_log import RequestLog
from services.auth.adapters.request_log_exports import Exports
from services.auth.adapters.request_log_resealing import Resealing
from services.auth.adapters.request_log_sweep import RequestLogSweep
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.backlogs import Backlogs
from services.auth.domain.request_log import Search
from services.auth.settings import AuthSettings
from services.common.content_sealing import ContentKeys
from services.common.errors import NotFound, StorageFailed
from services.common.rpc.client import metadata
from tests.auth.asking import TOKEN
from tests.auth.client import Client, code_of
from tests.auth.conftest import Auth, Start

OWNER, MEMBER = account_pb2.TEAM_ROLE_OWNER, account_pb2.TEAM_ROLE_MEMBER
OLD, NEW = f"old:{'0' * 63}1", f"new:{'0' * 63}2"
PROMPT = "the plans of the tower by the sea"


async def team(client: Client, root: str, **log: Any) -> str:
    """Make a team that has its requests logged as is said; return its id."""
    made = await client.team.CreateTeam(team_pb.CreateTeamRequest(name="research"), metadata=client.sent(root))
    if log:
        request = team_pb.UpdateTeamRequest(team_id=made.team.team_id, request_log=team_pb.RequestLog(**log))
        await client.team.UpdateTeam(request, metadata=client.sent(root))
    return made.team.team_id


def content_team(auth: Auth, days: int = 30) -> str:
    """Make a team that has content logged, whatever key its replica has; return its id."""
    team_id = f"team_{secrets.token_hex(8)}"
    with psycopg.connect(auth.url) as link:
        link.execute(
            "insert into accounts (id, name, role, key_count) values (%s, 't', 'service', 1)", ("a" + team_id,)
        )
        link.execute(
            "insert into teams (id, name, account_id, rules, log_requests, log_content, log_days)"
            " values (%s, 't', %s, '[]', true, true, %s)",
            (team_id, "a" + team_id, days),
        )
    return team_id


def logged(team_id: str, *, at: datetime | None = None, content: str = "", **more: Any) -> LoggedRequest:
    """Return a request as a router tells it."""
    given = {"request_id": "r-1", "account_id": "acc_1", "key_id": "key_1", "asked": "p/m", "model": "p/m"}
    log_id = f"log_{secrets.token_hex(16)}"
    result = LoggedRequest(**{**given, "status": 200, **more}, log_id=log_id, team_id=team_id)
    result.at.FromDatetime(at or datetime.now(UTC))
    if content:
        result.content.text_request.messages.add().parts.add(text=content)
    return result


def log_of(auth: Auth, keys: str = NEW, exports: Exports | None = None) -> RequestLog:
    return RequestLog(auth.postgres, ContentKeys(keys), exports)


def sweep_of(auth: Auth) -> RequestLogSweep:
    """Return a sweep for which no time passes: how much it does at once is no question of how busy the machine is."""
    return RequestLogSweep(auth.postgres, clock=lambda: 0.0)


class Overtaken(RequestLogSweep):
    """A sweep before which another replica's sweeps, once it knows the months."""

    async def _months(self) -> list[str]:
        names = await super()._months()
        await RequestLogSweep(self._postgres, clock=lambda: 0.0).tidy()
        return names


async def found(log: RequestLog, **search: Any) -> list[str]:
    """Return the ids of the requests that a search finds."""
    requests, _ = await log.page(Search(**search), limit=100)
    return [each.log_id for each in requests]


async def member(auth: Auth, client: Client, root: str, team_id: str, role: Any) -> str:
    """Put a new account into a team; return a session of its."""
    email = f"{secrets.token_hex(6)}@example.com"
    signed = await client.sign_up(email)
    request = team_pb.AddMemberRequest(team_id=team_id, account_id=signed.account.account_id, role=role)
    await client.team.AddMember(request, metadata=client.sent(root))
    login = account_service.LogInRequest(email=email, password="correct horse battery")
    return (await client.account.LogIn(login, metadata=client.sent())).session_token


async def test_a_team_that_says_nothing_has_nothing_kept(auth: Auth, client: Client, root: str) -> None:
    """Its grants ask for no log, and what is told of it all the same is written nowhere, content or not."""
    team_id = await team(client, root)
    account_id, key_id, _ = await auth.account()
    request = team_pb.AddMemberRequest(team_id=team_id, account_id=account_id)
    await client.team.AddMember(request, metadata=client.sent(root))
    (who,) = await VerifiedKeys(auth.postgres).by_ids([key_id])
    assert who.request_logging == quota_pb2.REQUEST_LOGGING_UNSPECIFIED
    assert await log_of(auth).write([logged(team_id, content=PROMPT)]) == []
    assert auth.query("select 1 from request_log where team_id = %s", team_id) == []


async def test_facts_alone_are_kept_where_content_is_not_asked_for(auth: Auth, client: Client, root: str) -> None:
    """Content that a router tells of such a team is not kept; its grants ask for facts."""
    team_id = await team(client, root, on=True)
    account_id, key_id, _ = await auth.account()
    request = team_pb.AddMemberRequest(team_id=team_id, account_id=account_id)
    await client.team.AddMember(request, metadata=client.sent(root))
    (who,) = await VerifiedKeys(auth.postgres).by_ids([key_id])
    assert who.request_logging == quota_pb2.REQUEST_LOGGING_FACTS
    told = logged(team_id, content=PROMPT)
    await log_of(auth).write([told])
    ((facts, content),) = auth.query("select facts, content from request_log where team_id = %s", team_id)
    assert content is None
    assert PROMPT.encode() not in bytes(facts)
    kept = await log_of(auth).get(told.log_id, team_id, actor="x")
    assert (kept.request.has_content, kept.request.account_id) == (False, "acc_1")


async def test_content_takes_a_key_of_the_operator(auth: Auth, start: Start, client: Client, root: str) -> None:
    """Without MOA_REQUEST_LOG_KEYS a team cannot have content kept; with it its grants ask for content."""
    team_id = await team(client, root, on=True)
    change = team_pb.UpdateTeamRequest(team_id=team_id, request_log=team_pb.RequestLog(content=True))
    with pytest.raises(grpc.aio.AioRpcError, match="MOA_REQUEST_LOG_KEYS") as refused:
        await client.team.UpdateTeam(change, metadata=client.sent(root))
    assert refused.value.code() is grpc.StatusCode.ABORTED
    for days in (0, 367):
        change = team_pb.UpdateTeamRequest(team_id=team_id, request_log=team_pb.RequestLog(days=days))
        assert await code_of(client.team.UpdateTeam(change, metadata=client.sent(root))) is (
            grpc.StatusCode.INVALID_ARGUMENT
        )


async def test_the_database_holds_no_word_of_content(auth: Auth) -> None:
    """What is stored opens by the operator's key as its own request's, and shows nothing of it."""
    team_id, log = content_team(auth), log_of(auth)
    told, other = logged(team_id, content=PROMPT), logged(team_id, content="another")
    expected = request_log_pb2.Content.FromString(told.content.SerializeToString())
    await log.write([told, other])
    with psycopg.connect(auth.url) as link:
        ((row,),) = link.execute("select r::text from request_log r where id = %s", (told.log_id,)).fetchall()
        assert PROMPT not in row
        assert PROMPT.encode().hex() not in row
    kept = await log.get(told.log_id, "", actor="acc_9")
    assert kept.request.content == expected
    with psycopg.connect(auth.url) as link:
        link.execute(
            "update request_log r set content = o.content from request_log o where r.id = %s and o.id = %s",
            (told.log_id, other.log_id),
        )
    assert (await log.get(told.log_id, "", actor="acc_9")).unreadable
    read = auth.query("select details from audit where act = 'request_log.content_read' and actor = 'acc_9'")
    assert read == [([f"team={team_id}", f"request={told.log_id}"],)] * 2


async def test_the_operators_keys_are_changed_by_name(auth: Auth) -> None:
    """The first key encrypts, older ones open; without its key content is lost, and the rest can be read."""
    team_id = content_team(auth)
    before, after = logged(team_id, content=PROMPT), logged(team_id, content=PROMPT)
    await log_of(auth, OLD).write([before])
    await log_of(auth, f"{NEW}, {OLD}").write([after])
    names = auth.query("select content_key from request_log where team_id = %s order by at", team_id)
    assert names == [("old",), ("new",)]
    for told in (before, after):
        assert not (await log_of(auth, f"{NEW},{OLD}").get(told.log_id, "", actor="x")).unreadable
    lost = await log_of(auth, NEW).get(before.log_id, "", actor="x")
    assert lost.unreadable
    assert (lost.request.has_content, lost.request.HasField("content"), lost.request.model) == (True, False, "p/m")


@pytest.mark.parametrize("keys", ["plain", "a:zz", f"{NEW},{NEW}", f"a b:{'0' * 64}", f"a:{'0' * 62}"])
def test_keys_that_are_none_stop_the_start(keys: str) -> None:
    """The refusal names the form, and shows no key."""
    with pytest.raises(ValueError, match="name:64 hexadecimal digits") as refused:
        ContentKeys(keys)
    assert "0000" not in str(refused.value)
    with pytest.raises(ValidationError, match="request_log_keys"):
        AuthSettings(
            database_url=SecretStr("postgresql://x"),
            key_pepper=SecretStr("p" * 16),
            service_token=SecretStr("t" * 16),
            request_log_keys=SecretStr(keys),
        )


async def test_a_batch_that_is_told_again_is_kept_once(auth: Auth) -> None:
    """Nor does what the process dropped count twice."""
    team_id, log = content_team(auth), log_of(auth)
    batch = [logged(team_id), logged(team_id)]
    today = datetime.now(UTC).date().isoformat()
    dropped = [request_log_service_pb2.Dropped(team_id=team_id, day=today, requests=7)]
    assert len(await log.write(batch, dropped, holder="h1")) == 2
    assert await log.write(batch, dropped, holder="h1") == []
    await log.write([], [request_log_service_pb2.Dropped(team_id=team_id, day=today, requests=2)], holder="h2")
    requests, count = await log.page(Search(team_id=team_id), limit=10)
    assert (len(requests), count) == (2, 9)
    _, before = await log.page(Search(team_id=team_id, until=datetime.now(UTC) - timedelta(days=1)), limit=10)
    assert before == 0


async def test_a_name_that_the_database_cannot_hold_keeps_no_batch_back(auth: Auth) -> None:
    """A caller asks for a model with NUL in its name: it is in the log, and so is what comes with it."""
    team_id, log = content_team(auth), log_of(auth)
    odd, other = logged(team_id, model="", asked="a\0b", status=404, error="model_not_found"), logged(team_id)
    await log.write([odd, other])
    assert await found(log, team_id=team_id, model="ab") == [odd.log_id]
    assert (await log.get(odd.log_id, "", actor="x")).request.asked == "a\0b"


async def test_requests_are_found_by_what_is_known_of_them(auth: Auth) -> None:
    """Each filter finds its own, all together those of which all is true, page by page, the newest first."""
    team_id, log, now = content_team(auth), log_of(auth), datetime.now(UTC)
    told = [
        logged(team_id, at=now - timedelta(minutes=5), account_id="acc_2", request_id="r-a"),
        logged(team_id, at=now - timedelta(minutes=4), key_id="key_2", status=429, error="rate_limited", model=""),
        logged(team_id, at=now - timedelta(minutes=3), model="p/other", tags=["nightly", "user:bo"]),
        logged(team_id, at=now - timedelta(minutes=2), status=499, error="cancelled"),
    ]
    await log.write(told)
    ids = [each.log_id for each in told]
    for search, expected in (
        ({}, [3, 2, 1, 0]),
        ({"account_id": "acc_2"}, [0]),
        ({"key_id": "key_2"}, [1]),
        ({"model": "p/other"}, [2]),
        ({"model": "p/m"}, [3, 1, 0]),
        ({"status": 200}, [2, 0]),
        ({"status": 429}, [1]),
        ({"error": "rate_limited"}, [1]),
        ({"error": "any"}, [3, 1]),
        ({"error": "any", "status": 499}, [3]),
        ({"tag": "nightly"}, [2]),
        ({"tag": "nightly", "model": "p/m"}, []),
        ({"tag": "user:bo", "since": told[1].at.ToDatetime(UTC), "until": told[3].at.ToDatetime(UTC)}, [2]),
        ({"tag": "user:bo", "until": told[1].at.ToDatetime(UTC)}, []),
        ({"request_id": "r-a"}, [0]),
        ({"since": told[1].at.ToDatetime(UTC), "until": told[3].at.ToDatetime(UTC)}, [2, 1]),
    ):
        assert await found(log, team_id=team_id, **search) == [ids[number] for number in expected], search
    page, _ = await log.page(Search(team_id=team_id), limit=2)
    rest, _ = await log.page(Search(team_id=team_id), limit=3, after=(page[-1].at.ToDatetime(UTC), page[-1].log_id))
    assert [each.log_id for each in (*page, *rest)] == ids[::-1]


async def test_nobody_else_sees_a_teams_requests(auth: Auth, client: Client, root: str) -> None:
    """Owners read and delete their own team's; members, owners of another team and keys without the scope do not."""
    team_id, other = await team(client, root, on=True), await team(client, root, on=True)
    owner = await member(auth, client, root, team_id, OWNER)
    plain = await member(auth, client, root, team_id, MEMBER)
    stranger = await member(auth, client, root, other, OWNER)
    told = logged(team_id)
    await log_of(auth).write([told])
    listed = pb.ListLoggedRequestsRequest(team_id=team_id)
    mine = await client.log.ListLoggedRequests(listed, metadata=client.sent(owner))
    assert [each.log_id for each in mine.requests] == [told.log_id]
    everything = await client.log.ListLoggedRequests(pb.ListLoggedRequestsRequest(), metadata=client.sent(root))
    assert told.log_id in [each.log_id for each in everything.requests]
    denied = grpc.StatusCode.PERMISSION_DENIED
    for who, told_as in ((plain, denied), (stranger, grpc.StatusCode.NOT_FOUND)):
        calls: list[tuple[Any, Any]] = [
            (client.log.ListLoggedRequests, listed),
            (client.log.GetLoggedRequest, pb.GetLoggedRequestRequest(log_id=told.log_id, team_id=team_id)),
            (client.log.DeleteLoggedRequest, pb.DeleteLoggedRequestRequest(log_id=told.log_id, team_id=team_id)),
            (client.log.DeleteLoggedRequests, pb.DeleteLoggedRequestsRequest(team_id=team_id)),
        ]
        for call, request in calls:
            assert await code_of(call(request, metadata=client.sent(who))) is told_as
    assert await code_of(
        client.log.ListLoggedRequests(pb.ListLoggedRequestsRequest(), metadata=client.sent(owner))
    ) is (denied)
    foreign = pb.GetLoggedRequestRequest(log_id=told.log_id, team_id=other)
    assert await code_of(client.log.GetLoggedRequest(foreign, metadata=client.sent(stranger))) is (
        grpc.StatusCode.NOT_FOUND
    )
    gone = pb.DeleteLoggedRequestRequest(log_id=told.log_id, team_id=other)
    await client.log.DeleteLoggedRequest(gone, metadata=client.sent(stranger))
    assert auth.query("select count(*)::int from request_log where id = %s", told.log_id) == [(1,)]
    gone.team_id = team_id
    await client.log.DeleteLoggedRequest(gone, metadata=client.sent(owner))
    assert auth.query("select count(*)::int from request_log where id = %s", told.log_id) == [(0,)]
    acts = auth.query("select act from audit where details @> array[%s] order by id", f"team={team_id}")
    assert [row for row in acts if row[0].startswith("request_log")] == [("request_log.deleted",)]


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


async def test_only_services_write_and_nothing_odd(auth: Auth) -> None:
    """A request without a team, with another id or from another time is left out, and the rest of its batch is kept."""
    team_id, now = content_team(auth), datetime.now(UTC)
    good = logged(team_id)
    odd = [logged(""), logged(team_id, at=now - timedelta(days=8)), logged(team_id, at=now + timedelta(hours=2))]
    odd.append(logged(team_id))
    odd[-1].log_id = "log_x"
    async with grpc.aio.insecure_channel(auth.address) as link:
        stub = request_log_service_pb2_grpc.RequestLogServiceStub(link)
        request = request_log_service_pb2.WriteRequestsRequest(requests=[*odd, good], holder="h")
        assert await code_of(stub.WriteRequests(request)) is grpc.StatusCode.UNAUTHENTICATED
        await stub.WriteRequests(request, metadata=metadata(TOKEN, "r"))
    assert auth.query("select id from request_log where team_id = %s", team_id) == [(good.log_id,)]


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
