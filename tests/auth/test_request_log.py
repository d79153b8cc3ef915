"""The log of requests: what is kept of whom, and who reads it."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import psycopg
import pytest
from pydantic import SecretStr, ValidationError

from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as account_service
from moa.account.v1 import request_log_service_pb2 as pb
from moa.account.v1 import team_service_pb2 as team_pb
from moa.quota.v1 import quota_pb2
from moa.requestlog.v1 import request_log_pb2, request_log_service_pb2, request_log_service_pb2_grpc
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.domain.request_log import Search
from services.auth.settings import AuthSettings
from services.common.content_sealing import ContentKeys
from services.common.rpc.client import metadata
from tests.auth.asking import TOKEN
from tests.auth.client import Client, code_of
from tests.auth.conftest import Auth, Start
from tests.auth.request_logs import NEW, OLD, PROMPT, content_team, found, log_of, logged, team

OWNER, MEMBER = account_pb2.TEAM_ROLE_OWNER, account_pb2.TEAM_ROLE_MEMBER


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
    now = datetime.now(UTC)
    today = now.date().isoformat()
    dropped = [request_log_service_pb2.Dropped(team_id=team_id, day=today, requests=7)]
    assert len(await log.write(batch, dropped, holder="h1")) == 2
    assert await log.write(batch, dropped, holder="h1") == []
    await log.write([], [request_log_service_pb2.Dropped(team_id=team_id, day=today, requests=2)], holder="h2")
    requests, count = await log.page(Search(team_id=team_id), limit=10)
    assert (len(requests), count) == (2, 9)
    _, before = await log.page(Search(team_id=team_id, until=now - timedelta(days=1)), limit=10)
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
