"""The providers that can be asked now: adapter, credentials and connections of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import msgspec
from prometheus_client import Counter

from moa.common.v1.rates_pb2 import UpstreamRates
from services.catalogue import Catalogue, Model, Provider, option_fault
from services.common import logs, scrub
from services.common.errors import (
    InvalidField,
    MoaError,
    ModelNotFound,
    PermissionDenied,
    ProviderNotConfigured,
    Unauthenticated,
    UpstreamAuth,
    UpstreamBroken,
    UpstreamRateLimited,
    UpstreamUnpaid,
)
from services.common.rpc import call as calls
from services.providers.credentials import REST_S, Authority, HeaderKeys, files_of
from services.providers.http.client import MAX_ERROR_BYTES, Outgoing, Pool, Reply, proxy_for
from services.providers.http.exchange import Upload
from services.providers.http.rates import rates_in
from services.providers.listing import Lister

_log = logs.get("providers")
ACCOUNT_REFUSED = Counter(
    "moa_upstream_account_refused_total",
    "Refusals of the operator's own account at a provider, by what for: credentials, or credit.",
    ["provider", "why"],
)


_REFUSED: Final = {
    "credentials": "the provider {} refused the gateway's credentials",
    "credit": "the gateway's account with the provider {} has no credit left",
}
"""What callers are told: which provider, and none of its words."""


class AnyAdapter(Protocol):
    """What every adapter has, whatever it makes."""

    @property
    def name(self) -> str:
        """What catalogue rows write as `adapter`."""
        ...

    @property
    def request_id_header(self) -> str:
        """The answer's header that holds the provider's id of the request."""
        ...

    @property
    def options(self) -> type[msgspec.Struct]:
        """What a row's `options` may say."""
        ...

    def authority(self, provider: Provider, environment: Mapping[str, str], /) -> Authority:
        """Return what signs requests. Raises ProviderNotConfigured."""
        ...

    @property
    def caller_authority(self) -> Callable[[str], Authority] | None:
        """What signs requests with a caller's own key; None where callers bring none."""
        ...

    def error_from(self, status: int, headers: Mapping[str, str], body: bytes, /) -> MoaError:
        """Return the error behind a refusal."""
        ...

    @property
    def list_models(self) -> Lister | None:
        """What begins to list a provider's models; None where its protocol lists none."""
        ...

    @property
    def list_s(self) -> float:
        """How long a list is good."""
        ...


A = TypeVar("A", bound=AnyAdapter)
LOOK_EVERY_S: Final = 1.0
"""How often the files of secrets are looked at."""


def _stamp_of(files: tuple[Path, ...]) -> tuple[int, ...]:
    """Tell when files were written; 0 for one that is gone."""
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


