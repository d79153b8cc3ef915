"""`python -m bench.http_clients`: what HTTP clients take to ask a provider, and which answers they read right.

The gateway's, and those that are installed where this runs (aiohttp, httpx, niquests, pyqwest, aiosonic) ask the
bench's upstream in turns: whole answers, streams as fast as they go, streams that trickle as models write, and whole
answers over HTTP/2, which Envoy in front of the upstream speaks (and HTTP/1.1 at the same port, to compare with). What
is told is CPU of this process, threads included, medians of the rounds. Then each reads answers in every framing, and
through a proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import uvloop
from yarl import URL

from bench import paced
from bench.upstream import TOKENS
from deploy.local.ports import Ports
from services.catalogue import Timeouts
from services.providers.http.client import Outgoing, Pool

WHOLE: Final = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Say hello."}],"max_tokens":256}'
STREAM: Final = WHOLE[:-1] + b',"stream":true}'
PACED: Final = STREAM.replace(b"hello", b"hello " + paced.WORD)
HEADERS: Final = {"Authorization": "Bearer sk-bench", "Content-Type": "application/json"}
CONNECTIONS: Final = 16
TRICKLING: Final = 100
"""Streams at once that trickle."""
_PATIENCE_S: Final = 5.0

Read = Callable[[str, bytes], AsyncIterator[bytes]]
"""Yields an answer's bytes as they come."""


@asynccontextmanager
async def gateway(*, two: bool, proxy: str) -> AsyncIterator[Read]:
    """The gateway's own way: aiohttp's connections and parser without its session."""
    if two:
        raise NotImplementedError
    pool = Pool(Timeouts(connect_s=_PATIENCE_S), proxy=proxy or None)

    async def read(url: str, body: bytes) -> AsyncIterator[bytes]:
        reply = await pool.send(Outgoing(URL(url), body, HEADERS), HEADERS)
        try:
            while piece := await reply.read_some():
                yield piece
        finally:
            reply.close()

    yield read
    await pool.close()


@asynccontextmanager
async def aiohttp(*, two: bool, proxy: str) -> AsyncIterator[Read]:
    """With a session set up as lean as it can be."""
    if two:
        raise NotImplementedError
    lib = importlib.import_module("aiohttp")
    connector = lib.TCPConnector(limit=0, keepalive_timeout=60)
    how = {"timeout": lib.ClientTimeout(total=None, sock_connect=5), "cookie_jar": lib.DummyCookieJar()}
    async with lib.ClientSession(connector=connector, auto_decompress=False, read_bufsize=2**18, **how) as session:

        async def read(url: str, body: bytes) -> AsyncIterator[bytes]:
            async with session.post(url, data=body, headers=HEADERS, proxy=proxy or None) as answer:
                while piece := await answer.content.readany():
                    yield piece

        yield read


@asynccontextmanager
async def httpx(*, two: bool, proxy: str) -> AsyncIterator[Read]:
    """Over httpcore."""
    lib = importlib.import_module("httpx")
    how = {"limits": lib.Limits(max_connections=None), "timeout": None, "proxy": proxy or None}
    async with lib.AsyncClient(http1=not two, http2=two, **how) as client:

        async def read(url: str, body: bytes) -> AsyncIterator[bytes]:
            async with client.stream("POST", url, content=body, headers=HEADERS) as answer:
                async for piece in answer.aiter_raw():
                    yield piece

        yield read


@asynccontextmanager
async def niquests(*, two: bool, proxy: str) -> AsyncIterator[Read]:
    """Over urllib3-future."""
    lib = importlib.import_module("niquests")
    pools = {"pool_connections": 4, "pool_maxsize": 2 * TRICKLING}
    how = {"disable_http1": two, "disable_http2": not two, "disable_http3": True, **pools}
    async with lib.AsyncSession(**how) as session:
        session.proxies = {"http": proxy} if proxy else {}

        async def read(url: str, body: bytes) -> AsyncIterator[bytes]:
            answer = await session.post(url, data=body, headers=HEADERS, stream=True)
            async for piece in await answer.iter_raw(-1):
                yield piece

        yield read


