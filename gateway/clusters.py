"""Envoy's clusters: whom it passes requests on to, and how it finds out who of them is there."""

from __future__ import annotations

import socket as sockets
from collections.abc import Iterable
from typing import Final

from gateway import certificates, limits, routes, zones
from gateway.address import Address
from gateway.routes import TYPE, Json
from gateway.settings import EdgeSettings

_UNACKNOWLEDGED_MS: Final = 4_000

ADMIN: Final = "admin"
ADMIN_SOCKET: Final = "admin-{}.sock"
"""Of each of Envoy's processes, counted from 1. Relative to their working folder: a socket's whole path must fit in
about 100 bytes."""


def of_services(settings: EdgeSettings) -> Iterable[Json]:
    """Yield the clusters of the gateway's services, of what they tell metrics on, and of Envoy's own processes."""
    yield _service(settings, routes.ROUTER, settings.router_addresses, "router")
    if settings.large_router_addresses:
        yield _large_cluster(settings)
    yield _service(settings, routes.TASKS, settings.tasks_addresses, "tasks")
    yield _service(settings, routes.ACCOUNTS, settings.account_addresses, "auth")
    for name, address in settings.metrics_targets.items():
        yield cluster(f"metrics_{name}", [address])
    for number in range(1, settings.edge_processes + 1):
        name, admin = f"{ADMIN}_{number}", {"pipe": {"path": ADMIN_SOCKET.format(number)}}
        yield {
            "name": name,
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": admin}}]}],
            },
        }


def of_edges(settings: EdgeSettings) -> Iterable[Json]:
    """Yield the cluster of the edges, by which Envoy weighs zones; none where zones make no difference."""
    if settings.knows_zones:
        yield cluster(zones.EDGES, settings.edge_addresses)


def _service(
    settings: EdgeSettings,
    name: str,
    addresses: Iterable[Address],
    process: str,
    *,
    looked_s: float = 0,
    again_s: float = 0.5,
    first_s: float = 0.25,
) -> Json:
    """Return the cluster of a service's processes, which speak gRPC and whose certificates name `process`.

    Healthy ones are asked every `looked_s` (0: as the settings say), others every `again_s`, and every `first_s` before
    the first request. One that cannot be reached is found out by the next request.
    """
    looked_s = looked_s or settings.edge_look_s
    return {
        **cluster(name, addresses),
        **certificates.transport(settings, process),
        "per_connection_buffer_limit_bytes": limits.BUFFER_BYTES,
        "connect_timeout": "1s",
        **_unacknowledged(),
        "lb_policy": "LEAST_REQUEST",
        **zones.balance(settings),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": limits.SERVICES},
            }
        },
        "health_checks": [
            {
                "timeout": "1s",
                "interval": f"{looked_s:g}s",
                "no_traffic_interval": f"{first_s:g}s",
                "no_traffic_healthy_interval": f"{looked_s:g}s",
                "unhealthy_interval": f"{again_s:g}s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                # Whether requests should be sent there, which is less than that it answers.
                "grpc_health_check": {"service_name": "ready"},
            }
        ],
        # A worker that cannot be reached is left out at once; what it answers never counts against it.
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "base_ejection_time": "2s",
            # It grows with each ejection, and a worker is back before.
            "max_ejection_time": "4s",
            "max_ejection_percent": 50,
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 1000,
                    "max_pending_requests": 2000,
                    "max_requests": 10_000,
                    # By default three at once: whoever waits for a process to come back would keep all others from it.
                    "max_retries": 2000,
                }
            ]
        },
    }


def _unacknowledged() -> Json:
    """Return how long what is sent may stay without a word that it came: a host that is cut off answers nothing at all.

    Without it requests would hang until the link is back. It costs nothing while nothing is sent, as pings would.
    """
    option = getattr(sockets, "TCP_USER_TIMEOUT", None)
    if option is None:
        return {}  # Linux alone has it
    bound = {"level": sockets.IPPROTO_TCP, "name": option, "int_value": _UNACKNOWLEDGED_MS, "state": "STATE_PREBIND"}
    return {"upstream_bind_config": {"socket_options": [bound]}}


def _large_cluster(settings: EdgeSettings) -> Json:
    """Return the cluster of the routers that take large requests; where none of them can be reached, the others do.

    They may not be started before there is such a request.
    """
    large = settings.large_router_addresses
    result = _service(settings, routes.LARGE, large, "router", looked_s=60, again_s=2, first_s=2)
    # Those are asked in their own cluster whether they are healthy.
    others = [
        {"endpoint": {"address": socket(address), "health_check_config": {"disable_active_health_check": True}}}
        for address in settings.router_addresses
    ]
    result["load_assignment"]["endpoints"].append({"priority": 1, "lb_endpoints": others})
    names = any(not address.is_ip for address in settings.router_addresses)
    return {**result, "type": "STRICT_DNS"} if names else result


def cluster(name: str, addresses: Iterable[Address]) -> Json:
    """Return a cluster of addresses, looked up where they are names; those of a zone are together."""
    found = tuple(addresses)
    endpoints = [
        {**zones.locality(zone), "lb_endpoints": [{"endpoint": {"address": socket(each)}} for each in there]}
        for zone, there in zones.parted(found)
    ]
    return {
        "name": name,
        "type": "STATIC" if all(address.is_ip for address in found) else "STRICT_DNS",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def socket(address: Address) -> Json:
    """Return an address as Envoy writes it."""
    return {"socket_address": {"address": address.host, "port_value": address.port}}
