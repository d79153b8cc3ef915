"""The one table of Moa's processes: what each runs, where it listens, whom it calls.

The launcher starts this table on one machine; `docker-compose.yml` says the same for containers, and a test holds
the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from typing import Any, Final

TLS_DIR: Final = "MOA_SERVICE_TLS_DIR"
"""Where a process's certificate is; for the launcher, the folder of those of all, each in one of its process's name."""
_TLS: Final = (TLS_DIR, "MOA_SERVICE_TLS_NAME")
NETWORK: Final = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE")
"""A company's proxy and its bundle of authorities: each process asks something outside (a provider, an identity
provider, a mail server, a bucket, a hub, the address of facts), or a database with TLS."""
_USUAL: Final = ("MOA_DRAIN_S", "MOA_CONNECTION_AGE_S", *_TLS, "MOA_HEALTH_LISTEN", "MOA_SERVICE_TOKEN_FILE", *NETWORK)
"""What every process but the edge may be told."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """One kind of process.

    `calls` maps an environment variable to the process whose address it takes. `shared` names the variables that
    the process takes from the common pool (credentials, the catalogue). `fixed` are variables with what they are.
    `optional` names the variables that it is given where the operator sets them; the process has a default for
    each. `folders` maps a variable to a folder of the state folder, which all workers of a kind share. `workers` is
    how many of it run, where memory allows: one stands in while another is started again. `providers` tells that it
    asks providers, and reads their credentials; `secrets` names the other secrets that it may be given, and others
    are not. `store` tells that it keeps or gives objects. `stands_in` names the process that does its work where it
    is not started, as where memory is short. `asks_for` names the variables by which it asks for processes that are
    started with the first request that is for them (`POSTPONED`). `public_port` is where the edge reaches what the
    process offers to callers, when that is apart from what it offers to services. `serves_grpc` tells how readiness is
    asked: by gRPC health, else by the internal listener's `/ready`.
    """

    name: str
    module: str
    port: int
    metrics_port: int
    public_port: int | None = None
    stands_in: str = ""
    asks_for: tuple[str, ...] = ()
    calls: Mapping[str, str] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = _USUAL
    folders: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1
    providers: bool = False
    secrets: tuple[str, ...] = ()
    store: bool = False
    serves_grpc: bool = True

    @property
    def certificate_name(self) -> str:
        """Return the process that its certificate names: who stands in for another is known as the other."""
        return self.stands_in or self.name

    @property
    def health_port(self) -> int:
        """Return where its health is asked without TLS, where its port speaks TLS."""
        return self.port + 200

    @property
    def needs_database(self) -> bool:
        """Return whether it is started after the database."""
        return DATABASE in self.calls.values()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of its workers; those after the first have a number."""
        return tuple(worker(self.name, number) for number in range(1, self.workers + 1))


def worker(name: str, number: int) -> str:
    """Return what the worker of a process is called, counted from 1."""
    return name if number == 1 else f"{name}-{number}"


PUBLIC_PORT: Final = 8080
"""Where callers come in (`MOA_PORT`)."""
INTERNAL_PORT: Final = 8200
"""The edge's internal listener: `/metrics/<process>`, `/ready`."""

DATABASE: Final = "postgres"
"""PostgreSQL; embedded by the launcher, a container of its own in compose."""

STORE: Final = (
    "MOA_PUBLIC_URL",
    "MOA_STORE_DIR",
    "MOA_STORE_BUCKET",
    "MOA_STORE_ENDPOINT",
    "MOA_STORE_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
)
"""What processes with `store` are told."""

_KEPT: Final = (*_USUAL, "MOA_EGRESS_ALLOW", "MOA_LINK_SECRET", "MOA_LINK_TTL_S")
"""What processes with `store` may be told."""

FACTS_DIR: Final = "MOA_FACTS_DIR"
"""Where an operator's facts of models are kept for the next start."""

CATALOGUE_KEPT: Final = "MOA_CATALOGUE_KEPT"
"""Where the last good catalogue is kept for a start at which its file has a fault."""

_COMMON: Final = ("MOA_SERVICE_TOKEN", "MOA_CATALOGUE", "MOA_LOG_LEVEL")

