"""The egress guard against everything that tries to get inside."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from aiohttp import web

from services.common.egress import Egress, RefusedUrl
from services.common.errors import InvalidField, MoaError, TooLarge, UpstreamFailed, UpstreamTimeout
from services.common.hosts import is_public

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 1000


class Outside:
    """A server that stands for the internet. `hits` counts what reached it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.hits: list[str] = []

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    async def image(request: web.Request) -> web.StreamResponse:
        found.hits.append(request.path)
        return web.Response(body=PNG, content_type="image/png")

    async def status(request: web.Request) -> web.StreamResponse:
        return web.Response(status=int(request.match_info["code"]))

    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"location": request.query["to"]})

    async def loop(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"location": "/loop"})

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"x" * 65536)
        except ConnectionError:
            return answer

    async def slow(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"x")
        await stopped.wait()
        return answer

    async def received(request: web.Request) -> web.StreamResponse:
        found.hits.append((await request.read()).decode())
        return web.Response(status=int(request.query.get("status", "200")))

    stopped = asyncio.Event()
    app = web.Application()
    app.add_routes(
        [
            web.get("/image.png", image),
            web.get("/status/{code}", status),
            web.get("/redirect", redirect),
            web.get("/loop", loop),
            web.get("/endless", endless),
            web.get("/slow", slow),
            web.post("/hook", received),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found = Outside(runner.addresses[0][1])
    yield found
    stopped.set()
    await runner.cleanup()


@pytest.fixture
async def guard(outside: Outside) -> AsyncIterator[Egress]:
    """A guard that takes the test's own server for public."""
    made = Egress([f"127.0.0.1:{outside.port}"])
    yield made
    await made.aclose()


PATIENCE_S = 60.0
"""How long an answer may take that comes: a busy machine's does."""


async def fetch(guard: Egress, url: str, *, limit: int = 1 << 20, timeout_s: float = PATIENCE_S) -> bytes:
    return (await guard.fetch(url, limit_bytes=limit, timeout_s=timeout_s, param="image")).data


INSIDE = [
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://0x7f.0.0.1/",
    "https://0/",
    "https://0.0.0.0/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://169.254.169.254/latest/meta-data/",
    "https://2852039166/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://192.0.0.1/",
    "https://198.18.0.1/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::127.0.0.1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:4136:e378:8000:63bf:80ff:fffe]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25lo]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[ff02::1]/",
    "https://①②⑦.⓪.⓪.①/",
]


async def nobody(host: str, port: int, family: int) -> list[tuple[int, str]]:
    """A resolver that must not be asked."""
    raise AssertionError(f"{host} was looked up")


@pytest.mark.parametrize("url", INSIDE)
async def test_inside_is_refused_however_it_is_spelt(url: str) -> None:
    """Loopback, link-local, private, shared, reserved and multicast addresses, in every spelling: nobody is asked."""
    guard = Egress(lookup=nobody)
    for attempt in (fetch(guard, url), guard.post(url, headers={}, body=b"", timeout_s=PATIENCE_S)):
        with pytest.raises(RefusedUrl):
            await attempt
    await guard.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "ftp://example.com/",
        "https://user:secret@example.com/",
        "https:///path",
        "//example.com/",
        "example.com",
        "",
        "https://exa mple.com/",
        "https://example.com:99999/",
        "https://a\0b.example/",
        "https://[::1",
        "https://" + "a" * 9000,
    ],
)
def test_what_is_no_plain_https_url_is_refused_without_asking(url: str) -> None:
    """Other schemes, credentials, and what is no URL at all."""
    with pytest.raises(RefusedUrl):
        Egress().check(url, param="image")


