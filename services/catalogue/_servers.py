"""Servers of one's own: what one base URL stands for, as the rows that it is short for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from msgspec import Meta, Struct, field

from services.catalogue._error import CatalogueError
from services.catalogue._limits import Limits
from services.catalogue._model import Model, Provider, RowId, Timeouts
from services.catalogue._prices import Prices
from services.common.operations import Makes

VARIABLE: Final = "MOA_SERVERS"
"""The environment variable that names servers beside the file's, parted by commas: `URL` or `name=URL`."""
ADAPTER: Final = "server"
_MAKES: Final[tuple[Makes, ...]] = ("text", "embedding", "image")
_MOST: Final = 50
_IMAGES: Final = Limits(response_format="b64_json")
"""Links to images would be good inside their network alone."""
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class Server(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server of one's own: its models, and what they can do, are asked of it."""

    id: Annotated[str, Meta(pattern=_NAME)]
    """What callers may write before a model's name: `id/model`. Its providers are `id-text`, `id-embedding` and
    `id-image`."""
    base_url: str
    """Where it is, with or without `/v1`; as a provider's."""
    credentials: Mapping[str, str] = {}
    """As a provider's: `{api_key: VARIABLE}`, where it asks for one."""
    options: Mapping[str, Any] = {}
    """What the text provider's adapter understands."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    """How long it may be silent."""
    allow: tuple[RowId, ...] = ()
    """Patterns of which a model's id must match one; none: all are served."""
    deny: tuple[RowId, ...] = ()
    """Patterns of which a model's id may match none."""
    prices: Prices = field(default_factory=Prices)
    """What its models cost; nothing, where that is not said."""


def rows_of(servers: Iterable[Server]) -> tuple[list[Provider], list[Model]]:
    """Return the providers and the wildcard rows that servers are short for."""
    providers, models = [], []
    for server in servers:
        for makes in _MAKES:
            provider = Provider(
                id=f"{server.id}-{makes}",
                adapter=ADAPTER,
                makes=makes,
                base_url=server.base_url,
                credentials=server.credentials,
                options=server.options if makes == "text" else {},
                timeouts=server.timeouts,
                prefixes=(server.id,),
            )
            providers.append(provider)
            models.append(
                Model(
                    id="*",
                    provider=provider.id,
                    allow=server.allow,
                    deny=server.deny,
                    prices=server.prices,
                    limits=_IMAGES if makes == "image" else Limits(),
                )
            )
    return providers, models


def named_in(environment: Mapping[str, str]) -> list[Server]:
    """Return the servers that the environment names. Raises CatalogueError, with the entry at fault."""
    entries = [entry.strip() for entry in environment.get(VARIABLE, "").split(",")]
    servers = [_server(entry) for entry in entries if entry]
    if len(servers) > _MOST:
        raise CatalogueError(f"{VARIABLE}: more than {_MOST} servers")
    if len({server.id for server in servers}) != len(servers):
        raise CatalogueError(f"{VARIABLE}: two servers share a name; write name=URL")
    return servers


def _server(entry: str) -> Server:
    name, parted, url = entry.partition("=") if re.match(r"[^/?#=]+=", entry) else ("", "", entry)
    try:
        address = urlsplit(url)
        host, port = address.hostname, address.port
    except ValueError:
        host, port = None, None
    if host is None or address.scheme not in ("http", "https") or address.username is not None:
        raise CatalogueError(f"{VARIABLE}: {entry[:200]!r} is no http or https URL, nor name=URL")
    name = name if parted else re.sub(r"[^A-Za-z0-9.-]", "-", host) + (f"-{port}" if port else "")
    if not re.match(_NAME, name):
        raise CatalogueError(f"{VARIABLE}: {name[:200]!r} is no name: letters, digits, `.`, `_` and `-`")
    return Server(id=name, base_url=url)