_FACTS: Final = (CATALOGUE_KEPT, "MOA_FACTS_URL", "MOA_FACTS_EVERY_S", FACTS_DIR)
"""What processes may be told that go by what is known of models."""

VARIABLES_SET: Final = "MOA_VARIABLES_SET"
"""Names of the variables that are set for those who ask providers: by them others decide which providers there are."""
CALLERS: Final = "MOA_SERVICE_CALLERS"
"""Who may call a process, by the names in certificates: those whose rows name it in `calls`, but at a public port the
edge alone."""
HUB: Final = ("HF_ENDPOINT", "HF_HUB_OFFLINE")
"""A mirror of the hub, or none at all, as its client has them."""
_SERVERS: Final = "MOA_SERVERS"
"""Servers of one's own, for those who ask providers and those who decide which there are."""
_SHOP: Final = ("MOA_NAVER_CLIENT_ID", "MOA_NAVER_CLIENT_SECRET")

_SESSION_URL: Final = "MOA_DATABASE_SESSION_URL"
"""The database without its pooler, for who has one between."""

AUTH: Final = Process(
    name="auth",
    module="services.auth",
    port=8102,
    metrics_port=8202,
    public_port=8105,
    calls={"MOA_DATABASE_URL": DATABASE},
    shared=(*_COMMON, "MOA_KEY_PEPPER", "MOA_REQUEST_LOG_KEYS", "MOA_BYOK", "MOA_SIGNUP"),
    fixed={CALLERS: "text,image,inference,router,tasks"},
    optional=(
        *_USUAL,
        _SESSION_URL,
        "MOA_DATABASE_REPLICA_LAG_S",
        "MOA_DATABASE_REPLICA_URL",
        "MOA_DATABASE_WAIT_S",
        "MOA_EGRESS_ALLOW",
        "MOA_IDEMPOTENCY_LEASE_S",
        "MOA_LEDGER_RETENTION_DAYS",
        "MOA_MAIL_FROM",
        "MOA_OIDC_CLIENT_ID",
        "MOA_OIDC_CLIENT_SECRET",
        "MOA_OIDC_DOMAINS",
        "MOA_OIDC_GROUPS",
        "MOA_OIDC_GROUPS_CLAIM",
        "MOA_OIDC_ISSUER",
        "MOA_OIDC_LINK_BY_EMAIL",
        "MOA_OIDC_NAME",
        "MOA_OIDC_SCOPES",
        "MOA_OIDC_SIGNUP",
        "MOA_PUBLIC_URL",
        "MOA_REQUEST_LOG_ACCESS_KEY",
        "MOA_REQUEST_LOG_BUCKET",
        "MOA_REQUEST_LOG_ENDPOINT",
        "MOA_REQUEST_LOG_EVERY_S",
        "MOA_REQUEST_LOG_PREFIX",
        "MOA_REQUEST_LOG_REGION",
        "MOA_REQUEST_LOG_SECRET_KEY",
        "MOA_SMTP_URL",
        "MOA_RESPONSES_DAYS",
        "MOA_RESPONSES_COUNT",
        "MOA_RESPONSES_MB",
        "MOA_RESPONSES_STORED",
        "MOA_RESPONSES_SECRETS",
        _SERVERS,
    ),
)
_LARGE_FD, _DESK_FD = "MOA_LARGE_FD", "MOA_DESK_FD"
"""Files by which processes are asked for."""
_SETTLES: Final = {"MOA_AUTH_ADDRESS": "auth"}
"""For who answers a router: it settles what a killed router cannot."""

