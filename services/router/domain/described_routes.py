"""What the operator is shown of virtual models and of the catalogue's rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from moa.operator.v1 import operator_store_service_pb2
from moa.router.v1 import operator_service_pb2 as pb
from services.catalogue import Catalogue, Model
from services.router.domain.described_providers import traffic_of


def described_routes(
    catalogue: Catalogue, seen: operator_store_service_pb2.ReadTrafficResponse
) -> list[pb.RouteReport]:
    """Return a report of each virtual model, in the catalogue's order, by what routers saw."""
    return [_report(catalogue, model, seen) for model in catalogue.models if catalogue.route(model) is not None]


def _report(catalogue: Catalogue, model: Model, seen: operator_store_service_pb2.ReadTrafficResponse) -> pb.RouteReport:
    found = catalogue.route(model)
    assert found is not None
    route, targets = found
    slots = [slot for slot in seen.slots if slot.route == route.id]
    report = pb.RouteReport(
        model=route.id, makes=catalogue.makes(model), strategy=route.strategy, traffic=traffic_of(slots)
    )
    listed: set[tuple[str, str]] = set()
    for target, row in targets:
        key = row.provider, row.label
        listed.add(key)
        entry = report.targets.add(
            model=row.full_id,
            weight=target.weight,
            canary=target.canary,
            shadow=target.shadow,
            conditional=target.when != type(target.when)(),
            traffic=traffic_of(_of(slots, *key)),
        )
        for breaker in seen.breakers:
            if (breaker.provider, breaker.model) == key:
                entry.resting_until.CopyFrom(breaker.until)
    for provider, name in sorted({(slot.provider, slot.model) for slot in slots} - listed):
        report.targets.add(model=f"{provider}/{name}", traffic=traffic_of(_of(slots, provider, name)))
    return report


def _of(
    slots: Iterable[operator_store_service_pb2.TrafficSlot], provider: str, model: str
) -> Iterator[operator_store_service_pb2.TrafficSlot]:
    return (slot for slot in slots if (slot.provider, slot.model) == (provider, model))


def described_rows(catalogue: Catalogue) -> Iterator[pb.CatalogueRow]:
    """Yield the models of the catalogue: rows in the file's order, then what is discovered."""
    for model in catalogue.models:
        kind = pb.ROW_KIND_MODEL if catalogue.route(model) is None else pb.ROW_KIND_VIRTUAL
        yield _row(catalogue, model, kind)
    for model in catalogue.wildcards:
        yield _row(catalogue, model, pb.ROW_KIND_WILDCARD)
    for model in catalogue.discovered:
        yield _row(catalogue, model, pb.ROW_KIND_DISCOVERED)


def _row(catalogue: Catalogue, model: Model, kind: pb.RowKind.ValueType) -> pb.CatalogueRow:
    return pb.CatalogueRow(
        model=model.full_id,
        kind=kind,
        makes=catalogue.makes(model),
        configured=model.provider in catalogue.configured,
        aliases=model.aliases,
        context_tokens=model.context_tokens,
        priced=bool(model.price_list),
        retires=str(model.retirement.date) if model.retirement is not None else "",
    )
