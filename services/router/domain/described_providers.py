"""What the operator is shown of providers: rows, how they are configured, and what routers saw of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from yarl import URL

from moa.account.v1 import provider_key_service_pb2
from moa.operator.v1 import operator_store_service_pb2
from moa.provider.v1 import provider_state_service_pb2
from moa.router.v1 import operator_service_pb2 as pb
from services.catalogue import Catalogue, Provider, storable_forms
from services.router.traffic import quantile_s

_VIRTUAL: Final = "virtual"
_OWN: Final = "inference"

States = Mapping[str, provider_state_service_pb2.ListProviderStatesResponse]


def described(
    catalogue: Catalogue,
    states: States,
    stored: operator_store_service_pb2.ListProviderKeysResponse,
    seen: operator_store_service_pb2.ReadTrafficResponse,
) -> list[pb.ProviderReport]:
    """Return a report of each provider, in the catalogue's order.

    Args:
        states: What the services that ask providers say, by their names.
        stored: What is stored of keys.
        seen: What routers saw.
    """
    known = {state.provider: state for answer in states.values() for state in answer.providers}
    counts = Counter(model.provider for model in (*catalogue.models, *catalogue.discovered))
    return [
        _report(catalogue, provider, known, states, stored, seen, counts[provider.id])
        for provider in catalogue.providers.values()
        if provider.adapter != _VIRTUAL
    ]


def _report(
    catalogue: Catalogue,
    provider: Provider,
    known: Mapping[str, provider_state_service_pb2.ProviderState],
    states: States,
    stored: operator_store_service_pb2.ListProviderKeysResponse,
    seen: operator_store_service_pb2.ReadTrafficResponse,
    models: int,
) -> pb.ProviderReport:
    report = pb.ProviderReport(
        provider_id=provider.id,
        adapter=provider.adapter,
        makes=provider.makes,
        host="" if provider.adapter == _OWN else URL(provider.base_url).host or "",
        models=models,
        traffic=traffic_of(slot for slot in seen.slots if slot.provider == provider.id),
    )
    if provider.adapter == _OWN:
        report.configured, report.key_source = True, provider_state_service_pb2.KEY_SOURCE_NONE_NEEDED
    elif (state := known.get(provider.id)) is not None:
        report.configured, report.why = state.configured, state.why
        report.key_source, report.unavailable = state.key_source, state.unavailable
    else:
        report.configured = provider.id in catalogue.configured
        report.why = "" if provider.service in states else f"the {provider.service} service does not answer"
    variables = set()
    for form in storable_forms(provider):
        variables |= set(form.values())
        parts = [pb.CredentialVariable(name=name, variable=variable) for name, variable in form.items()]
        report.forms.add(credentials=parts)
    for key in stored.keys:
        if key.variable in variables:
            report.stored_keys.append(
                provider_key_service_pb2.ProviderKey(
                    variable=key.variable, last_four=key.last_four, set_at=key.set_at, set_by=key.set_by
                )
            )
            report.stored_keys_unreadable = report.stored_keys_unreadable or key.unreadable
    for breaker in seen.breakers:
        if breaker.provider == provider.id:
            report.resting.add(model=breaker.model, until=breaker.until, routers=breaker.routers)
    for learned in seen.rates:
        if learned.provider == provider.id:
            report.limits.add(model=learned.model, at=learned.at, rates=learned.rates)
    return report


def traffic_of(slots: Iterable[operator_store_service_pb2.TrafficSlot]) -> pb.Traffic:
    """Return what was seen in slots together."""
    traffic = pb.Traffic()
    events: list[int] = []
    for slot in slots:
        traffic.requests += slot.requests
        traffic.errors += slot.errors
        traffic.fallbacks += slot.fallbacks
        events += [0] * (len(slot.first_events) - len(events))
        for place, count in enumerate(slot.first_events):
            events[place] += count
    if (half := quantile_s(events, 0.5)) is not None:
        traffic.first_token_p50_ms = round(1000 * half, 1)
    if (most := quantile_s(events, 0.95)) is not None:
        traffic.first_token_p95_ms = round(1000 * most, 1)
    return traffic
