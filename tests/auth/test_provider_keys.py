"""Providers' keys that are set while the gateway runs, and what routers report: what auth keeps, and who has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from moa.account.v1 import provider_key_service_pb2 as pb
from moa.account.v1 import provider_key_service_pb2_grpc
from moa.common.v1.rates_pb2 import UpstreamRates
from moa.operator.v1 import operator_store_service_pb2 as operator_pb
from moa.operator.v1 import operator_store_service_pb2_grpc
from services.auth.adapters.provider_keys import ProviderKeys
from services.auth.adapters.request_log_resealing import Resealing
from services.auth.adapters.traffic import KEPT_S, Traffic
from services.auth.domain.accounts import KeyLimits
from services.auth.domain.powers import ADMIN
from services.common.content_sealing import ContentKeys
from services.common.rpc.client import metadata
from tests.auth.asking import TOKEN
from tests.auth.client import Client, code_of
from tests.auth.conftest import Auth, Start

KEY = f"first:{'0' * 63}1"
SECRET = "sk-a-key-of-the-operators-1234"
INTERNAL = metadata(TOKEN, "r")


class Rig:
    """A replica that can store keys, as administrators and as services reach it."""

    def __init__(self, auth: Auth, client: Client, public: grpc.aio.Channel, inner: grpc.aio.Channel) -> None:
        self.auth = auth
        self.client = client
        self.keys = provider_key_service_pb2_grpc.ProviderKeyServiceStub(public)
        self.store = operator_store_service_pb2_grpc.OperatorStoreServiceStub(inner)

    def set(self, token: str, provider: str = "openai-text", **credentials: str) -> Any:
        given = [pb.Credential(name=name, value=value) for name, value in credentials.items()]
        request = pb.SetProviderKeyRequest(provider_id=provider, credentials=given)
        return self.keys.SetProviderKey(request, metadata=self.client.sent(token))

    async def listed(self, known: int = 0, *, values: bool = True) -> operator_pb.ListProviderKeysResponse:
        request = operator_pb.ListProviderKeysRequest(known_version=known, values=values)
        return await self.store.ListProviderKeys(request, metadata=INTERNAL)


@pytest.fixture
async def rig(start: Start, client: Client) -> AsyncIterator[Rig]:
    auth = await start(request_log_keys=KEY)
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{auth.public_port}") as public,
        grpc.aio.insecure_channel(auth.address) as inner,
    ):
        yield Rig(auth, client, public, inner)
    auth.query("delete from provider_keys returning 1")


async def test_a_key_is_stored_encrypted_and_told_to_services_alone(rig: Rig, root: str) -> None:
    """Its last four characters are all that is shown; the database holds no part of it, services have it, and it is in
    the audit log that it was set, and by whom. A new one takes its place; a deleted one is gone."""
    (shown,) = (await rig.set(root, api_key=SECRET)).keys
    assert (shown.variable, shown.last_four) == ("OPENAI_API_KEY", "1234")
    ((row,),) = rig.auth.query("select provider_keys::text || encode(sealed, 'escape') from provider_keys")
    assert "operators" not in row
    told = await rig.listed()
    assert [(key.variable, key.value, key.unreadable) for key in told.keys] == [("OPENAI_API_KEY", SECRET, False)]
    assert (await rig.listed(told.version)).unchanged
    assert [key.value for key in (await rig.listed(values=False)).keys] == [""]
    ((actor, details),) = rig.auth.query(
        "select actor, details from audit where act = 'provider_key.set' order by id desc limit 1"
    )
    assert (actor, details) == (shown.set_by, ["provider=openai-text", "variable=OPENAI_API_KEY"])
    await rig.set(root, api_key="sk-another-key-9876")
    again = await rig.listed(told.version)
    assert [(key.value, key.last_four) for key in again.keys] == [("sk-another-key-9876", "9876")]
    request = pb.DeleteProviderKeyRequest(provider_id="openai-image")  # its row names the same variable
    await rig.keys.DeleteProviderKey(request, metadata=rig.client.sent(root))
    assert list((await rig.listed(again.version)).keys) == []
    ((deleted,),) = rig.auth.query("select details from audit where act = 'provider_key.deleted'")
    assert deleted == ["provider=openai-image", "variable=OPENAI_API_KEY"]


async def test_only_administrators_set_keys(rig: Rig, root: str) -> None:
    """Everyone else is refused, and a limited key of an administrator's; nothing is stored."""
    _, _, secret = await rig.auth.account()
    assert await code_of(rig.set(secret, api_key=SECRET)) is grpc.StatusCode.PERMISSION_DENIED
    assert await code_of(rig.set("", api_key=SECRET)) is grpc.StatusCode.UNAUTHENTICATED
    authorize = operator_pb.AuthorizeOperatorRequest(credential=secret)
    assert await code_of(rig.store.AuthorizeOperator(authorize, metadata=INTERNAL)) is (
        grpc.StatusCode.PERMISSION_DENIED
    )
    ((account_id,),) = rig.auth.query("select account_id from keys order by created_at desc limit 1")
    rig.auth.query("update accounts set role = 'admin' where id = %s returning 1", account_id)
    _, limited = await rig.auth.key(account_id, manages=frozenset({ADMIN}), limits=KeyLimits(tokens_a_day=5))
    assert await code_of(rig.set(limited, api_key=SECRET)) is grpc.StatusCode.PERMISSION_DENIED
    reads = operator_pb.AuthorizeOperatorRequest(credential=limited)
    assert (await rig.store.AuthorizeOperator(reads, metadata=INTERNAL)).account_id == account_id
    changes = operator_pb.AuthorizeOperatorRequest(credential=limited, changes=True)
    assert await code_of(rig.store.AuthorizeOperator(changes, metadata=INTERNAL)) is grpc.StatusCode.PERMISSION_DENIED
    assert list((await rig.listed()).keys) == []


