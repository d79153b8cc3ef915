"""Try each configured provider with the cheapest real call: what `make providers` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypeVar

from services.catalogue import Catalogue, Provider
from services.common.errors import MoaError, ProviderNotConfigured, UpstreamRejected
from services.providers.hosting.targets import AnyAdapter, Targets
from services.providers.http.client import Outgoing
from services.providers.http.deadline import Deadline


class Checkable(AnyAdapter, Protocol):
    """An adapter that may know a cheap call."""

    @property
    def check_request(self) -> object:
        """Return the function that makes the call, or None."""
        ...

    @property
    def check_by_refusal(self) -> bool:
        """Return whether the call is wrong on purpose, so that nothing is made."""
        ...


class CheckResult(NamedTuple):
    """How a provider fared."""

    provider: str
    state: str
    """`ok`, `hidden`, `failed`, or `untried`."""
    why: str


C = TypeVar("C", bound=Checkable)


async def check_all(targets: Targets[C], catalogue: Catalogue, makes: str) -> list[CheckResult]:
    """Try the catalogue's providers that make `makes`, one after the other."""
    return [
        await checked(targets, catalogue, provider)
        for provider in catalogue.providers.values()
        if provider.makes == makes and provider.service in ("text", "image")
    ]


async def checked(targets: Targets[C], catalogue: Catalogue, provider: Provider) -> CheckResult:
    """Try a provider of the catalogue."""
    try:
        target = targets.make(catalogue, provider.id)
    except ProviderNotConfigured as error:
        if provider.id in catalogue.configured:
            return CheckResult(provider.id, "failed", error.message)
        return CheckResult(provider.id, "hidden", f"needs {provider.needs}")
    make = target.adapter.check_request
    if not callable(make):
        return CheckResult(provider.id, "untried", "its protocol has no call that costs nothing")
    try:
        outgoing = make(provider)
        assert isinstance(outgoing, Outgoing)
        with Deadline() as deadline:
            deadline.within(provider.timeouts.connect_s + 20, "answer")
            reply = await target.ask(outgoing)
            reply.close()
    except MoaError as error:
        if not (target.adapter.check_by_refusal and isinstance(error, UpstreamRejected)):
            return CheckResult(provider.id, "failed", error.message)
    finally:
        await target.pool.close()
    return CheckResult(provider.id, "ok", str(outgoing.url.origin()))


def table(findings: list[CheckResult]) -> str:
    """Return the findings for a person, a line each."""
    width = max((len(finding.provider) for finding in findings), default=0)
    marks: Mapping[str, str] = {"ok": "ok     ", "hidden": "hidden ", "failed": "FAILED ", "untried": "untried"}
    return "\n".join(f"{marks[f.state]}  {f.provider:<{width}}  {f.why}" for f in findings)
