"""What so many edits of nine megabytes at once add to the memory of the router and the image service, at their peak.

`measure` gives each in megabytes for pictures of each size, `grown` for so many pictures.
The provider is one that takes each request whole and answers when it has all of them, so that all are under way
together. Run as a module, it prints a line for each size.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import psutil
import uvloop

from deploy.local.stack import Stack

SIZES: Final = (1, 4, 8)
PICTURE_BYTES: Final = 9 * 2**20
WATCHED: Final = ("router", "image")
PROCESSES: Final = ("auth", *WATCHED, "edge")
MODEL: Final = "gpt-image-1"


def picture(size_bytes: int = PICTURE_BYTES) -> bytes:
    """Return a PNG of one pixel and so many bytes, which nothing makes smaller."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(4)))
    filling = chunk(b"prVt", os.urandom(size_bytes))
    return b"\x89PNG\r\n\x1a\n" + head + filling + pixels + chunk(b"IEND", b"")


async def _serve() -> None:
    """Take each request, a piece at a time, and answer as many together as were announced by a GET of `/N`."""
    answer = json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(picture(100)).decode()}]}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    wanted, waiting = 1, 0
    all_here = asyncio.Event()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal wanted, waiting
        heading = (await reader.readuntil(b"\r\n\r\n")).lower()
        sent = answer
        if heading.startswith(b"get /v1/models"):
            sent = b'{"object":"list","data":[]}'
        elif heading.startswith(b"get "):
            wanted, waiting = int(heading.split()[1].lstrip(b"/")), 0
            all_here.clear()
        else:
            left = int(heading.partition(b"content-length:")[2].partition(b"\r\n")[0])
            while left:
                left -= len(await reader.read(min(left, 2**18)))
            waiting += 1
            if waiting == wanted:
                all_here.set()
            await all_here.wait()
        writer.write(head % len(sent) + sent)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def provider() -> Iterator[str]:
    """Run the provider; yield its base URL."""
    command = [sys.executable, "-m", "bench.growth_pictures", "--provider"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # a program of ours
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


class Peak:
    """The most memory that a process held since this was made, over what it held then. Its children are apart."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        (self._folder / "clear_refs").write_text("5")
        self._before = self._bytes("VmRSS")

    def _bytes(self, key: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

    def grown_mb(self) -> float:
        """Return it in megabytes."""
        return (self._bytes("VmHWM") - self._before) / 2**20


async def _edited(direct: str, url: str, key: str, count: int, size_bytes: int = PICTURE_BYTES) -> None:
    data = picture(size_bytes)
    headers = {"Authorization": f"Bearer {key}"}

    async def one(session: aiohttp.ClientSession) -> None:
        form = aiohttp.FormData()
        form.add_field("model", MODEL)
        form.add_field("prompt", "a sea")
        form.add_field("response_format", "b64_json")
        form.add_field("image", io.BytesIO(data), filename="a.png", content_type="image/png")
        async with session.post(f"{url}/v1/images/edits", data=form, headers=headers) as answer:
            if answer.status != 200:
                raise SystemExit(f"an edit was refused: {answer.status} {(await answer.text())[:300]}")
            await answer.read()

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
        async with session.get(f"{direct}/{count}"):
            pass
        await asyncio.gather(*(one(session) for _ in range(count)))


def environment(direct: str) -> dict[str, str]:
    """Return what a gateway is given whose provider is there."""
    return {"OPENAI_BASE_URL": f"{direct}/v1", "OPENAI_API_KEY": "sk-bench", "MOA_LOG_LEVEL": "warning"}


def grown_in(stack: Stack, direct: str, size: int, size_bytes: int = PICTURE_BYTES) -> dict[str, float]:
    """Return by how many megabytes each watched process of a gateway grew at its peak with `size` edits under way.

    Their pictures have so many bytes.
    """
    uvloop.run(_edited(direct, stack.url, stack.api_key, 1))  # what is made once is made
    pids = {name: pid for name in WATCHED if (pid := stack.pid(name)) is not None}
    peaks = {name: Peak(pid) for name, pid in pids.items()}
    uvloop.run(_edited(direct, stack.url, stack.api_key, size, size_bytes))
    found = {name: round(peak.grown_mb(), 1) for name, peak in peaks.items()}
    return found | {f"beside {name}": round(_resident_mb(pid), 1) for name, pid in pids.items()}


def grown(size: int, size_bytes: int = PICTURE_BYTES) -> dict[str, float]:
    """Return that of a gateway of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="moa-bench-") as folder,
        provider() as direct,
        Stack(Path(folder), environment=environment(direct), processes=PROCESSES) as stack,
    ):
        return grown_in(stack, direct, size, size_bytes)


def _resident_mb(pid: int) -> float:
    """Return what a process's children hold: those beside it that work on its large requests."""
    return float(sum(child.memory_info().rss for child in psutil.Process(pid).children()) / 2**20)


def measure(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Return for each size of a picture by how many megabytes each watched process grew with eight edits under way."""
    found = [grown(SIZES[-1], size) for size in sizes]
    return [{name: max(1.0, each[name]) for name in WATCHED} for each in found]


def main() -> None:
    """Print each process's growth for each size."""
    if sys.argv[1:2] == ["--provider"]:
        uvloop.run(_serve())
        return
    for size in [int(given) for given in sys.argv[1:]] or SIZES:
        print(f"{size} edits of {PICTURE_BYTES >> 20} MB:", grown(size), flush=True)


if __name__ == "__main__":
    main()
