"""What the configured providers list, kept for minutes and asked for by one process for all routers."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec
from prometheus_client import Gauge

from moa.provider.v1 import listing_service_pb2, listing_service_pb2_grpc
from services.catalogue import Catalogue, Listed, ListedModel, Provider
from services.common import logs
from services.common.beats import until_beat_s
from services.common.errors import MoaError, UpstreamBroken
from services.providers.hosting.targets import Target, Targets
from services.providers.http.client import Outgoing
from services.providers.listing import KEPT_S, bounded

LEAST_S: Final = 10.0
"""A list that is no older is fresh, whoever asks for it anew: unknown names come from callers."""
_AGAIN_S: Final = 15.0
"""When a list that could not be had is asked for again; twice as long after each failure, `KEPT_S` at most."""
_WHOLE_S: Final = 30.0
_WAIT_S: Final = 2.0
"""How long whoever wants a list waits for one that is being asked for."""
_PAGES: Final = 50
_PAGE_BYTES: Final = 4 * 1024 * 1024
_LOOK_S: Final = 5.0
"""How often is looked whether a list is due: a third of the time after which servers of one's own are asked again."""
_UNAVAILABLE: Final = "unavailable"

_log = logs.get("lists")
LISTED = Gauge("moa_provider_models_listed", "Models that a provider listed last.", ["provider"])
STALE = Gauge(
    "moa_provider_list_stale", "1 while a provider's list could not be had anew when it was due; else 0.", ["provider"]
)


class _State:
    """A provider's list as far as it is known."""

    __slots__ = ("at", "due", "failures", "kept_s", "listed", "provider", "task", "why")

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        """Its row: with another one all begins anew."""
        self.listed: Listed | None = None
        self.at = float("-inf")
        """When it was last asked, whatever came of it."""
        self.due = float("-inf")
        self.failures = 0
        self.kept_s = KEPT_S
        """How long its list is good. Whoever is asked more often is watched: without an answer it is unavailable."""
        self.task: asyncio.Task[None] | None = None
        self.why = ""
        """Why it did not list when it was asked last; empty where it did."""


class ProviderLists:
    """The lists of the providers that wildcard rows stand for. What cannot be had leaves what was had before.

    Args:
        catalogue: Returns the catalogue as it is now.
        targets: The providers that are asked here.
        changed: Told the lists whenever they are others than before.
        clock: Monotonic seconds.
        whole_s: How long a list may take, all its pages together.
    """

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        targets: Collection[Targets[Any]],
        *,
        changed: Callable[[Mapping[str, Listed]], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        whole_s: float = _WHOLE_S,
    ) -> None:
        self._whole_s = whole_s
        self._changed = changed
        self._catalogue = catalogue
        self._targets = targets
        self._clock = clock
        self._states: dict[str, _State] = {}

    async def run(self) -> None:
        """Ask for lists as they are due, until cancelled."""
        try:
            while True:
                self._begin(KEPT_S)
                await asyncio.sleep(until_beat_s(_LOOK_S))
        finally:
            for state in self._states.values():
                if state.task is not None:
                    state.task.cancel()

    async def current(self, max_age_s: float) -> Mapping[str, Listed]:
        """Return the lists by provider, those that are older once they are here anew, within two seconds."""
        self._begin(max_age_s)
        running = [state.task for state in self._states.values() if state.task is not None]
        if running:
            await asyncio.wait(running, timeout=_WAIT_S)
        return self._known()

    def unavailable(self, provider_id: str) -> str:
        """Return why a provider did not list its models when it was asked last; empty where it did, or is not asked."""
        state = self._states.get(provider_id)
        return state.why if state is not None else ""

    def _known(self) -> Mapping[str, Listed]:
        return {name: state.listed for name, state in self._states.items() if state.listed is not None}

    def _begin(self, max_age_s: float) -> None:
        """Begin to ask whoever's list is due or older, and forget whoever is no longer asked."""
        catalogue, now = self._catalogue(), self._clock()
        wanted = {name: catalogue.providers[name] for name in catalogue.wildcard_providers}
        for name, state in list(self._states.items()):
            if wanted.get(name) != state.provider:
                if state.task is not None:
                    state.task.cancel()
                del self._states[name]
        for name, provider in wanted.items():
            targets = next((each for each in self._targets if each.lists(provider)), None)
            if targets is None:
                continue
            state = self._states.setdefault(name, _State(provider))
            old = max_age_s < KEPT_S and now - state.at >= max(LEAST_S, max_age_s)
            if state.task is None and (now >= state.due or old):
                state.at = now
                state.task = asyncio.create_task(self._ask(state, targets, catalogue), name=f"list {name}")

    async def _ask(self, state: _State, targets: Targets[Any], catalogue: Catalogue) -> None:
        name, before = state.provider.id, state.listed
        try:
            async with asyncio.timeout(self._whole_s):
                target = targets.of(catalogue, name)
                state.kept_s = target.adapter.list_s
                models = await listed(target)
        except Exception as error:
            # Whatever a provider does, its list is one of the things that one can do without.
            state.failures += 1
            state.due = self._clock() + min(state.kept_s, _AGAIN_S * 2 ** (state.failures - 1))
            STALE.labels(name).set(1)
            why = state.why = _why(error)
            if state.listed is not None and state.kept_s < KEPT_S:
                state.listed = _unavailable(state.listed, why)
            _log.warning("list.failed", provider=name, why=why, failures=state.failures)
        else:
            state.failures, state.why = 0, ""
            state.due = self._clock() + state.kept_s * random.uniform(0.9, 1)  # noqa: S311  # no secret
            state.listed = Listed(models=models, version=_version(models))
            STALE.labels(name).set(0)
            LISTED.labels(name).set(len(models))
            _log.info("list.read", provider=name, models=len(models))
        finally:
            state.task = None
        if state.listed is not None and (before is None or before.version != state.listed.version):
            self._changed(self._known())


