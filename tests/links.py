"""Links between processes that can fail: each goes through a proxy of the test's, which cuts it, or slows it down."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from deploy.local.supervisor import Spec, Started
from tests import forking

PART_BYTES = 4096


class Link:
    """One way from a process to another's port."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._cut = False
        self._pause_s = 0.0
        self._open: set[asyncio.StreamWriter] = set()
        self._lock = threading.Lock()
        self.address = ""
        self.loop: asyncio.AbstractEventLoop | None = None

    async def listen(self) -> None:
        """Begin to take connections."""
        self.loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Take no more connections; in the loop that it listens in."""
        self._server.close()

    def cut(self) -> None:
        """End every connection, and take no other that lives."""
        self._do(self._end_all)

    def slow(self, bytes_a_second: int) -> None:
        """Carry so much a second in each direction of each connection."""
        self._pause_s = PART_BYTES / bytes_a_second

    def mend(self) -> None:
        """Carry everything again, as fast as it comes."""
        self._cut, self._pause_s = False, 0.0

    def _do(self, act: object) -> None:
        assert self.loop is not None
        done = threading.Event()

        def run() -> None:
            act()  # type: ignore[operator]
            done.set()

        self.loop.call_soon_threadsafe(run)
        assert done.wait(20)

    def _end_all(self) -> None:
        self._cut = True
        for writer in self._open:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(writer.transport.abort)
            if self._cut:
                return
            try:
                far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
            except OSError:
                return
            stack.callback(far_writer.transport.abort)
            both = {writer, far_writer}
            self._open |= both
            stack.callback(self._open.difference_update, both)
            ways = [
                asyncio.create_task(self._carry(reader, far_writer)),
                asyncio.create_task(self._carry(far_reader, writer)),
            ]
            _, rest = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in rest:
                way.cancel()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(PART_BYTES):
                if self._pause_s:
                    await asyncio.sleep(self._pause_s * len(data) / PART_BYTES)
                writer.write(data)
                await writer.drain()


class Links:
    """The links of processes, each made when the process that uses it is started.

    Args:
        through: By the caller's kind, the variables with the addresses that it reaches through links.
    """

    def __init__(self, through: Mapping[str, tuple[str, ...]]) -> None:
        self._through = through
        self._made: dict[tuple[str, str], Link] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @contextlib.contextmanager
    def carrying(self) -> Iterator[Links]:
        """Carry while the block runs."""
        self._thread.start()
        try:
            yield self
        finally:
            for link in self._made.values():
                self._loop.call_soon_threadsafe(link.close)
            asyncio.run_coroutine_threadsafe(_end_others(), self._loop).result(20)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def between(self, caller: str, address: str) -> Link:
        """Return the link from a process to another's address."""
        return self._made[caller, address]

    def spawn(self, spec: Spec, folder: Path, output: BinaryIO) -> Started:
        """Start a process as a supervisor does, with links in place of addresses."""
        environment = dict(spec.environment)
        for variable in self._through.get(spec.name.partition("-")[0], ()):
            there = environment[variable].split(",")
            environment[variable] = ",".join(self._link(spec.name, address).address for address in there)
        return forking.spawn(replace(spec, environment=environment), folder, output)

    def _link(self, caller: str, address: str) -> Link:
        known = self._made.get((caller, address))
        if known is None:
            known = self._made[caller, address] = Link(address)
            asyncio.run_coroutine_threadsafe(known.listen(), self._loop).result(20)
        return known


async def _end_others() -> None:
    """End every task of this loop but this one."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)