TEXT: Final = Process(
    name="text",
    module="services.text",
    port=8103,
    metrics_port=8203,
    calls=_SETTLES,
    shared=_COMMON,
    fixed={CALLERS: "router,tasks"},
    optional=(*_USUAL, *_FACTS, "MOA_LEFT_CALL_S", _SERVERS),
    providers=True,
)
_YIELDS: Final = {"MOA_YIELDS": "7"}
"""A fifth of a normal share where all processors work, as helper processes have: what is large takes what is left."""
LARGE_TEXT: Final = replace(
    TEXT, name="largetext", port=8109, metrics_port=8209, stands_in="text", fixed={CALLERS: "router", **_YIELDS}
)
"""Answers what `largerouter` asks."""
IMAGE: Final = Process(
    name="image",
    module="services.image",
    port=8108,
    metrics_port=8208,
    calls=_SETTLES,
    shared=_COMMON,
    fixed={CALLERS: "router"},
    optional=(*_USUAL, *_FACTS, "MOA_LEFT_CALL_S", _SERVERS),
    providers=True,
)
INFERENCE: Final = Process(
    name="inference",
    module="inference",
    port=8104,
    metrics_port=8204,
    calls=_SETTLES,
    shared=(*_COMMON, "MOA_FETCH"),
    fixed={CALLERS: "router,desk"},
    optional=(
        *_USUAL,
        *HUB,
        CATALOGUE_KEPT,
        "MOA_CHECKPOINT_EVERY",
        "MOA_LEFT_CALL_S",
        "MOA_MODEL_BYTES",
        "MOA_POOL",
        "MOA_PRELOAD",
        "MOA_REMOTE_CODE",
        "MOA_ROOM_WAIT_S",
        "MOA_TORCH_THREADS",
        "MOA_ZONE",
    ),
    secrets=("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"),
    folders={"MOA_CHECKPOINTS": "checkpoints", "MOA_PACKAGES": "packages"},
)
ROUTER: Final = Process(
    name="router",
    module="services.router",
    port=8101,
    metrics_port=8201,
    calls={
        "MOA_AUTH_ADDRESS": "auth",
        "MOA_TEXT_ADDRESS": "text",
        "MOA_IMAGE_ADDRESS": "image",
        "MOA_INFERENCE_ADDRESS": "inference",
    },
    shared=(*_COMMON, "MOA_BYOK", VARIABLES_SET),
    fixed={CALLERS: "edge,desk,tasks"},
    optional=(
        *_KEPT,
        *_FACTS,
        "MOA_INFERENCE_POOLS",
        "MOA_POLICIES",
        "MOA_SESSIONS",
        "MOA_SETTLE_EVERY_S",
        "MOA_ZONE",
        _SERVERS,
    ),
    folders={"MOA_STATE_DIR": "router"},
    asks_for=(_LARGE_FD,),
    workers=2,
    secrets=("MOA_LINK_SECRET",),
    store=True,
)
LARGE_ROUTER: Final = replace(
    ROUTER,
    name="largerouter",
    port=8111,
    metrics_port=8211,
    calls={**ROUTER.calls, "MOA_TEXT_ADDRESS": "largetext"},
    workers=1,
    stands_in="router",
    asks_for=(),
    fixed={CALLERS: "edge", **_YIELDS},
)
"""Takes requests of more than 256 KiB, so that they delay no others in one process."""
DESK: Final = Process(
    name="desk",
    module="services.desk",
    port=8107,
    metrics_port=8207,
    calls={"MOA_ROUTER_ADDRESS": "router", "MOA_VISION_ADDRESS": "inference"},
    shared=(*_COMMON, *_SHOP),
    fixed={CALLERS: "tasks"},
    optional=(*_KEPT, "MOA_DESK_MODEL", "MOA_ZONE"),
    secrets=(*_SHOP, "MOA_LINK_SECRET"),
    store=True,
)
TASKS: Final = Process(
    name="tasks",
    module="services.tasks",
    port=8106,
    metrics_port=8206,
    asks_for=(_DESK_FD,),
    calls={
        "MOA_DATABASE_URL": DATABASE,
        "MOA_AUTH_ADDRESS": "auth",
        "MOA_ROUTER_ADDRESS": "router",
        "MOA_TEXT_ADDRESS": "text",
        "MOA_DESK_ADDRESS": "desk",
    },
    shared=(*_COMMON, VARIABLES_SET),
    fixed={CALLERS: "edge"},
    optional=(
        *_KEPT,
        *_FACTS,
        _SESSION_URL,
        "MOA_BATCH_KEEP_S",
        "MOA_BATCH_PER_ACCOUNT",
        "MOA_BATCH_SECRETS",
        "MOA_DESK_MODEL",
        "MOA_TASK_KEEP_S",
        "MOA_WEBHOOK_SECRET",
        _SERVERS,
    ),
    secrets=("MOA_LINK_SECRET", "MOA_WEBHOOK_SECRET"),
    store=True,
)
EDGE: Final = Process(
    name="edge",
    module="gateway",
    port=PUBLIC_PORT,
    metrics_port=INTERNAL_PORT,
    calls={
        "MOA_ROUTER_ADDRESSES": "router",
        "MOA_LARGE_ROUTER_ADDRESSES": "largerouter",
        "MOA_TASKS_ADDRESSES": "tasks",
        "MOA_ACCOUNT_ADDRESSES": "auth",
    },
    shared=("MOA_LOG_LEVEL",),
    optional=(
        *_TLS,
        "MOA_DRAIN_S",
        "MOA_BODY_WINDOW_S",
        "MOA_EDGE_ADDRESSES",
        "MOA_EDGE_HEAP_MB",
        "MOA_EDGE_LOG_FLUSH_S",
        "MOA_EDGE_LOOK_S",
        "MOA_EDGE_PROCESSES",
        "MOA_EDGE_RETRIES",
        "MOA_EDGE_WORKERS",
        "MOA_REQUEST_S",
        "MOA_STREAM_IDLE_S",
        "MOA_TRUSTED_HOPS",
        "MOA_UNKNOWN_BYTES",
        "MOA_ZONE",
    ),
    secrets=("MOA_TLS_KEY",),
    folders={"MOA_EDGE_DIR": "edge"},
    serves_grpc=False,
)
EDGE_PROCESSES: Final = 2
"""How many of Envoy's the edge keeps, where memory allows."""