async def listed(target: Target[Any]) -> dict[str, ListedModel]:
    """Return what a provider lists. Raises MoaError."""
    steps = target.adapter.list_models(target.provider)
    try:
        outgoing = next(steps)
        for _ in range(_PAGES):
            try:
                body = await _body(target, outgoing)
            except MoaError as error:
                outgoing = steps.throw(error)
            else:
                outgoing = steps.send(body)
    except StopIteration as end:
        return bounded(end.value)
    finally:
        steps.close()
    raise UpstreamBroken("the provider's list of models has no end")


async def _body(target: Target[Any], outgoing: Outgoing) -> bytes:
    reply = await target.ask(outgoing)
    try:
        return await reply.read_all(_PAGE_BYTES)
    finally:
        reply.close()


def _why(error: Exception) -> str:
    """Return why a list could not be had, in words that callers may read."""
    if isinstance(error, MoaError):
        return error.message
    return "it did not answer in time" if isinstance(error, TimeoutError) else "its list could not be read"


def _unavailable(listed: Listed, why: str) -> Listed:
    version = listed.version.partition("/")[0]
    return msgspec.structs.replace(listed, version=f"{version}/{_UNAVAILABLE}", unavailable=why)


def _version(models: Mapping[str, ListedModel]) -> str:
    rows = [
        (*msgspec.structs.astuple(model)[:-2], sorted(model.capabilities), sorted(model.lacks))
        for model in models.values()
    ]
    return hashlib.sha256(msgspec.json.encode(rows)).hexdigest()[:16]


class ListingServicer(listing_service_pb2_grpc.ListingServiceServicer):
    """Tells routers what providers list. For the `override` ignores see `services.router.dialects.native.servicer`."""

    def __init__(self, lists: ProviderLists) -> None:
        self._lists = lists

    async def ListProviderModels(
        self, request: listing_service_pb2.ListProviderModelsRequest, context: Any
    ) -> listing_service_pb2.ListProviderModelsResponse:
        """Return the lists; of those that the caller has, that they are the same."""
        response = listing_service_pb2.ListProviderModelsResponse()
        for name, kept in (await self._lists.current(request.max_age_s or KEPT_S)).items():
            entry = response.providers.add(provider=name, version=kept.version)
            if request.known.get(name) == kept.version:
                entry.unchanged = True
                continue
            entry.unavailable = kept.unavailable
            entry.models.extend(_message(model) for model in kept.models.values())
        return response


def _message(model: ListedModel) -> listing_service_pb2.ListedModel:
    return listing_service_pb2.ListedModel(
        id=model.id,
        upstream=model.upstream,
        makes=model.makes,
        base=model.base,
        created=model.created,
        context_tokens=model.context_tokens,
        max_output_tokens=model.max_output_tokens,
        capabilities=sorted(model.capabilities),
        lacks=sorted(model.lacks),
    )
