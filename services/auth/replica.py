"""One replica of the auth service, put together: what `__main__` runs and tests start."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from moa.quota.v1 import quota_service_pb2, quota_service_pb2_grpc
from services.auth.account_servicer import SignUpMode
from services.auth.adapters.cached import CachedIdentities
from services.auth.adapters.identities import Identities
from services.auth.adapters.ledger import Ledger
from services.auth.adapters.paces import PacesKept
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.sessions import Sessions
from services.auth.adapters.tries import Tries, tidy
from services.auth.domain.paces import Paces
from services.auth.domain.quota import Quota
from services.auth.public import public_server
from services.auth.quota_servicer import QuotaServicer
from services.auth.sweeper import Sweeper
from services.common.rpc.server import Server


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a replica keeps time, in seconds. See `AuthSettings`."""

    lease_s: float = 20.0
    block_s: float = 60.0
    fresh_s: float = 1.5

    @property
    def grace_s(self) -> float:
        """How long after its end a block still takes settlements."""
        return self.lease_s / 2


@dataclass(frozen=True, kw_only=True)
class Replica:
    """A replica that serves."""

    postgres: Postgres
    quota: Quota
    port: int
    public_port: int


@asynccontextmanager
async def serving(
    url: str,
    *,
    pepper: bytes,
    service_token: str,
    listen: str,
    public_listen: str,
    signup: SignUpMode = "open",
    tuning: Tuning | None = None,
    drain_s: float = 0.0,
) -> AsyncIterator[Replica]:
    """Serve while the context is open; at its end, drain, and return what was borrowed and not leased."""
    tuned = tuning or Tuning()
    async with AsyncExitStack() as stack:
        postgres = Postgres(url)
        await postgres.open()
        stack.push_async_callback(postgres.close)
        identities = await stack.enter_async_context(CachedIdentities(Identities(postgres), url))
        ledger = Ledger(postgres, grace_s=tuned.grace_s, alive_s=max(4.0, tuned.lease_s))
        quota = Quota(identities, ledger, pepper=pepper, lease_s=tuned.lease_s, block_s=tuned.block_s)
        stack.push_async_callback(quota.pools.close)
        server = Server(service_token=service_token)
        kept = PacesKept(postgres)
        paces = Paces(identities, kept, ttl_s=tuned.lease_s)
        guesses = Tries(postgres, pepper=pepper, kind="key", tries=30, every_s=1)
        quota_service_pb2_grpc.add_QuotaServiceServicer_to_server(
            QuotaServicer(quota, Sessions(postgres), paces, guesses, fresh_s=tuned.fresh_s, pepper=pepper), server.grpc
        )
        server.offer(quota_service_pb2.DESCRIPTOR.services_by_name["QuotaService"].full_name)
        public = public_server(postgres, quota, pepper=pepper, signup=signup)

        tidies: dict[str, Callable[[], Awaitable[None]]] = {"paces": kept.tidy, "tries": partial(tidy, postgres)}
        sweeper = Sweeper(ledger, quota.pools, tidies, every_s=tuned.lease_s / 20, patience_s=tuned.grace_s)
        await stack.enter_async_context(sweeper)
        public_port = await public.start(public_listen)
        stack.push_async_callback(public.stop, drain_s)
        port = await server.start(listen)
        stack.push_async_callback(server.stop, drain_s)
        yield Replica(postgres=postgres, quota=quota, port=port, public_port=public_port)