@dataclass(frozen=True)
class Target(Generic[A]):
    """A provider, ready to be asked."""

    provider: Provider
    adapter: A
    authority: Authority
    pool: Pool
    files: tuple[Path, ...] = ()
    """The files that hold its secrets."""
    stamp: tuple[int, ...] = ()
    """When those were written, as they were read."""
    of_caller: bool = False
    """Whether `authority` is the caller's own key."""

    def error_from(self, status: int, headers: Mapping[str, str], body: bytes) -> MoaError:
        """Return the error behind a refusal: of a caller's own key, it is the caller's."""
        return self.judged(self.adapter.error_from(status, headers, body), status)

    def judged(self, error: MoaError, status: int) -> MoaError:
        """Return an error of this provider as its caller is told it.

        A refusal of the operator's account names the provider, and is shown to the operator; one of a caller's own key
        is the caller's. `status` is the answer's, 200 where the error came inside one, 0 where there was none.
        """
        if not isinstance(error, UpstreamAuth):
            return error
        unpaid = isinstance(error, UpstreamUnpaid)
        if not self.of_caller:
            why = "credit" if unpaid else "credentials"
            ACCOUNT_REFUSED.labels(self.provider.id, why).inc()
            fields = calls.current().fields
            _log.warning(
                "provider.account_refused",
                provider=self.provider.id,
                why=why,
                status=status,
                words=error.words,
                model=fields.get("model", ""),
                account=fields.get("account", ""),
            )
            refusal = type(error)(_REFUSED[why].format(self.provider.id), retry_after_s=error.retry_after_s)
            refusal.words = error.words
            return refusal
        if unpaid:
            return PermissionDenied("the provider says that this API key's account has no credit left")
        if status == 403:
            return PermissionDenied("the provider does not let this API key do that")
        return Unauthenticated("the provider says that this API key is not valid")

    def rates(self, reply: Reply) -> UpstreamRates | None:
        """Return what the provider says beside an answer of its limits, of all that is asked of it with one key.

        Of several keys each has its own, by which they are chosen here; a caller's own says nothing of the operator's.
        """
        return None if self.of_caller or self._several is not None else rates_in(reply.headers)

    @property
    def _several(self) -> HeaderKeys | None:
        """What chooses among several keys; None where there is one."""
        authority = self.authority
        return authority if isinstance(authority, HeaderKeys) and authority.has_several else None

    async def ask(self, outgoing: Outgoing, upload: Upload | None = None, *, own_connection: bool = False) -> Reply:
        """Send a request and return its good answer; its caller closes it.

        When the provider refuses or limits one key and there is another, that one is tried at once. Raises the
        refusal's error, a limit's where there was one. `upload` is told whether the provider may be at work: not once
        it has refused. `own_connection` is as `Pool.send` has it.
        """
        upload = upload or Upload()
        limited: UpstreamRateLimited | None = None
        while True:
            try:
                headers = await self.authority.headers(outgoing)
            except UpstreamAuth as unsigned:
                raise self.judged(unsigned, 0) from None
            reply = await self.pool.send(outgoing, headers, upload, own_connection=own_connection)
            if reply.status == 200:
                if (several := self._several) is not None and (rates := rates_in(reply.headers)) is not None:
                    several.learn(headers, rates)
                return reply
            upload.begun = False
            try:
                body = await reply.read_all(MAX_ERROR_BYTES)
            except UpstreamBroken:
                body = b""
            finally:
                reply.close()
            error = self.error_from(reply.status, reply.headers, body)
            request_id = reply.headers.get(self.adapter.request_id_header, "")
            _log.info(
                "upstream.refused", provider=self.provider.id, status=reply.status, upstream_request_id=request_id
            )
            if not isinstance(error, UpstreamAuth | UpstreamRateLimited):
                raise error
            limited = error if isinstance(error, UpstreamRateLimited) else limited
            if not self.authority.rest(headers, error.retry_after_s or REST_S):
                # Of several keys' refusals the one that passes by itself.
                raise limited or error


