"""Which addresses are of the public internet, and how this machine's own can be spelled."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from services.common.egress import Egress, RefusedUrl
from services.common.errors import MoaError
from services.common.hosts import is_public

PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001:0:7f00:1::1",
    "2001:0:808:808:0:0:80ff:fffe",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2a00:1450::5efe:7f00:1",
    "2a00:1450::200:5efe:a00:1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    """Private, local, metadata and reserved addresses are told apart, also inside IPv6 ones."""
    assert not is_public(ipaddress.ip_address(address))


# Spellings that a resolver undoes, and one that a parser does.
SPELLINGS = [
    "localhost",
    "localhost.",
    "LOCALHOST",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "0",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
]


@pytest.mark.parametrize("host", SPELLINGS)
async def test_odd_spellings_of_this_machine_reach_nothing(host: str) -> None:
    """However loopback is written, no connection comes."""
    guard = Egress()
    with pytest.raises(RefusedUrl):
        guard.check(f"https://{host}/a", param="image_url")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"https://{host}:{server.getsockname()[1]}/a"
        with pytest.raises(MoaError):
            await guard.fetch(url, limit_bytes=10, timeout_s=10, param="image_url")
        with pytest.raises(BlockingIOError):
            server.accept()
    await guard.aclose()
