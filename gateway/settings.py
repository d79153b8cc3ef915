"""The edge's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import ConfigDict, Field, model_validator

from gateway.address import Address, addresses, named
from services.common.settings import Settings

CHAIN: Final = "tls.crt"
KEY: Final = "tls.key"
AUTHORITIES: Final = "ca.crt"
"""What a folder with a certificate for services holds, as Kubernetes and cert-manager name it."""


class EdgeSettings(Settings):
    """Settings of the edge. Each comes from the environment variable `MOA_<NAME>`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    listen: Address = Address("127.0.0.1", 8080)
    """Where callers come in, `host:port`."""
    internal_listen: Address = Address("127.0.0.1", 8200)
    """Where `/metrics/<process>` and `/ready` are answered; never to be published."""
    router_addresses: tuple[Address, ...] = (Address("127.0.0.1", 8101),)
    """The router's workers, `host:port`, parted by commas; each takes its share of the requests. `host:port@zone` tells
    where one runs, or all that are found by a name: an edge that knows its zone asks those of its own."""
    large_router_addresses: tuple[Address, ...] = ()
    """Routers that take large requests in their place, likewise; none: those take them too."""
    tasks_addresses: tuple[Address, ...] = (Address("127.0.0.1", 8106),)
    """The task service's processes, likewise."""
    account_addresses: tuple[Address, ...] = (Address("127.0.0.1", 8105),)
    """The auth service's public ports, likewise."""
    zone: str = ""
    """The zone in which the edge runs. Empty: zones make no difference."""
    edge_addresses: tuple[Address, ...] = ()
    """All edges, `host:port@zone`, this one too: by how many there are in each zone it knows how much of its requests
    its own zone can take. They are looked up, never called."""
    metrics_targets: dict[str, Address] = Field(default_factory=dict)
    """Where each process's metrics are: `router=127.0.0.1:8201,auth=…`."""
    tls_cert: Path | None = None
    """Certificate chain, PEM. With it and `tls_key`, the public port speaks TLS only."""
    tls_key: Path | None = None
    """The certificate's private key, PEM."""
    service_tls_dir: Path | None = None
    """A folder with `tls.crt`, `tls.key` and `ca.crt`, by which the edge and the services know each other; files that
    are moved into their place are read without a restart. None: TLS between processes is off."""
    service_tls_name: str = Field(default="{}.moa.internal", pattern=r"^[a-z0-9.-]*\{\}[a-z0-9.-]*$")
    """The DNS name that a process's certificate is for, with `{}` in place of the process's name (`router`)."""
    descriptors: Path = Path("build/moa.binpb")
    """The contracts' descriptor set (`make proto`)."""
    edge_dir: Path = Path(".moa/edge")
    """A folder for the rendered configuration."""
    edge_processes: int = Field(default=2, ge=1, le=16)
    """Processes of Envoy, which share the ports: when one dies, new connections come to the others. Memory, connections
    and bytes of unknown callers are parted among them."""
    edge_workers: int = Field(default=2, ge=1, le=256)
    """Worker threads of all of them together, one each at least."""
    edge_retries: int = Field(default=40, ge=0, le=200)
    """How often a request that reached nobody is sent again: 40 take some ten seconds, as a restart may at most."""
    edge_look_s: float = Field(default=20.0, ge=0.5, le=300)
    """How often a process that answers is asked whether it is healthy, which is how one that stands still is found out:
    after twice this, and two seconds. It costs an idle process fifty wake-ups each time."""
    json_limit_bytes: int = Field(default=20 * 2**20, gt=0)
    """Largest body that is not multipart."""
    upload_limit_bytes: int = Field(default=64 * 2**20, gt=0)
    """Largest multipart body."""
    stream_idle_s: float = Field(default=900.0, gt=0)
    """How long a request may stay without a byte in either direction. The router's own limits are shorter, but for
    an unstreamed picture on a slow machine, which says nothing until it is done."""
    request_s: float = Field(default=300.0, gt=0)
    """How long a request may take to arrive whole, REST and gRPC alike: 64 MiB at 2 Mbit/s. A bound on silence alone
    would end answers too, which may be silent for longer, and a caller who sends a byte a minute would hold on."""
    body_window_s: float = Field(default=10.0, gt=0)
    """In each such time 16 KiB of a body must come, or its end; a caller that is slower is dropped with 408."""
    unknown_bytes: int = Field(default=16 * 2**20, gt=0)
    """How much of the bodies of all callers at one address is taken before their keys are known."""
    trusted_hops: int = Field(default=0, ge=0, le=16)
    """How many proxies of the operator's own stand before the edge: a caller's address is what the first of them added
    to `x-forwarded-for`. 0: whoever connects is the caller."""
    connection_idle_s: float = Field(default=180.0, gt=0)
    """How long a connection may stay without a request."""
    edge_heap_mb: int = Field(default=1024, ge=64)
    """Memory at most, in MiB: near it new requests are refused with 503, so that the edge does not die of bodies."""
    drain_s: float = Field(default=10.0, ge=0)
    """How long running requests may go on after the edge was asked to stop, in seconds. New ones are refused."""
    edge_log_flush_s: float = Field(default=1.0, ge=0.01)
    """How long a line of the access log may wait before it is written."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """The least severe level that Envoy logs; `info` is Envoy's `warning`, beside one access line a request. At
    `warning` only requests that failed for no fault of the caller's have one (5xx), at `error` those that the gateway
    itself broke (500)."""

    @property
    def threads(self) -> int:
        """Return the worker threads of one process."""
        return max(1, self.edge_workers // self.edge_processes)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, values: dict[str, object]) -> dict[str, object]:
        parsers = {
            "listen": Address.parse,
            "internal_listen": Address.parse,
            "router_addresses": addresses,
            "large_router_addresses": addresses,
            "tasks_addresses": addresses,
            "account_addresses": addresses,
            "edge_addresses": addresses,
            "metrics_targets": named,
        }
        # An empty variable is an unset one: compose files cannot leave one out.
        given = {name: value for name, value in values.items() if value != ""}
        return {k: parsers[k](v) if k in parsers and isinstance(v, str) else v for k, v in given.items()}

    @property
    def asks_for_room(self) -> bool:
        """Return whether large bodies wait for room before they are read: whoever is asked is who will have them."""
        large = self.large_router_addresses
        return len(large) == 1 and large[0].is_ip

    @property
    def knows_zones(self) -> bool:
        """Return whether requests stay in the edge's zone as far as they may."""
        return bool(self.zone and self.edge_addresses)

    @model_validator(mode="after")
    def _both_or_none(self) -> EdgeSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("MOA_TLS_CERT and MOA_TLS_KEY belong together")
        if self.service_tls_dir is not None:
            for name in (CHAIN, KEY, AUTHORITIES):
                if not (self.service_tls_dir / name).is_file():
                    raise ValueError(f"MOA_SERVICE_TLS_DIR has no file {name}: {self.service_tls_dir}")
        for name, path in (("MOA_TLS_CERT", self.tls_cert), ("MOA_TLS_KEY", self.tls_key)):
            if path is not None and not path.is_file():
                raise ValueError(f"{name} names no file: {path}")
        return self