class Targets(Generic[A]):
    """Follows the catalogue: makes a target when it is first asked for, drops those whose row changed.

    Args:
        adapters: The protocols that are spoken, by name.
        makes: What the providers make, as their rows say.
        environment: Where the providers' secrets are.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        adapters: Mapping[str, A],
        *,
        makes: str,
        environment: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adapters = adapters
        self._makes = makes
        self._environment = environment
        self._catalogue: Catalogue | None = None
        self._targets: dict[str, Target[A]] = {}
        self._keyless: dict[str, Target[A]] = {}
        """Providers that are asked with callers' keys only."""
        self._closing: set[asyncio.Task[None]] = set()
        self._with_files = False
        """Whether any target's secrets are in files."""
        self._clock = clock
        self._look_at = 0.0
        """When the files are looked at next."""

    def find(self, catalogue: Catalogue, name: str, provider: str, *, caller_key: str = "") -> tuple[Model, Target[A]]:
        """Return the model that is meant and the provider to ask; with `caller_key`, by that key for this once.

        Raises NotFound, ModelNotFound, ProviderNotConfigured, or PermissionDenied where callers bring no keys.
        """
        if not name:
            raise InvalidField("model is required", param="model")
        self._look(catalogue)
        model = catalogue.find(name, provider=provider)
        if caller_key:
            return model, self._for_caller(catalogue, model.provider, caller_key)
        return model, self._target(catalogue, model.provider)

    def of(self, catalogue: Catalogue, provider_id: str) -> Target[A]:
        """Return a provider, to be asked by the operator's credentials. Raises as `find`."""
        self._look(catalogue)
        return self._target(catalogue, provider_id)

    def _look(self, catalogue: Catalogue) -> None:
        """Drop what changed since: rows, and secrets in files."""
        if catalogue is not self._catalogue:
            self._follow(catalogue)
        elif self._with_files and self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK_EVERY_S
            self._drop_rewritten()

    def _target(self, catalogue: Catalogue, provider_id: str) -> Target[A]:
        target = self._targets.get(provider_id)
        return target if target is not None else self._keep(self.make(catalogue, provider_id))

    def _keep(self, target: Target[A]) -> Target[A]:
        self._targets[target.provider.id] = target
        self._with_files = self._with_files or bool(target.files)
        return target

    def fault_in(self, catalogue: Catalogue) -> str:
        """Return what is wrong with the options of a provider that is served here; empty when nothing is."""
        for provider in catalogue.providers.values():
            adapter = self._adapters.get(provider.adapter) if self._serves(provider) else None
            if adapter is not None and (fault := option_fault(provider.options, adapter.options)):
                return f"provider {provider.id}: {fault}"
        return ""

    def make(self, catalogue: Catalogue, provider_id: str) -> Target[A]:
        """Make the target of a provider. Raises ProviderNotConfigured with the fault."""
        provider, adapter = self._row(catalogue, provider_id)
        if provider_id not in catalogue.configured:
            raise ProviderNotConfigured(f"provider {provider_id!r} has no credentials here", param="provider")
        scrub.know(provider.base_url)
        files = files_of(provider, self._environment)
        stamp = _stamp_of(files)
        try:
            authority = adapter.authority(provider, self._environment)
        except msgspec.ValidationError as error:
            raise ProviderNotConfigured(f"provider {provider_id!r}: bad options: {error}") from None
        pool = Pool(provider.timeouts, proxy=proxy_for(provider.base_url))
        return Target(provider, adapter, authority, pool, files, stamp)

    def lists(self, provider: Provider) -> bool:
        """Return whether a provider is served here by a protocol that lists models."""
        adapter = self._adapters.get(provider.adapter) if self._serves(provider) else None
        return adapter is not None and adapter.list_models is not None

    def _serves(self, provider: Provider) -> bool:
        return provider.makes == self._makes and provider.service in ("text", "image")

    def _row(self, catalogue: Catalogue, provider_id: str) -> tuple[Provider, A]:
        provider = catalogue.provider(provider_id)
        if not self._serves(provider):
            raise ModelNotFound(f"provider {provider_id!r} does not make {self._makes} here", param="model")
        adapter = self._adapters.get(provider.adapter)
        if adapter is None:
            raise ProviderNotConfigured(f"provider {provider_id!r}: no adapter {provider.adapter!r}")
        return provider, adapter

    def _for_caller(self, catalogue: Catalogue, provider_id: str, key: str) -> Target[A]:
        """Return a target for one request by the caller's own key; only its connections outlive the request."""
        target = self._targets.get(provider_id) or self._keyless.get(provider_id)
        if target is None:
            provider, adapter = self._row(catalogue, provider_id)
            pool = Pool(provider.timeouts, proxy=proxy_for(provider.base_url))
            target = self._keyless[provider_id] = Target(provider, adapter, HeaderKeys("", [], {}), pool)
        if target.adapter.caller_authority is None:
            raise PermissionDenied(f"provider {provider_id!r} takes no keys of callers", param="model")
        scrub.of_call(key)
        return replace(target, authority=target.adapter.caller_authority(key), of_caller=True)

    def report(self, catalogue: Catalogue) -> None:
        """Log which providers can be asked, and why the others cannot."""
        for provider in catalogue.providers.values():
            if not self._serves(provider):
                continue
            try:
                result = self._targets.get(provider.id) or self.make(catalogue, provider.id)
            except ProviderNotConfigured as error:
                _log.info("provider.hidden", provider=provider.id, why=error.message)
            else:
                self._keep(result)
                _log.info("provider.ready", provider=provider.id, adapter=provider.adapter)

    def _follow(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._drop(self._targets, catalogue, only=catalogue.configured)
        self._drop(self._keyless, catalogue, only=catalogue.providers)

    def _drop(self, targets: dict[str, Target[A]], catalogue: Catalogue, *, only: Container[str]) -> None:
        for provider_id, target in list(targets.items()):
            if catalogue.providers.get(provider_id) != target.provider or provider_id not in only:
                self._retire(targets.pop(provider_id))

    def _drop_rewritten(self) -> None:
        """Drop the targets whose secrets' files were written since they were read: they are read when next needed."""
        for provider_id, target in list(self._targets.items()):
            if target.files and _stamp_of(target.files) != target.stamp:
                _log.info("provider.rekeyed", provider=provider_id)
                self._retire(self._targets.pop(provider_id))

    def rekeyed(self, variables: Container[str]) -> None:
        """Drop the targets whose secrets are in variables that have changed: they are read when next needed."""
        for provider_id, target in list(self._targets.items()):
            if any(variable in variables for variable in target.provider.credentials.values()):
                _log.info("provider.rekeyed", provider=provider_id)
                self._retire(self._targets.pop(provider_id))

    def serves(self, provider: Provider) -> bool:
        """Return whether a provider is asked here."""
        return self._serves(provider)

    def _retire(self, target: Target[A]) -> None:
        task = asyncio.create_task(target.pool.retire())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close every connection."""
        for targets in (self._targets, self._keyless):
            for target in targets.values():
                await target.pool.close()
            targets.clear()
