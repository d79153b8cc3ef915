"""What a new text of the catalogue's file would change, and putting it there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from moa.router.v1 import operator_service_pb2 as pb
from services.catalogue import Catalogue, CatalogueError, Difference, differences, tried
from services.common.errors import InvalidField
from services.router.adapters.catalogue_file import CatalogueFile

MOST_ROWS: Final = 5000
_MOST_CHANGES: Final = 1000
_MOST_WARNINGS: Final = 20
_PLACES: Final = ("load",)
"""Fields that name files relative to the catalogue's own."""
_KINDS: Final = {
    "added": pb.CHANGE_KIND_ADDED,
    "removed": pb.CHANGE_KIND_REMOVED,
    "changed": pb.CHANGE_KIND_CHANGED,
}


class _Change(NamedTuple):
    differences: list[Difference]
    warnings: list[str]


class CatalogueEditing:
    """Tries new texts as each service would read them.

    Args:
        file: The catalogue's file.
        now: Returns the catalogue as it is now.
        environment: What decides which providers are configured.
        states: The services that ask providers; `adapters.provider_states.ProviderStates` is one.
        changed: Called when the file was changed.
    """

    def __init__(
        self,
        file: CatalogueFile,
        *,
        now: Callable[[], Catalogue],
        environment: Mapping[str, str],
        states: Any,
        changed: Callable[[], None],
    ) -> None:
        self.file = file
        self._now = now
        self._environment = environment
        self._states = states
        self._changed = changed
        self._trying = asyncio.Lock()
        """A text at a time: each takes other processes' work."""

    async def preview(self, text: str) -> pb.PreviewCatalogueResponse:
        """Return what a text would change."""
        base = await asyncio.to_thread(self.file.read)
        response = pb.PreviewCatalogueResponse(etag=base.etag)
        async with self._trying:
            try:
                after = await tried(text, self._environment, _no_fault)
            except CatalogueError as error:
                response.faults.add(service="router", fault=str(error))
                return response
            for service, fault in (await self._states.faults(text)).items():
                if fault is None:
                    response.warnings.append(f"the {service} service does not answer: whether it takes this is unknown")
                elif fault:
                    response.faults.add(service=service, fault=fault)
            change = await self._change(base.text, after)
        response.change_count = len(change.differences)
        for each in change.differences[:_MOST_CHANGES]:
            response.changes.add(kind=_KINDS[each.kind], what=each.what, name=each.name, fields=each.fields)
        response.warnings.extend(change.warnings)
        return response

    async def check(self, text: str) -> None:
        """Raise InvalidField for a text that a service would refuse."""
        async with self._trying:
            try:
                await tried(text, self._environment, _no_fault)
            except CatalogueError as error:
                raise InvalidField(f"the router would refuse it: {error}", param="text") from None
            for service, fault in (await self._states.faults(text)).items():
                if fault:
                    raise InvalidField(f"the {service} service would refuse it: {fault}", param="text")

    async def check_current(self, etag: str) -> None:
        """Raise Conflict where the file is not what `etag` stands for any more."""
        await asyncio.to_thread(self.file.check_current, etag)

    async def apply(self, text: str, etag: str) -> str:
        """Put a text in the file's place; return what stands for it. Raises Conflict, StorageFailed."""
        result = await asyncio.to_thread(self.file.replace, text, etag)
        self._changed()
        return result

    async def _change(self, base: str, after: Catalogue) -> _Change:
        warnings: list[str] = []
        but: tuple[str, ...] = ()
        try:
            before = await tried(base, self._environment, _no_fault)
        except CatalogueError as error:
            before, but = self._now(), _PLACES
            warnings.append(f"the file as it is now has a fault, so this is held against what is in use: {error}")
        found = sorted(differences(before, after, but=but))
        hidden = (
            f"provider {each.name} is not configured: its models are hidden until it has credentials"
            for each in found
            if each[:2] == ("added", "provider") and each.name not in after.configured
        )
        gone = (
            f"model {each.name} goes: requests for it are refused, unless another row covers it"
            for each in found
            if each.kind == "removed" and each.what != "provider"
        )
        warnings.extend(islice((*gone, *hidden), _MOST_WARNINGS))
        return _Change(found, warnings)


def _no_fault(catalogue: Catalogue) -> str:
    return ""
