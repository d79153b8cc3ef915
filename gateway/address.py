"""Addresses as the environment writes them."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple


class Address(NamedTuple):
    """A host and a port, and the zone in which what is there runs, where that is told."""

    host: str
    port: int
    zone: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port`; raise ValueError with the text otherwise."""
        host, _, port = text.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r} is not host:port")
        return cls(host.strip("[]"), int(port))

    @property
    def is_ip(self) -> bool:
        """Return whether the host needs no name server."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


def addresses(text: str) -> tuple[Address, ...]:
    """Read `host:port,host:port`, each with `@zone` behind it where it is told."""
    return tuple(_in_zone(piece) for piece in text.split(",") if piece.strip())


def _in_zone(text: str) -> Address:
    address, at, zone = text.strip().partition("@")
    if at and not zone:
        raise ValueError(f"{text!r} is not host:port@zone")
    return Address.parse(address)._replace(zone=zone)


def named(text: str) -> dict[str, Address]:
    """Read `name=host:port,name=host:port`."""
    pairs = (piece.split("=", 1) for piece in text.split(",") if piece.strip())
    return {pair[0].strip(): Address.parse(pair[-1]) for pair in pairs}
