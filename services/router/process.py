"""The router as a process: its files, whom it calls, and what it serves."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from services.catalogue import CatalogueError, Environment, Watched, inference_service, last_good_of, refresh_of
from services.common import logs, memory, metrics, settings
from services.common.cancelling import cancel_and_wait
from services.common.credential import credential_of
from services.common.egress import Egress
from services.common.rpc import server
from services.common.rpc.client import channel
from services.common.rpc.replicas import Replicas
from services.common.rpc.session.channel import SessionChannel
from services.common.rpc.target import addresses_by_name
from services.common.rpc.tls import Tls, tls_of
from services.common.store import links_of, store_of
from services.quota_client import Admission, StoredKeys
from services.router import metrics as own_metrics
from services.router.adapters.backends import Backends
from services.router.adapters.claims import Claims
from services.router.adapters.dependencies import AUTH, Dependencies
from services.router.adapters.listed import ListedModels
from services.router.adapters.model_states import ModelStates
from services.router.adapters.operator_store import OperatorStore
from services.router.adapters.policy_rows import PoliciesError, PolicyRows
from services.router.adapters.provider_states import ProviderStates
from services.router.adapters.request_log import RequestLog
from services.router.adapters.stored import ResponseStore
from services.router.assembly import Around, serving
from services.router.domain.policies import Policies
from services.router.domain.upstreams import Upstreams
from services.router.settings import RouterSettings


@dataclass(frozen=True, kw_only=True)
class _Channels:
    """To whom a router speaks."""

    auth: Any
    makers: Mapping[str, Any]
    """To the services that answer with providers, by name."""
    pools: Mapping[str, Any]
    """To the inference services, by name."""
    elsewhere: Mapping[str, Any]
    """Those of all that are in another process, without a session: they are asked whether they are there."""
    replicas: Mapping[str, Replicas]
    """The processes behind each inference service."""


def _channels(config: RouterSettings, text: Any, tls: Tls | None) -> _Channels:
    """Open channels to the services that the settings name; `text` is that to a text service of this process."""
    token = credential_of(config)
    auth = channel(config.auth_address, "auth", tls)
    addresses = {
        inference_service(pool): address
        for pool, address in {"": config.inference_address, **addresses_by_name(config.inference_pools)}.items()
    }
    pools = {name: channel(address, "inference", tls) for name, address in addresses.items()}
    elsewhere = {AUTH: auth, **pools}
    if text is None:
        text = elsewhere["text"] = channel(config.text_address, "text", tls)
        if config.sessions:
            text = SessionChannel(text, service_token=token)
    makers = {"text": text}
    if config.image_address:
        makers["image"] = elsewhere["image"] = channel(config.image_address, "image", tls)
    replicas = {
        name: Replicas(address, "inference", service_token=token, tls=tls, zone=config.zone)
        for name, address in addresses.items()
    }
    return _Channels(auth=auth, makers=makers, pools=pools, elsewhere=elsewhere, replicas=replicas)


class _Clients:
    """What a router does over its channels, and keeps of what it is told."""

    def __init__(self, config: RouterSettings, channels: _Channels, watched: Watched, environment: Environment) -> None:
        token, auth = credential_of(config), channels.auth
        self._channels = channels
        self._watched = watched
        self.environment = environment
        self.admission = Admission(
            auth, service_token=token, journal=config.state_dir, settle_every_s=config.settle_every_s
        )
        self.request_log = RequestLog(
            auth, service_token=token, holder=self.admission.holder, known=self.admission.known
        )
        self.claims = Claims(auth, service_token=token)
        self.responses = ResponseStore(auth, service_token=token)
        self.operator_store = OperatorStore(auth, service_token=token, holder=self.admission.holder)
        self._keys = StoredKeys(
            auth, service_token=token, environment=environment, values=False, changed=lambda _: watched.look()
        )
        self.backends = Backends(
            {**channels.makers, **channels.pools},
            service_token=token,
            catalogue=lambda: watched.now,
            replicas=channels.replicas,
        )
        self.listed = ListedModels(channels.makers, service_token=token, catalogue=lambda: watched.now)
        self.provider_states = ProviderStates(channels.makers, service_token=token)
        names = (name.removeprefix("inference").lstrip("-") for name in channels.pools)
        self.model_states = ModelStates(channels.pools.values(), service_token=token, names=names)
        self.dependencies = Dependencies(channels.elsewhere, service_token=token)
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start what goes on beside requests."""
        await self.admission.start()
        self.backends.watch()
        self._watching = [
            asyncio.create_task(self._watched.watch()),
            asyncio.create_task(self.listed.run(), name="lists"),
            asyncio.create_task(self._keys.run(), name="provider_keys"),
            asyncio.create_task(self.operator_store.run(), name="traffic"),
        ]

    async def aclose(self) -> None:
        """End it, book what was consumed, and report what was seen."""
        await self.claims.aclose()
        await self.request_log.aclose()
        await cancel_and_wait(*self._watching)
        await self.operator_store.report()
        await self.backends.aclose()
        await self._channels.makers["text"].close()
        await self.admission.stop()