@asynccontextmanager
async def pyqwest(*, two: bool, proxy: str) -> AsyncIterator[Read]:
    """Over reqwest, in threads of Rust."""
    lib = importlib.import_module("pyqwest")
    version = lib.HTTPVersion.HTTP2 if two else lib.HTTPVersion.HTTP1
    how = {"proxy": lib.Proxy(proxy)} if proxy else {}
    async with lib.HTTPTransport(http_version=version, **how) as transport:
        client = lib.Client(transport)

        async def read(url: str, body: bytes) -> AsyncIterator[bytes]:
            async with client.stream("POST", url, headers=HEADERS, content=body) as answer:
                async for piece in answer.content:
                    yield bytes(piece)

        yield read


@asynccontextmanager
async def aiosonic(*, two: bool, proxy: str) -> AsyncIterator[Read]:
    """Pure Python."""
    lib = importlib.import_module("aiosonic")
    pools = {":default": {"size": 2 * TRICKLING, "max_conn_requests": None}}
    connector = lib.TCPConnector(pool_configs=pools, http2=two)
    async with lib.HTTPClient(connector, proxy=lib.Proxy(proxy) if proxy else None, http2=two) as client:

        async def read(url: str, body: bytes) -> AsyncIterator[bytes]:
            answer = await client.post(url, data=body, headers=HEADERS)
            if answer.chunked:
                async for piece in answer.read_chunks():
                    yield piece
            else:
                yield await answer.content()

        yield read


CLIENTS: Final[dict[str, Any]] = {
    each.__name__: each for each in (gateway, aiohttp, httpx, niquests, pyqwest, aiosonic)
}


def _chunks(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
_CHUNKED: Final = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_SAID: Final = b"hello there"
FRAMINGS: Final[dict[str, tuple[bytes, bytes | None]]] = {
    "length": (_OK + b"Content-Length: 11\r\n\r\nhello there", _SAID),
    "chunked": (_CHUNKED + _chunks(b"hello", b" there"), _SAID),
    "extension": (_CHUNKED + b"5;a=b\r\nhello\r\n6\r\n there\r\n0\r\n\r\n", _SAID),
    "trailers": (_CHUNKED + _chunks(b"hello", b" there", end=b"0\r\nX-Sum: 1\r\n\r\n"), _SAID),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + _OK + b"Content-Length: 11\r\n\r\nhello there", _SAID),
    "hints": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + _CHUNKED + _chunks(_SAID), _SAID),
    "to the end": (_OK + b"Connection: close\r\n\r\nhello there", _SAID),
    "cut chunks": (_CHUNKED + b"b\r\nhello", None),
    "no last chunk": (_CHUNKED + _chunks(_SAID, end=b""), None),
    "cut length": (_OK + b"Content-Length: 11\r\n\r\nhello", None),
}
"""Answers, written byte by byte, and what they say; None: they are cut off, and must not look whole."""


async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request in the framing that its path names, or, of a proxy's request, say that it came."""
    head = await reader.readuntil(b"\r\n\r\n")
    target = head.split(b" ", 2)[1].decode()
    _, _, length = head.lower().partition(b"content-length:")
    await reader.readexactly(int(length.partition(b"\r\n")[0] or 0))
    if head.startswith(b"CONNECT") or target.startswith("http://"):
        answer = _OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nproxy"
    else:
        answer = FRAMINGS[list(FRAMINGS)[int(target[1:])]][0]
    for place in range(len(answer)):
        writer.write(answer[place : place + 1])
        await writer.drain()
    writer.close()


async def framings(client: Any, port: int) -> dict[str, str]:
    """Return how a client reads each framing: `right`, or what it makes of it."""
    found = {}
    for place, (name, (_, expected)) in enumerate(FRAMINGS.items()):
        found[name] = await _read_one(client, f"http://127.0.0.1:{port}/{place}", "", expected)
    found["proxy"] = await _read_one(client, "http://provider.invalid/v1", f"http://127.0.0.1:{port}", b"proxy")
    return found


async def _read_one(client: Any, url: str, proxy: str, expected: bytes | None) -> str:
    try:
        async with asyncio.timeout(_PATIENCE_S), client(two=False, proxy=proxy) as read:
            said = b"".join([piece async for piece in read(url, WHOLE)])
    except TimeoutError:
        return "hangs"
    except Exception as error:
        return "right" if expected is None else type(error).__name__
    return "right" if said == expected else ("looks whole" if expected is None else repr(said))


