"""Addresses as the environment writes them."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple


class Address(NamedTuple):
    """A host and a port."""

    host: str
    port: int

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
    """Read `host:port,host:port`."""
    return tuple(Address.parse(piece) for piece in text.split(",") if piece.strip())


def named(text: str) -> dict[str, Address]:
    """Read `name=host:port,name=host:port`."""
    pairs = (piece.split("=", 1) for piece in text.split(",") if piece.strip())
    return {pair[0].strip(): Address.parse(pair[-1]) for pair in pairs}