def _around(config: RouterSettings, clients: _Clients, watched: Watched, policies: Policies | None) -> Around:
    admission = clients.admission
    return Around(
        catalogue=clients.listed.now,
        relisted=clients.listed.refreshed,
        refused=lambda: watched.refused,
        facts_refused=lambda: watched.facts_refused,
        admission=admission,
        claims=clients.claims,
        responses=clients.responses,
        backends=clients.backends,
        states=clients.model_states.now,
        engines=clients.model_states,
        environment=clients.environment,
        missing=clients.dependencies.missing,
        recording=lambda: admission.recording,
        look=watched.look,
        store=store_of(config),
        links=links_of(config),
        egress=Egress(config.egress_allow.split(",")),
        policies=policies,
        upstreams=Upstreams(admission.upstreams, lambda: watched.now),
        request_log=clients.request_log,
        operator_store=clients.operator_store,
        provider_states=clients.provider_states,
    )


@asynccontextmanager
async def serve(config: RouterSettings, *, text: Any = None) -> AsyncIterator[int]:
    """Serve until the block ends, then drain; yield the port. Raises CatalogueError or PoliciesError for a bad file.

    `text` is a channel to a text service in this process; None: one at the settings' address is asked.
    """
    rows = PolicyRows(config.policies) if config.policies else None
    environment = Environment(settings.providers_environment(config))
    last_good = last_good_of(config, "router", config.state_dir)
    watched = Watched(config.catalogue, environment, refresh=refresh_of(config), last_good=last_good)
    metrics.serve(config)
    tls = tls_of(config)
    clients = _Clients(config, _channels(config, text, tls), watched, environment)
    around = _around(config, clients, watched, rows.policies if rows else None)
    own_metrics.JOURNAL_FAILED.set_function(lambda: bool(clients.admission.recording.fault))
    await clients.start()
    try:
        async with serving(config, around, tls) as port:
            configured = sorted(watched.now.configured)
            logs.get("router").info("router.started", port=port, pid=os.getpid(), configured=configured)
            yield port
    finally:
        await clients.aclose()
        await around.egress.aclose()
        await around.store.aclose()
        if rows is not None:
            await rows.aclose()


async def check(config: RouterSettings) -> None:
    """Read the files that a start reads, and end. Raises CatalogueError or PoliciesError for a bad one."""
    Watched(config.catalogue, settings.providers_environment(config), refresh=refresh_of(config))
    if config.policies:
        await PolicyRows(config.policies).aclose()


async def main(config: RouterSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    memory.give_back_freed()
    with ending_with_faults():
        async with serve(config):
            await stop.wait()


@contextmanager
def ending_with_faults() -> Iterator[None]:
    """End the process with what is wrong with a file. Raises SystemExit."""
    try:
        yield
    except CatalogueError as error:
        raise SystemExit(f"bad setting MOA_CATALOGUE: {error}") from None
    except PoliciesError as error:
        raise SystemExit(f"bad setting MOA_POLICIES: {error}") from None


def run(main: Callable[[RouterSettings, asyncio.Event], Awaitable[None]]) -> None:
    """Run a router's process: `main`, or, with `--check`, what a start reads."""
    read = settings.read(RouterSettings)
    logs.configure("router", read.log_level)
    if sys.argv[1:] == ["--check"]:
        with ending_with_faults():
            asyncio.run(check(read))
        raise SystemExit
    server.run(lambda stop: main(read, stop), "router")
