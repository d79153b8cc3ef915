"""Run a service that answers with providers: what the text and the image service have in common."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Final, Generic, TypeVar

import uvloop

from moa.provider.v1 import (
    listing_service_pb2,
    listing_service_pb2_grpc,
    provider_state_service_pb2,
    provider_state_service_pb2_grpc,
)
from services.catalogue import Catalogue, CatalogueError, Environment, Watched, last_good_of, load, refresh_of
from services.common import logs, metrics, settings
from services.common.credential import credential_of
from services.common.helper_process import HelperProcess
from services.common.operations import CONTRACTS, Contract
from services.common.rpc.client import channel
from services.common.rpc.server import AnyServer, Server, run
from services.common.rpc.tls import tls_of
from services.providers.hosting import checking
from services.providers.hosting.lists import ListingServicer, ProviderLists
from services.providers.hosting.settings import ProvidingSettings
from services.providers.hosting.states import ProviderStates
from services.providers.hosting.targets import AnyAdapter, Targets
from services.quota_client import AbandonedCalls, StoredKeys

A = TypeVar("A", bound=AnyAdapter)

_CATALOGUE: Final = "gateway/catalogue.yaml"


@dataclass(frozen=True, kw_only=True)
class Served:
    """A service that runs."""

    port: int
    """Where it listens."""
    catalogue: Watched
    targets: Mapping[str, Targets[Any]]
    """The providers that can be asked, by what they make."""


@dataclass(frozen=True, kw_only=True)
class Offer(Generic[A]):
    """An operation that a service answers with providers."""

    makes: str
    """What its providers make, as in the catalogue."""
    adapters: Mapping[str, A]
    """The protocols by which they are asked, by the name that their rows write as `adapter`."""
    add: Callable[[Watched, Targets[A], AbandonedCalls, HelperProcess, AnyServer], None]
    """Adds the servicer to the server."""

    @property
    def contract(self) -> Contract:
        """What asks for the operation."""
        return CONTRACTS[self.makes]

    def targets(self, environment: Mapping[str, str]) -> Targets[A]:
        """Return the providers that can be asked, whose secrets are in an environment."""
        return Targets(self.adapters, makes=self.makes, environment=environment)


def offers_of(package: ModuleType) -> Sequence[Offer[Any]]:
    """Return what modules of a service's package declare as their `OFFER`; nothing lists them."""
    names = [module.name for module in iter_modules(package.__path__) if not module.name.startswith("_")]
    modules = [import_module(f"{package.__name__}.{name}") for name in names]
    return tuple(module.OFFER for module in modules if hasattr(module, "OFFER"))


def _check_of(targets: Collection[Targets[Any]]) -> Callable[[Catalogue], str]:
    return lambda catalogue: next(filter(None, (each.fault_in(catalogue) for each in targets)), "")


def _add_own(server: AnyServer, lists: ProviderLists, states: ProviderStates) -> None:
    """Add what is told of providers: which models they list, and how they are configured."""
    listing_service_pb2_grpc.add_ListingServiceServicer_to_server(ListingServicer(lists), server.grpc)
    server.offer(listing_service_pb2.DESCRIPTOR.services_by_name["ListingService"].full_name)
    provider_state_service_pb2_grpc.add_ProviderStateServiceServicer_to_server(states, server.grpc)
    server.offer(provider_state_service_pb2.DESCRIPTOR.services_by_name["ProviderStateService"].full_name)


@dataclass(frozen=True, kw_only=True)
class Providing:
    """What a service that answers with providers is made of."""

    name: str
    """As in logs."""
    settings: type[ProvidingSettings]
    offers: Sequence[Offer[Any]]

    def main(self) -> None:
        """Serve; with the argument `check`, try the providers instead."""
        if sys.argv[1:] == ["check"]:
            logs.configure(self.name, "error")
            raise SystemExit(0 if uvloop.run(self._check(Path(os.environ.get("MOA_CATALOGUE", _CATALOGUE)))) else 1)
        config = settings.read(self.settings)
        logs.configure(self.name, config.log_level)
        run(lambda stop: self._run(config, stop), self.name)

    async def _run(self, config: ProvidingSettings, stop: asyncio.Event) -> None:
        try:
            async with self.serve(config):
                await stop.wait()
        except CatalogueError as error:
            raise SystemExit(f"bad setting MOA_CATALOGUE: {error}") from None

    @asynccontextmanager
    async def serve(
        self,
        config: ProvidingSettings,
        environment: Mapping[str, str] = os.environ,
        *,
        server: AnyServer | None = None,
    ) -> AsyncIterator[Served]:
        """Serve until the block ends, then drain; providers take their credentials from `environment`.

        `server` serves it, one of this process alone; None: one at the settings' address. Raises CatalogueError when
        the catalogue is bad.
        """
        environment = Environment(environment)
        targets = {offer.makes: offer.targets(environment) for offer in self.offers}
        check, last_good = _check_of(targets.values()), last_good_of(config, self.name)
        catalogue = Watched(config.catalogue, environment, check, refresh_of(config), last_good)
        for each in targets.values():
            each.report(catalogue.now)
        metrics.serve(config)
        token = credential_of(config)
        tls = tls_of(config)
        auth = channel(config.auth_address, "auth", tls)
        abandoned = AbandonedCalls(auth, service_token=token, after_s=config.left_call_s)
        await abandoned.start()
        server = server or Server(service_token=token, connection_age_s=config.connection_age_s, tls=tls)
        helper = HelperProcess()
        for offer in self.offers:
            offer.add(catalogue, targets[offer.makes], abandoned, helper, server)
            server.offer(offer.contract.service)
        lists = ProviderLists(lambda: catalogue.now, targets.values(), changed=catalogue.relist)

        def rekeyed(variables: Collection[str]) -> None:
            for each in targets.values():
                each.rekeyed(variables)
            catalogue.look()

        keys = StoredKeys(auth, service_token=token, environment=environment, values=True, changed=rekeyed)
        states = ProviderStates(catalogue, targets.values(), lists, environment, keys.ask, check)
        _add_own(server, lists, states)
        port = await server.start(config.listen)
        logs.get(self.name).info("process.started", port=port)
        watching = [
            asyncio.create_task(catalogue.watch()),
            asyncio.create_task(lists.run(), name="lists"),
            asyncio.create_task(keys.run(), name="provider_keys"),
        ]
        try:
            yield Served(port=port, catalogue=catalogue, targets=targets)
        finally:
            for task in watching:
                task.cancel()
            abandoned.ending()
            await server.stop(config.drain_s)
            await abandoned.stop()  # it counts large prompts in the helper process
            await helper.aclose()
            await auth.close()
            for each in targets.values():
                await each.close()

    async def _check(self, path: Path) -> bool:
        """Print how each provider fares; tell whether none failed."""
        try:
            catalogue = load(path, check=_check_of([offer.targets(os.environ) for offer in self.offers]))
        except CatalogueError as error:
            raise SystemExit(f"bad setting MOA_CATALOGUE: {error}") from None
        findings = []
        for offer in self.offers:
            findings += await checking.check_all(offer.targets(os.environ), catalogue, offer.makes)
        print(checking.table(findings))
        return all(finding.state != "failed" for finding in findings)