REFUSED: Sequence[tuple[str, dict[str, str], str]] = (
    ("nobody", {"api_key": SECRET}, "has no provider 'nobody'"),
    ("openai-text", {"key": SECRET}, "takes api_key"),
    ("openai-text", {}, "takes api_key"),
    ("local-text", {"api_key": SECRET}, "takes no credentials"),
    ("aws-bedrock-text", {"access_key": "a", "secret_key": "b", "session_token": "c"}, "takes access_key and"),
    ("openai-text", {"api_key": "two words"}, "without spaces"),
    ("openai-text", {"api_key": "a\nb"}, "without spaces"),
    ("openai-text", {"api_key": "x" * 8193}, "without spaces"),
)


async def test_what_is_no_form_of_the_providers_is_refused(rig: Rig, root: str) -> None:
    """A provider takes what its row names, and nothing else; a refusal shows no value."""
    for provider, credentials, says in REFUSED:
        with pytest.raises(grpc.aio.AioRpcError, match=says) as refused:
            await rig.set(root, provider, **credentials)
        assert SECRET not in str(refused.value)
    assert list((await rig.listed()).keys) == []


async def test_without_the_operators_key_nothing_is_stored(auth: Auth, client: Client, root: str) -> None:
    """The refusal says what to set; what another key encrypted is told as unreadable, and its value to nobody."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{auth.public_port}") as public:
        stub = provider_key_service_pb2_grpc.ProviderKeyServiceStub(public)
        given = [pb.Credential(name="api_key", value=SECRET)]
        request = pb.SetProviderKeyRequest(provider_id="openai-text", credentials=given)
        with pytest.raises(grpc.aio.AioRpcError, match="set MOA_REQUEST_LOG_KEYS") as refused:
            await stub.SetProviderKey(request, metadata=client.sent(root))
    assert refused.value.code() is grpc.StatusCode.ABORTED
    await ProviderKeys(auth.postgres, ContentKeys(KEY)).set("p", {"A_KEY": SECRET}, actor="acc")
    async with grpc.aio.insecure_channel(auth.address) as inner:
        store = operator_store_service_pb2_grpc.OperatorStoreServiceStub(inner)
        wanted = operator_pb.ListProviderKeysRequest(values=True)
        told = await store.ListProviderKeys(wanted, metadata=INTERNAL)
    assert [(key.variable, key.value, key.unreadable) for key in told.keys] == [("A_KEY", "", True)]
    auth.query("delete from provider_keys returning 1")


async def test_a_key_of_an_older_key_of_the_operators_is_encrypted_anew(auth: Auth) -> None:
    """So that the older can be taken away. What no key opens stays, for its key may come back; so do who and when."""
    lost = ContentKeys(f"lost:{'0' * 63}3")
    (before,) = await ProviderKeys(auth.postgres, ContentKeys(KEY)).set("p", {"A_KEY": SECRET}, actor="acc")
    await ProviderKeys(auth.postgres, lost).set("p", {"LOST_KEY": SECRET}, actor="acc")
    second = f"second:{'0' * 63}2"
    assert not await Resealing(auth.postgres, ContentKeys(f"{second},{KEY}")).tidy()
    kept = ProviderKeys(auth.postgres, ContentKeys(second))
    after, left = await kept.all()
    assert (after.sealed.key, left.sealed.key) == ("second", "lost")
    assert (kept.opened(after), kept.opened(left)) == (SECRET, None)
    assert ProviderKeys(auth.postgres, lost).opened(left) == SECRET
    assert (after.set_at, after.set_by, after.last_four) == (before.set_at, "acc", "1234")
    auth.query("delete from provider_keys returning 1")


def report(holder: str, at: datetime, **more: Any) -> operator_pb.ReportTrafficRequest:
    slot = operator_pb.TrafficSlot(at=int(at.timestamp()), route="best", provider="p", model="m", **more)
    return operator_pb.ReportTrafficRequest(holder=holder, slots=[slot])


async def test_what_routers_saw_is_merged(auth: Auth) -> None:
    """A report that comes twice counts once; routers' numbers add up, what is older than was asked for is left out, and
    what is over is forgotten."""
    traffic, now = Traffic(auth.postgres), datetime.now(UTC)
    said = [operator_pb.LearnedRates(provider="p", model="m", rates=UpstreamRates(requests_left=7))]
    said[0].at.FromDatetime(now)
    for _ in range(2):
        first = report("a", now, requests=3, errors=1, fallbacks=1, first_events=[0, 2, 1])
        first.breakers.add(provider="p", model="m").until.FromDatetime(now + timedelta(seconds=30))
        first.breakers.add(provider="p", model="over").until.FromDatetime(now - timedelta(seconds=1))
        await traffic.write(first)
    second = report("b", now - timedelta(seconds=700), requests=2, first_events=[1, 0, 1])
    second.breakers.add(provider="p", model="m").until.FromDatetime(now + timedelta(seconds=60))
    second.rates.extend(said)
    await traffic.write(report("b", now - timedelta(seconds=7200), requests=100))
    await traffic.write(report("b", now - timedelta(seconds=KEPT_S + 60), requests=1000))
    await traffic.write(second)
    found = await traffic.read(3600)
    (slot,) = found.slots
    assert (slot.route, slot.requests, slot.errors, slot.fallbacks) == ("best", 5, 1, 1)
    assert list(slot.first_events) == [1, 2, 2]
    (breaker,) = found.breakers
    assert (breaker.model, breaker.routers) == ("m", 2)
    assert breaker.until.ToDatetime(UTC) == now + timedelta(seconds=60)
    assert [rates.rates.requests_left for rates in found.rates] == [7]
    await traffic.tidy()
    assert auth.query("select sum(requests)::int from traffic") == [(105,)]
