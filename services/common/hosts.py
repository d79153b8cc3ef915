"""Hosts in URLs that somebody outside gave: read by this module's own rules, and judged, before any client sees them.

Clients and resolvers read more into a host than a URL says: `2130706433`, `127.1`, `0x7f.1` and `0177.0.0.1` are
loopback to some of them and in some versions. Here an IPv4 address is four decimal numbers and nothing else is one.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from yarl import URL

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)
_FORBIDDEN: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        # Public by registration, but a cloud's own machinery on its machines (Azure).
        "168.63.129.16/32",
        # IETF's own block, where Oracle's metadata server lives.
        "192.0.0.0/24",
        # Deprecated, local or never routed, and not all of them known to `is_global` as such.
        "192.88.99.0/24",
        "::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "5f00::/16",
        "fec0::/10",
    )
)


class NoHost(ValueError):
    """A URL without a host that could be called. The message is for whoever gave it."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a URL leads."""

    scheme: str
    """`http` or `https`."""
    host: str
    """A name in lower case without a last dot, maybe of letters beyond ASCII; or an address, without brackets."""
    port: int
    address: Address | None
    """The host, where it is an address."""

    @property
    def is_inside(self) -> bool:
        """Return whether the host says by itself that it is not public. Other names may lead inside too."""
        if self.address is not None:
            return not is_public(self.address)
        return "." not in self.host or any(f".{self.host}".endswith(f".{zone}") for zone in _OWN_ZONES)


_OWN_ZONES: Final = ("localhost", "localdomain", "local", "internal", "home.arpa")
"""Names of this machine and this network (RFC 6761, 6762, 8375; ICANN's private-use `internal`)."""
_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")
_URL: Final = re.compile(r"(https?)://([^/?#]*)", re.IGNORECASE)
_SIX: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{0,5}))?")
_NAMED: Final = re.compile(r"([^:\[\]]+)(?::([0-9]{0,5}))?")
_BYTE: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_FOUR: Final = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-f]*")
_LABEL: Final = re.compile(r"[a-z0-9_-]{1,63}")
_DOTS: Final = str.maketrans("\u3002\uff0e\uff61", "...")
"""What domain names take for a dot (UTS 46)."""
_MOST: Final = 253


def destination_of(url: str) -> Destination:
    """Return where an http or https URL leads. Raises NoHost for what is none, or could be read in two ways."""
    if _CONTROL.search(url):
        raise NoHost("not a URL")
    match = _URL.match(url)
    if match is None:
        raise NoHost("an https URL is expected")
    scheme, authority = match[1].lower(), match[2]
    if "@" in authority:
        raise NoHost("a URL with credentials is not called")
    six = _SIX.fullmatch(authority)
    named = six or _NAMED.fullmatch(authority)
    if named is None:
        raise NoHost("not a URL")
    port = int(named[2] or (443 if scheme == "https" else 80))
    if not 0 < port < 65536:
        raise NoHost("not a URL")
    if six is None:
        return _named(scheme, named[1], port)
    try:
        address = ipaddress.IPv6Address(six[1])
    except ValueError:
        raise NoHost("not a URL") from None
    return Destination(scheme, str(address), port, address)


def _named(scheme: str, written: str, port: int) -> Destination:
    """Return a place with a name or an IPv4 address, as it was written."""
    host = unicodedata.normalize("NFKC", written).translate(_DOTS).lower()
    ended = host.removesuffix(".")
    labels = ended.split(".")
    if _FOUR.fullmatch(host):
        return Destination(scheme, host, port, ipaddress.IPv4Address(host))
    if labels[-1].isdecimal() or _HEXADECIMAL.fullmatch(labels[-1]):
        # As browsers have it (WHATWG URL, "ends in a number"), it would be an address: in a form that is none here.
        raise NoHost("an IPv4 address is four numbers from 0 to 255")
    if len(host) > _MOST or not all(map(_is_label, labels)):
        raise NoHost("not a URL")
    return Destination(scheme, ended, port, None)


def _is_label(label: str) -> bool:
    if label.isascii():
        return _LABEL.fullmatch(label) is not None
    # Letters, marks and digits of any script; what is passed over when a name is encoded is none of them.
    return all(unicodedata.category(c)[0] in "LMN" or c in "-_" for c in label)


def agrees(parsed: URL, place: Destination) -> bool:
    """Return whether the client will call the host that was judged, and read nothing else into it."""
    host = (parsed.raw_host or "").lower()
    if (parsed.scheme, parsed.port, parsed.user, parsed.password) != (place.scheme, place.port, None, None):
        return False
    if place.address is not None:
        return host == str(place.address)
    if place.host.isascii():
        return host.removesuffix(".") == place.host
    try:
        # The client encodes such names; what comes of it is judged once more.
        encoded = destination_of(f"{place.scheme}://{host}:{place.port}/")
    except NoHost:
        return False
    return encoded.address is None and not encoded.is_inside


def is_public(address: Address) -> bool:
    """Return whether an address is one of the public internet, and so is every IPv4 address that it wraps."""
    return all(_is_plain_public(each) for each in (address, *_wrapped(address)))


def _is_plain_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (address in _NAT64 or address.ipv4_mapped is not None):
        # A prefix alone: what counts is the IPv4 address inside.
        return True
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
        and not any(address.version == network.version and address in network for network in _FORBIDDEN)
    )


def _wrapped(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """Return the IPv4 addresses inside an IPv6 one: mapped, compatible, 6to4, Teredo, NAT64, ISATAP."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    number = int(address)
    if address in _NAT64 or number < 2**32 or (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        yield ipaddress.IPv4Address(number & 0xFFFF_FFFF)