async def measured(read: Read, url: str, body: bytes, at_once: int, seconds: float) -> tuple[float, float]:
    """Return CPU of an event or a whole answer in microseconds, and how many came a second."""
    until, done = time.perf_counter() + seconds, 0

    async def asks() -> None:
        nonlocal done
        while time.perf_counter() < until:
            events = 0
            async for piece in read(url, body):
                events += piece.count(b"data: ")
            if body is not WHOLE and events < min(TOKENS, paced.TOKENS):
                raise SystemExit(f"a stream was cut: {events} events")
            done += events or 1

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(asks() for _ in range(at_once)))
    return 1e6 * (time.process_time() - cpu) / done, done / (time.perf_counter() - began)


@asynccontextmanager
async def _upstreams() -> AsyncIterator[tuple[str, str]]:
    """Run the cheap upstream, and Envoy in front of it, which speaks both versions of HTTP; yield their URLs."""
    pipe = asyncio.subprocess.PIPE
    direct = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.upstream", stdout=pipe)
    assert direct.stdout is not None
    port, front = int(await direct.stdout.readline()), Ports().any()
    with tempfile.TemporaryDirectory(prefix="moa-http-") as folder:
        config = Path(folder) / "envoy.yaml"
        config.write_text(_ENVOY.format(front=front, port=port))
        envoy = os.environ.get("ENVOY") or str(Path(sys.executable).parent / "envoy")
        line = [envoy, "-c", str(config), "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"]
        proxy = await asyncio.create_subprocess_exec(*line)
        try:
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", front)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
            yield f"http://127.0.0.1:{port}/v1/chat/completions", f"http://127.0.0.1:{front}/v1/chat/completions"
        finally:
            for process in (proxy, direct):
                process.terminate()
                await process.wait()


_ENVOY: Final = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {front}}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: up}}}}]}}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: up
    type: STATIC
    load_assignment:
      cluster_name: up
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}
"""


async def bench(rounds: int, seconds: float) -> None:
    """Measure, and print the tables."""
    installed = {
        name: client for name, client in CLIENTS.items() if client is gateway or importlib.util.find_spec(name)
    }
    if missing := CLIENTS.keys() - installed.keys():
        print(f"not installed here, and left out: {', '.join(sorted(missing))}")
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    async with _upstreams() as (direct, front):
        kinds = {
            "whole": (direct, WHOLE, CONNECTIONS, False),
            "stream": (direct, STREAM, CONNECTIONS, False),
            "trickle": (direct, PACED, TRICKLING, False),
            "whole, Envoy": (front, WHOLE, CONNECTIONS, False),
            "whole, HTTP/2": (front, WHOLE, CONNECTIONS, True),
        }
        for _ in range(rounds):
            for kind, (url, body, at_once, two) in kinds.items():
                for name, client in installed.items():
                    try:
                        async with client(two=two, proxy="") as read:
                            await measured(read, url, body if body is not PACED else STREAM, at_once, 0.1)
                            found.setdefault((name, kind), []).append(await measured(read, url, body, at_once, seconds))
                    except NotImplementedError:
                        continue
                    except Exception as error:
                        print(f"{name}, {kind}: {type(error).__name__}: {error}", file=sys.stderr)
    print(f"{'CPU us (how many a second)':<28}" + "".join(f"{kind:>18}" for kind in kinds))
    for name in installed:
        cells = []
        for kind in kinds:
            values = found.get((name, kind))
            cells.append(f"{median(v[0] for v in values):.0f} ({median(v[1] for v in values):.0f})" if values else "-")
        print(f"{name:<28}" + "".join(f"{cell:>18}" for cell in cells))
    server = await asyncio.start_server(play, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for name, client in installed.items():
        wrong = {k: v for k, v in (await framings(client, port)).items() if v != "right"}
        print(f"{name}: {wrong or 'reads all framings right'}")
    server.close()


def main() -> None:
    """Read the options, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    options = parser.parse_args()
    uvloop.run(bench(options.rounds, options.seconds))


if __name__ == "__main__":
    main()
