"""A model as the contracts' own message, for callers over gRPC and of the native API."""

from __future__ import annotations

from moa.router.v1 import catalog_service_pb2
from services.catalogue import Model
from services.router.domain.listing import Listing


async def message_of(listing: Listing, model: Model) -> catalog_service_pb2.Model:
    """Return what is known of a model; one of the gateway's own with how far it is."""
    readiness, known = await listing.readiness(model), listing.described(model)
    return catalog_service_pb2.Model(
        id=model.id,
        provider=model.provider,
        kind=listing.operation(model).kind,
        aliases=model.aliases,
        capabilities=known.capabilities or (),
        context_tokens=model.context_tokens,
        max_output_tokens=model.max_output_tokens,
        status=readiness.get("status", ""),
        loading_percent=readiness.get("percent"),
        status_detail=readiness.get("detail", ""),
        input_modalities=known.inputs or (),
        output_modalities=known.outputs or (),
        capabilities_known=known.capabilities is not None,
        prices_usd={kind: usd for kind, usd in (known.prices or {}).items() if isinstance(usd, float)},
        retires=known.retires.isoformat() if known.retires is not None else "",
        successor=known.successor or "",
    )
