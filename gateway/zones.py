"""Zones: an edge asks processes of its own zone, as far as they can take what comes to its zone's edges.

Envoy's zone-aware routing. Where the zone has a smaller share of the processes than of the edges, what is too much goes
to the others, so that all get alike; where nobody there is healthy, all of it does.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from gateway.address import Address
from gateway.settings import EdgeSettings

Json = dict[str, Any]

EDGES: Final = "edges"
"""The cluster of the edges themselves."""


def parted(addresses: Iterable[Address]) -> Iterable[tuple[str, list[Address]]]:
    """Yield each zone with its addresses; "" is that of those which tell none."""
    zone = attrgetter("zone")
    for name, there in groupby(sorted(addresses, key=zone), key=zone):
        yield name, list(there)


def locality(zone: str) -> Json:
    """Return where endpoints or a node are, for Envoy; nothing where that is not told."""
    return {"locality": {"zone": zone}} if zone else {}


def manager(settings: EdgeSettings) -> Json:
    """Return what the bootstrap says of zones; nothing where they make no difference."""
    return {"cluster_manager": {"local_cluster_name": EDGES}} if settings.knows_zones else {}


def balance(settings: EdgeSettings) -> Json:
    """Return what a cluster of processes says of zones; nothing where they make no difference."""
    if not settings.knows_zones:
        return {}
    return {
        "common_lb_config": {
            # By default six processes are the least of which any is kept apart.
            "zone_aware_lb_config": {"min_cluster_size": 2},
            # By default, with more than half of the processes gone, as a larger zone may be, those are asked too. Where
            # none is healthy all are, as without zones.
            "healthy_panic_threshold": {"value": 1},
            # A zone that is lost is many changes at once, and by default all but the first wait for a second.
            "update_merge_window": "0s",
        }
    }
