"""What gRPC connects to, of the addresses that settings name."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final

from pydantic import AfterValidator

_SCHEMES: Final = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:")
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,15}")
_ADDRESS: Final = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:,/\s]+)):(?P<port>[0-9]{1,5})")


def target_of(addresses: str) -> str:
    """Return gRPC's target for `host:port`, or for several with commas between, which are then called in turn.

    Several must be IP addresses of one kind: gRPC takes no list of names. Replicas behind one name are one `host:port`,
    and a target that is gRPC's own already (`ipv4:…`, `dns:///…`) stays as it is. Raises ValueError.
    """
    if addresses.startswith(_SCHEMES):
        return addresses
    each = [address.strip() for address in addresses.split(",")]
    kinds = {_kind(address) for address in each}
    if len(each) == 1:
        return each[0]
    if len(kinds) > 1 or "name" in kinds:
        raise ValueError("several addresses are IP addresses of one kind; replicas behind one name are one host:port")
    return f"{kinds.pop()}:{','.join(each)}"


def places_of(addresses: str) -> tuple[tuple[str, ...], tuple[str, int] | None]:
    """Return the IP addresses that a setting lists, or the host and port whose addresses are to be looked up.

    Neither for a target that is gRPC's own, whose processes it alone knows. Raises ValueError.
    """
    if addresses.startswith(_SCHEMES):
        return (), None
    each = tuple(address.strip() for address in addresses.split(","))
    if _kind(each[0]) != "name":
        return each, None
    host, _, port = each[0].rpartition(":")
    return (), (host, int(port))


def addresses_by_name(text: str) -> dict[str, str]:
    """Read `name=host:port,name=host:port`. Raises ValueError."""
    found: dict[str, str] = {}
    for piece in filter(None, (part.strip() for part in text.split(","))):
        name, _, address = piece.partition("=")
        if not _NAME.fullmatch(name):
            raise ValueError(f"not name=host:port: {piece!r}")
        if name in found:
            raise ValueError(f"{name} stands twice")
        target_of(address)
        found[name] = address
    return found


def _kind(address: str) -> str:
    """Return `ipv4`, `ipv6` or `name`. Raises ValueError for what is no address."""
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError(f"not host:port: {address!r}")
    try:
        return f"ipv{ipaddress.ip_address(match['six'] or match['host']).version}"
    except ValueError:
        if match["six"]:
            raise ValueError(f"not host:port: {address!r}") from None
        return "name"


def _checked(addresses: str) -> str:
    if addresses:
        target_of(addresses)
    return addresses


def _named(text: str) -> str:
    addresses_by_name(text)
    return text


Addresses = Annotated[str, AfterValidator(_checked)]
"""A setting that names a service: `host:port`, or several with commas between. Wrong ones stop the start by name."""
NamedAddresses = Annotated[str, AfterValidator(_named)]
"""A setting that names several services: `name=host:port,name=host:port`. Wrong ones stop the start by name."""
