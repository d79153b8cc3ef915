"""How a host is read out of a URL: in one way, or not at all."""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from services.common.egress import Egress, RefusedUrl
from services.common.hosts import NoHost, agrees, destination_of, is_public

FORMS = [
    # What a resolver or a client would take for 127.0.0.1, one time or another.
    "2130706433",
    "127.1",
    "127.0.1",
    "0",
    "0.0",
    "0x7f.1",
    "0x7F000001",
    "0x7f.0x0.0x0.0x1",
    "0177.0.0.1",
    "0177.1",
    "00000177.0.0.1",
    "017700000001",
    "127.0.0.01",
    "127.0.0.1.",
    "127.1.",
    "2130706433.",
    "0x",
    "1.2.3.4.5",
    "256.0.0.1",
    "4294967296",
    "foo.0x7f",
    "foo.1",
    "１２７.0.0.1",
    "１２７.1",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "127｡1",
    "0ｘ7f.1",
    "٣.٣.٣.٣",
    "127%2E0%2E0%2E1",
    "%31%32%37.0.0.1",
    "127.0.0.1%00.example.com",
    "127.0.0.1:80:80",
    "127.0.0.1#",
    "[127.0.0.1]",
    "[::1]",
    "[::1%25lo]",
    "[::1%lo]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[::ffff:0177.0.0.1]",
    "[v1.fe80]",
    "[::1",
    "[",
    "::1",
    "",
    ".",
    "..",
    "a..example",
    ".example.com",
    "a.example..",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "ｌocalhost",
    "loc\u00adalhost",
    "local\u200bhost",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "x.localhost",
    "localhost.localdomain",
    "printer.local",
    "metadata.google.internal",
    "metadata",
    "router.home.arpa",
    "user@example.com",
    "user:pw@example.com",
    "@example.com",
    "example.com\\@127.0.0.1",
    "127.0.0.1\\.example.com",
    "example.com:0",
    "example.com:65536",
    "example.com:٨٠",
    "example.com:+80",
    "example.com:-1",
    "example.com：80",
    "exa mple.com",
    "exa\tmple.com",
    "example.com\n",
    "a" * 64 + ".example",
    ".".join(["a" * 60] * 5),
    "exa*mple.com",
    "exa,mple.com",
    "example.com℀",
]


@pytest.mark.parametrize("host", FORMS)
def test_what_is_not_plainly_a_public_host_is_refused(host: str) -> None:
    """Short, decimal, octal, hexadecimal, full-width, mapped, zoned, quoted or odd: no client ever sees it."""
    with pytest.raises(RefusedUrl):
        Egress().check(f"https://{host}/a.png", param="image")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://example.com/a b?c=https://127.0.0.1/#@x", "example.com", 443),
        ("HTTPS://EXAMPLE.com:8443", "example.com", 8443),
        ("https://example.com.:/", "example.com", 443),
        ("https://a_b.c-d.1x.example/", "a_b.c-d.1x.example", 443),
        ("https://127.0.0.1.example.com/", "127.0.0.1.example.com", 443),
        ("https://0x7f.example/", "0x7f.example", 443),
        ("https://8.8.8.8/", "8.8.8.8", 443),
        ("https://[2606:4700:4700::1111]:444/", "2606:4700:4700::1111", 444),
        ("https://[2606:4700:4700:0:0:0:0:1111]/", "2606:4700:4700::1111", 443),
        ("https://bücher.example/ü", "bücher.example", 443),
        ("https://쇼핑.한국/그림.png", unicodedata.normalize("NFKC", "쇼핑.한국"), 443),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443),
    ],
)
def test_ordinary_hosts_are_read(url: str, host: str, port: int) -> None:
    """Names of any script and public addresses pass, and the client is given the same."""
    place = destination_of(url)
    assert (place.host, place.port) == (host, port)
    assert Egress().check(url, param="image") == URL(url)


def test_what_an_operator_allows_passes_in_its_plain_form_alone() -> None:
    """The exemption is for the host as it is written: not for other spellings of it."""
    guard = Egress(["127.0.0.1:9000", "minio", "[::1]:9001", "[fd00::1]"])
    for url in (
        "http://127.0.0.1:9000/a",
        "http://minio/a",
        "http://MINIO:80/a",
        "http://[::1]:9001/",
        "http://[fd00::1]/",
    ):
        guard.check(url, param="image")
    for url in (
        "http://127.1:9000/",
        "http://2130706433:9000/",
        "http://127.0.0.1:9001/",
        "http://127.0.0.1./",
        "http://[::1]/",
    ):
        with pytest.raises(RefusedUrl):
            guard.check(url, param="image")


_inside = st.sampled_from(
    ["127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16", "100.64.0.0/10", "0.0.0.0/8"]
)
_NUMBERS: list[Callable[[int], str]] = [str, hex, lambda n: f"0{n:o}", lambda n: f"0X{n:X}", lambda n: f"000{n:o}"]
_LETTERS: list[Callable[[str], str]] = [
    str,
    str.upper,
    lambda t: t.translate({ord(d): ord("０") + int(d) for d in "0123456789"}),
    lambda t: f"{t}.",
]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_spelling_of_an_inner_address_passes(data: st.DataObject) -> None:
    """Any inner address, in one to four parts, each in any base, with any dots and digits, alone or inside IPv6."""
    network = ipaddress.IPv4Network(data.draw(_inside))
    number = int(network[data.draw(st.integers(0, network.num_addresses - 1))])
    parts = data.draw(st.integers(1, 4))
    heads = [(number >> 8 * (3 - index)) & 0xFF for index in range(parts - 1)]
    tail = number & ((1 << 8 * (5 - parts)) - 1)
    dot = data.draw(st.sampled_from([".", "。", "．", "｡"]))
    host = data.draw(st.sampled_from(_LETTERS))(
        dot.join(data.draw(st.sampled_from(_NUMBERS))(part) for part in [*heads, tail])
    )
    six = ipaddress.IPv6Address((0xFFFF << 32) | number)
    mapped = data.draw(st.sampled_from([six.compressed, six.exploded, f"::ffff:{ipaddress.IPv4Address(number)}"]))
    for spelt in (host, f"[{mapped}]"):
        with pytest.raises(RefusedUrl):
            Egress().check(f"https://{spelt}/", param="image")


_NASTY = "0123456789abfxAFX.:/?#@[]%\\ \t\n。．１①ａ-_\u00ad\u200b쇼é\x00"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.sampled_from(_NASTY), max_size=24), st.sampled_from(["https://", "HTTPS://", "https:/", ""]))
def test_whatever_passes_is_read_alike_by_the_client(text: str, scheme: str) -> None:
    """Any text is refused in words, or leads to a name with a dot or to a public address, and the client agrees."""
    try:
        parsed = Egress().check(scheme + text, param="image")
    except RefusedUrl:
        return
    place = destination_of(scheme + text)
    assert agrees(parsed, place)
    assert is_public(place.address) if place.address is not None else "." in place.host


def test_a_client_that_reads_another_host_is_not_asked() -> None:
    """Whatever the reason: what was judged is what is called."""
    place = destination_of("https://example.com/")
    for other in (
        "https://example.org/",
        "https://example.com:444/",
        "http://example.com:443/",
        "https://a@example.com/",
    ):
        assert not agrees(URL(other), place)
    with pytest.raises(NoHost):
        destination_of("example.com")