PROCESSES: Final[tuple[Process, ...]] = (
    AUTH,
    TEXT,
    LARGE_TEXT,
    IMAGE,
    INFERENCE,
    ROUTER,
    LARGE_ROUTER,
    DESK,
    TASKS,
    EDGE,
)
"""In the order of starting: nobody waits for a later one."""

POSTPONED: Final[Mapping[str, tuple[str, ...]]] = {
    _LARGE_FD: (LARGE_TEXT.name, LARGE_ROUTER.name),
    _DESK_FD: (DESK.name,),
}
"""What may be started with the first request that is for it, by the variable that names the file by which it is asked
for: who gets none of those keeps 25 MB less for each."""

_COLOCATES: Final[Mapping[str, Any]] = {"module": "services.colocated", "providers": True}


def _without_text(process: Process) -> dict[str, str]:
    return {name: callee for name, callee in process.calls.items() if name != "MOA_TEXT_ADDRESS"}


_COLOCATED: Final[Mapping[str, Process | None]] = {
    **{each.name: replace(each, calls=_without_text(each), **_COLOCATES) for each in (ROUTER, LARGE_ROUTER)},
    # Nobody else serves the providers' batch APIs: each request of a batch is asked for alone.
    TASKS.name: replace(TASKS, calls=_without_text(TASKS), fixed={**TASKS.fixed, "MOA_PROVIDER_BATCHES": "0"}),
    TEXT.name: None,
    LARGE_TEXT.name: None,
}
"""What runs in a process's place where routers ask providers themselves; None: nothing does."""


def processes_of(given: Mapping[str, str]) -> tuple[Process, ...]:
    """Return the table for an operator's variables: with `MOA_COLOCATE=text` each router has its own text service."""
    if given.get("MOA_COLOCATE") != TEXT.name:
        return PROCESSES
    return tuple(kept for each in PROCESSES if (kept := _COLOCATED.get(each.name, each)) is not None)


BY_NAME: Final[Mapping[str, Process]] = {process.name: process for process in PROCESSES}


def callers_first() -> Iterator[frozenset[str]]:
    """Return the names in groups, in the order of stopping: nobody is stopped before those that call it."""
    callers: dict[str, set[str]] = {process.name: set() for process in PROCESSES}
    for process in PROCESSES:
        for callee in process.calls.values():
            callers.setdefault(callee, set()).add(process.name)
    order = TopologicalSorter(callers)
    order.prepare()
    while order.is_active():
        group = frozenset(order.get_ready())
        yield group
        order.done(*group)
