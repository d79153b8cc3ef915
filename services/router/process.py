"""The router as a process: its files, whom it calls, and what it serves."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
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
from services.common.rpc.tls import tls_of
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
from services.router.domain.upstreams import Upstreams
from services.router.settings import RouterSettings


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
    token = credential_of(config)
    tls = tls_of(config)
    auth = channel(config.auth_address, "auth", tls)
    admission = Admission(auth, service_token=token, journal=config.state_dir, settle_every_s=config.settle_every_s)
    addresses = {
        inference_service(pool): address
        for pool, address in {"": config.inference_address, **addresses_by_name(config.inference_pools)}.items()
    }
    pools = {name: channel(address, "inference", tls) for name, address in addresses.items()}
    replicas = {
        name: Replicas(address, "inference", service_token=token, tls=tls) for name, address in addresses.items()
    }
    # What in this process answers is not asked whether it is there.
    needed = {AUTH: auth, **pools}
    if text is None:
        text = needed["text"] = channel(config.text_address, "text", tls)
        if config.sessions:
            text = SessionChannel(text, service_token=token)
    channels = {"text": text, **pools}
    if config.image_address:
        channels["image"] = needed["image"] = channel(config.image_address, "image", tls)
    log = RequestLog(auth, service_token=token, holder=admission.holder, known=admission.known)
    backends = Backends(channels, service_token=token, catalogue=lambda: watched.now, replicas=replicas)
    asked = {name: each for name, each in channels.items() if name not in pools}
    listed = ListedModels(asked, service_token=token, catalogue=lambda: watched.now)
    store = OperatorStore(auth, service_token=token, holder=admission.holder)
    keys = StoredKeys(
        auth, service_token=token, environment=environment, values=False, changed=lambda _: watched.look()
    )
    states = ModelStates(
        pools.values(), service_token=token, names=(name.removeprefix("inference").lstrip("-") for name in pools)
    )
    around = Around(
        catalogue=listed.now,
        relisted=listed.refreshed,
        refused=lambda: watched.refused,
        facts_refused=lambda: watched.facts_refused,
        admission=admission,
        claims=Claims(auth, service_token=token),
        responses=ResponseStore(auth, service_token=token),
        backends=backends,
        states=states.now,
        engines=states,
        environment=environment,
        missing=Dependencies(needed, service_token=token).missing,
        recording=lambda: admission.recording,
        look=watched.look,
        store=store_of(config),
        links=links_of(config),
        egress=Egress(config.egress_allow.split(",")),
        policies=rows.policies if rows else None,
        upstreams=Upstreams(admission.upstreams, lambda: watched.now),
        request_log=log,
        operator_store=store,
        provider_states=ProviderStates(asked, service_token=token),
    )
    own_metrics.JOURNAL_FAILED.set_function(lambda: bool(admission.recording.fault))
    await admission.start()
    backends.watch()
    watching = [
        asyncio.create_task(watched.watch()),
        asyncio.create_task(listed.run(), name="lists"),
        asyncio.create_task(keys.run(), name="provider_keys"),
        asyncio.create_task(store.run(), name="traffic"),
    ]
    try:
        async with serving(config, around, tls) as port:
            configured = sorted(watched.now.configured)
            logs.get("router").info("router.started", port=port, pid=os.getpid(), configured=configured)
            yield port
    finally:
        await around.claims.aclose()
        await log.aclose()
        await cancel_and_wait(*watching)
        await store.report()
        await backends.aclose()
        await text.close()
        await admission.stop()
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
