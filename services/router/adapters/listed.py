"""What providers list, as the services that ask them tell it, joined with the catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import grpc

from moa.provider.v1 import listing_service_pb2, listing_service_pb2_grpc
from services.catalogue import Catalogue, Listed, ListedModel
from services.common import logs
from services.common.credential import Credential
from services.common.rpc.client import metadata

_EVERY_S: Final = 5.0
_SOON_S: Final = 0.5
_SOON_TRIES: Final = 20
"""How often lists that are not known yet are asked for soon: the services may start behind this process."""
WAIT_S: Final = 4.0
_FRESH_S: Final = 10
"""How old a list may be when a name is not in it; the services ask no provider more often."""

_log = logs.get("listed")


class ListedModels:
    """The catalogue with what providers list. Whatever fails, what was known before stays, and the file's rows do.

    Args:
        channels: To the services that ask providers, by name.
        service_token: The credential between services.
        catalogue: Returns the file's snapshot as it is now.
    """

    def __init__(
        self, channels: Mapping[str, grpc.aio.Channel], *, service_token: Credential, catalogue: Callable[[], Catalogue]
    ) -> None:
        self._stubs = {name: listing_service_pb2_grpc.ListingServiceStub(channel) for name, channel in channels.items()}
        self._token = service_token
        self._catalogue = catalogue
        self._listed: dict[str, Listed] = {}
        self._of: Catalogue | None = None
        self._joined: Catalogue | None = None
        self._made: Catalogue | None = None
        """The snapshot whose discovered models are made."""
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")

    def now(self) -> Catalogue:
        """Return the catalogue as it is now, with what is listed."""
        catalogue = self._catalogue()
        if self._joined is None or self._of is not catalogue:
            wanted = catalogue.wildcard_providers
            listed = {name: each for name, each in self._listed.items() if name in wanted}
            self._of, self._joined = catalogue, catalogue.with_listed(listed) if listed else catalogue
        return self._joined

    async def run(self) -> None:
        """Ask the services for lists every few seconds, sooner at the start, until cancelled."""
        tries = 0
        while True:
            await self.ask(0)
            complete = self._listed.keys() >= self._catalogue().wildcard_providers
            tries = 0 if complete else tries + 1
            await asyncio.sleep(_SOON_S if 0 < tries < _SOON_TRIES else _EVERY_S)

    async def refreshed(self) -> bool:
        """Have lists asked for anew that are not fresh; return whether any did change. For a name that is in none.

        Together with others' names: callers make them up.
        """
        before = self.now()
        if self._asking is None:
            if asyncio.get_running_loop().time() - self._asked_at < _FRESH_S:
                return False
            self._asked_at = asyncio.get_running_loop().time()
            self._asking = asyncio.create_task(self.ask(_FRESH_S), name="listed")
            self._asking.add_done_callback(self._asked)
        await asyncio.wait([self._asking])
        return self.now() is not before

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None

    async def ask(self, max_age_s: int) -> None:
        """Ask the services for lists that changed; for newer ones where they are older."""
        catalogue = self._catalogue()
        wanted = {catalogue.providers[name].service for name in catalogue.wildcard_providers}
        await asyncio.gather(*(self._ask_service(name, max_age_s) for name in self._stubs if name in wanted))
        joined = self.now()
        if joined is not self._made:
            for _ in joined.discovering():
                await asyncio.sleep(0)
            self._made = joined

    async def _ask_service(self, service: str, max_age_s: int) -> None:
        known = {name: each.version for name, each in self._listed.items()}
        request = listing_service_pb2.ListProviderModelsRequest(known=known, max_age_s=max_age_s)
        try:
            response = await self._stubs[service].ListProviderModels(
                request, metadata=metadata(self._token, "listed"), timeout=WAIT_S
            )
        except grpc.aio.AioRpcError as error:
            _log.info("listed.not_told", service=service, code=error.code().name)
            return
        changes = {each.provider: _listed(each) for each in response.providers if not each.unchanged}
        if changes:
            wanted = self._catalogue().wildcard_providers
            self._listed = {name: each for name, each in (self._listed | changes).items() if name in wanted}
            self._joined = None


def _listed(message: listing_service_pb2.ProviderModels) -> Listed:
    models = {
        each.id: ListedModel(
            id=each.id,
            upstream=each.upstream,
            makes=each.makes,
            base=each.base,
            created=each.created,
            context_tokens=each.context_tokens,
            max_output_tokens=each.max_output_tokens,
            capabilities=frozenset(each.capabilities),
            lacks=frozenset(each.lacks),
        )
        for each in message.models
    }
    return Listed(models=models, version=message.version, unavailable=message.unavailable)