def test_public_addresses_are_public() -> None:
    """The guard does not refuse the internet."""
    for address in ("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert is_public(ipaddress.ip_address(address)), address


def changing(*answers: str) -> Callable[[str, int, int], object]:
    """A name server that gives another address each time it is asked."""
    left: Iterator[str] = iter(answers)

    async def lookup(host: str, port: int, family: int) -> list[tuple[int, str]]:
        return [(socket.AF_INET, next(left))]

    return lookup


async def test_a_name_that_moves_inside_is_refused_when_it_does() -> None:
    """What was resolved is what is connected to: each connection judges its own answer."""
    guard = Egress(lookup=changing("127.0.0.1"))  # type: ignore[arg-type]
    guard.check("https://rebind.example/", param="image")
    with pytest.raises(RefusedUrl):
        await fetch(guard, "https://rebind.example/")
    await guard.aclose()


async def test_one_private_address_among_public_ones_is_refused() -> None:
    """Which of several addresses is used is luck, so all must be public."""

    async def lookup(host: str, port: int, family: int) -> list[tuple[int, str]]:
        return [(socket.AF_INET, "8.8.8.8"), (socket.AF_INET, "10.0.0.1")]

    guard = Egress(lookup=lookup)
    with pytest.raises(RefusedUrl):
        await fetch(guard, "https://mixed.example/")
    await guard.aclose()


@pytest.mark.parametrize(
    "inside",
    [
        *("https://127.0.0.1/", "https://localhost/", "http://example.com/", "file:///x"),
        *(
            "https://2130706433/",
            "https://127.1/",
            "https://0x7f.1/",
            "//0177.0.0.1/",
            "https://a@b.example/",
            "https://[",
        ),
    ],
)
async def test_a_redirect_to_inside_is_refused(guard: Egress, outside: Outside, inside: str) -> None:
    """Each step is checked like the first."""
    with pytest.raises(RefusedUrl):
        await fetch(guard, outside.url(f"/redirect?to={inside}"))


async def test_a_redirect_to_an_allowed_place_is_followed_and_a_loop_ends(guard: Egress, outside: Outside) -> None:
    """Redirects work, five at most."""
    assert await fetch(guard, outside.url("/redirect?to=/image.png")) == PNG
    with pytest.raises(InvalidField, match="redirects"):
        await fetch(guard, outside.url("/loop"))


async def test_huge_endless_and_slow_bodies_are_cut(guard: Egress, outside: Outside) -> None:
    """Neither memory nor time is the server's to spend."""
    with pytest.raises(TooLarge):
        await fetch(guard, outside.url("/endless"))
    with pytest.raises(TooLarge):
        await fetch(guard, outside.url("/image.png"), limit=100)
    with pytest.raises(UpstreamTimeout):
        await fetch(guard, outside.url("/slow"), timeout_s=0.3)


@pytest.mark.parametrize(("code", "kind"), [(404, InvalidField), (403, InvalidField), (500, UpstreamFailed)])
async def test_what_is_no_file_is_an_error(guard: Egress, outside: Outside, code: int, kind: type[MoaError]) -> None:
    """The caller's fault and the server's are told apart: only the latter may pass."""
    with pytest.raises(kind):
        await fetch(guard, outside.url(f"/status/{code}"))


async def test_only_the_allowed_port_of_an_allowed_host_is_open(guard: Egress, outside: Outside) -> None:
    """An allowance is as narrow as it is written."""
    with pytest.raises(RefusedUrl):
        await fetch(guard, f"http://127.0.0.1:{outside.port - 1}/")


async def test_a_post_arrives_and_does_not_follow_redirects(guard: Egress, outside: Outside) -> None:
    """The receiver's status comes back; a redirect is an answer like any other."""
    assert await guard.post(outside.url("/hook"), headers={"x": "y"}, body=b"hello", timeout_s=PATIENCE_S) == 200
    assert await guard.post(outside.url("/hook?status=503"), headers={}, body=b"again", timeout_s=PATIENCE_S) == 503
    assert outside.hits == ["hello", "again"]


async def test_a_receiver_that_is_away_is_a_passing_failure(guard: Egress) -> None:
    """Nobody listens: worth another try."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        away = Egress([f"127.0.0.1:{port}"])
        with pytest.raises(UpstreamFailed):
            await away.post(f"http://127.0.0.1:{port}/", headers={}, body=b"", timeout_s=PATIENCE_S)
        await away.aclose()
