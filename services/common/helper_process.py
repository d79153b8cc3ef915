"""Work on a large request in a helper process, so that the loop serves others meanwhile.

A thread would not do: reading eight megabytes of JSON, or writing them, is one call that holds the interpreter's lock
from its beginning to its end. The process starts with the first such request and ends when none has come for a while
(docs/limits.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, Final, ParamSpec, Protocol, Self, TypeVar

from google.protobuf.message import Message

from services.common import errors, logs
from services.common.byte_admission import Bounds, ByteAdmission
from services.common.cancelling import cancel_and_wait
from services.common.large import LARGE_BYTES
from services.common.rpc import call as calls

Data = bytes | memoryview
Reply = tuple[bytearray, list[bytearray]]
"""What is pickled, and the messages beside it."""
P = ParamSpec("P")
R = TypeVar("R")
HEADER: Final = struct.Struct(">QQ")
"""Before each message: the bytes of what is pickled, and of the data behind it, in which messages lie one by one."""
_WORK_S: Final = 120.0
"""How long one piece of work may take: on a busy machine, many times what it takes alone."""
_IDLE_S: Final = 60.0
_FORKED_IDLE_S: Final = 10.0
"""One that is forked has what it imports: the next costs 20 ms, and not 0.4 s."""
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "GLIBC_TUNABLES")
"""Variables that the process needs."""
_BUFFER_BYTES: Final = 1 << 20
FEW_VALUES: Final = 10_000
"""As many are read in some milliseconds, beside the bytes of their texts, for each of which it takes one call."""
_MODULE: Final = "services.common.helper_main"
_log = logs.get("helper")


class Child(Protocol):
    """A process that was started, with what is done of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit code where it has ended."""

    def kill(self) -> None:
        """End it at once."""

    def wait(self) -> int:
        """Return the exit code once it has ended."""


Fork = Callable[[str, int, Mapping[str, str]], Child]
"""Forks a process that becomes a module, inherits a descriptor, whose number is its argument, and has an environment.
Raises OSError where it cannot."""
_fork: Fork | None = None


def fork_by(fork: Fork) -> None:
    """Have this process's helper processes forked from one that has imported what they need: 20 MB less for each."""
    global _fork  # of the process, like its parent
    _fork = fork


def is_large_request(message: Message) -> bool:
    """Return whether the request of the current call is a large one.

    Its size is as it was received: to count a message's bytes is to write all of them, which takes 8 ms of a loop for
    a picture of 8 MB.
    """
    return (calls.current().request_bytes or message.ByteSize()) > LARGE_BYTES


class Packed:
    """Something pickled whose protobuf messages lie beside it, so that none is copied on its way."""

    def __init__(self, value: object) -> None:
        self.buffers: list[pickle.PickleBuffer] = []
        file = io.BytesIO()
        _Pickler(file, 5, buffer_callback=self.buffers.append).dump(value)
        self.pickled = file.getvalue()

    @property
    def sizes(self) -> list[int]:
        """The bytes of each buffer."""
        return [buffer.raw().nbytes for buffer in self.buffers]


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, Message):
            return NotImplemented
        return message_from, (type(value), pickle.PickleBuffer(value.SerializeToString()))


def message_from(kind: type[Message], data: memoryview) -> Message:
    """Return a message of a kind from a view of its bytes."""
    # Of a view Protobuf makes a copy; it parses a bytearray, as it was received into, where that lies.
    return kind.FromString(data.obj)  # type: ignore[arg-type]


class Raised(Exception):
    """What the helper process raised, as far as its callers may know it."""

    def __init__(self, kind: type[errors.MoaError], message: str, param: str, retry_after_s: float | None) -> None:
        super().__init__(kind, message, param, retry_after_s)
        self.kind = kind
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, error: errors.MoaError) -> Self:
        """Return what is told of an error: of one defined elsewhere what it is in the tree of errors."""
        kind = next(each for each in type(error).__mro__ if each.__module__ == errors.__name__)
        return cls(kind, error.message, error.param, error.retry_after_s)

    def error(self) -> errors.MoaError:
        """Return the error."""
        return self.kind(self.message, param=self.param, retry_after_s=self.retry_after_s)


class Unforeseen(Exception):
    """What went wrong in the helper process that nobody foresaw, with its traceback."""


class HelperProcess:
    """A process for the large requests of this one. They are worked on one by one, and accounts have turns.

    Args:
        large_only: Whether this process serves large requests alone: those of few values, pictures above all, are
            worked on in it, in a third of the memory.
        idle_s: After so long without work it ends; the next large request starts another. By default sooner where it is
            forked.
    """

    def __init__(self, *, large_only: bool = False, idle_s: float | None = None) -> None:
        self.large_only = large_only
        """Whether requests of few values are worked on `in_thread`."""
        usual = _IDLE_S if _fork is None else _FORKED_IDLE_S
        self._idle_s = usual if idle_s is None else idle_s
        # One at a time, whoever's; how many bytes wait is bounded before they are received.
        unbounded = 1 << 60
        self._turns = ByteAdmission(
            Bounds(served=1, served_of_account=1, waiting=unbounded, waiting_of_account=unbounded, wait_s=unbounded),
            counted=False,
        )
        self._lock = asyncio.Lock()
        self._process: _Process | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._ending: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """The process; none where none runs."""
        return self._process.pid if self._process is not None and self._process.runs else None

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return self._turns.waiting_bytes

    async def run(
        self,
        work: Callable[Concatenate[bytes, P], R],
        data: Data,
        account: str,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Return what `work(data, *args)` gives, which is done in the helper process.

        `work` is a function of a module; what it is given and gives can be pickled. Raises the MoaError that it raises,
        and Unavailable where the process does not survive it.
        """
        holder = [data]
        del data  # it is freed when it has been handed over
        async with self._turns.entered(account, 1):
            task = asyncio.create_task(self._exchange(pickle.dumps((work, args, kwargs), 5), holder))
            self._keep(task)
            # Whoever leaves meanwhile leaves the process in the middle of its work, which it ends.
            pickled, buffers = await asyncio.shield(task)
            del task
        results = pickle.loads(pickled, buffers=buffers)  # noqa: S301  # from a process of ours
        del buffers
        if isinstance(results, Raised):
            raise results.error()
        if isinstance(results, Unforeseen):
            raise results
        result: R = results
        return result

    async def in_thread(self, work: Callable[P, R], account: str, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what `work` gives, which a thread of this process does in the turns of `run`. Raises what it raises.

        Whoever is served meanwhile waits for one call of it that holds the interpreter's lock, and not for all.
        """
        async with self._turns.entered(account, 1), calls.current().turn():
            return await asyncio.to_thread(work, *args, **kwargs)

    async def _exchange(self, asked: bytes, holder: list[Data]) -> Reply:
        async with self._lock:
            if self._ending is not None:
                self._ending.cancel()
            try:
                if self._process is None or not self._process.runs:
                    await self._end_process()
                    self._process = await _Process.start()
                async with asyncio.timeout(_WORK_S):
                    answer = await self._process.exchange(asked, holder)
            except (OSError, EOFError, TimeoutError) as error:
                _log.error("helper.ended", why=type(error).__name__)
                await self._end_process()
                raise errors.Unavailable("the gateway could not process the request; try again") from None
            except BaseException:
                await self._end_process()
                raise
            self._ending = asyncio.get_running_loop().call_later(self._idle_s, self._end_idle)
            return answer

    def _end_idle(self) -> None:
        async def end() -> None:
            async with self._lock:
                await self._end_process()

        if not self._running:
            self._keep(asyncio.create_task(end()))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.end()

    async def aclose(self) -> None:
        """End the process."""
        if self._ending is not None:
            self._ending.cancel()
        await cancel_and_wait(*self._running)
        await self._end_process()


class _Process:
    """The process, and this end of the socket to it."""

    def __init__(self, process: Child, ours: socket.socket) -> None:
        self._process = process
        self._socket = ours

    @classmethod
    async def start(cls) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            ours.setblocking(False)
            try:
                process = await asyncio.to_thread(_started, theirs.fileno())
            except BaseException:
                ours.close()
                raise
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it is there."""
        return self._process.poll() is None

    async def exchange(self, asked: bytes, holder: list[Data]) -> Reply:
        """Hand over the work and its data, which is taken out of its holder; return the answer."""
        loop = asyncio.get_running_loop()
        data = holder.pop()
        await loop.sock_sendall(self._socket, HEADER.pack(len(asked), len(data)) + asked)
        await loop.sock_sendall(self._socket, data)
        del data
        size, count = HEADER.unpack(await self._received(HEADER.size))
        sizes = struct.unpack(f">{count}Q", await self._received(8 * count))
        pickled = await self._received(size)
        return pickled, [await self._received(each) for each in sizes]

    async def _received(self, size: int) -> bytearray:
        loop = asyncio.get_running_loop()
        result = bytearray(size)
        with memoryview(result) as view:
            at = 0
            while at < size:
                count = await loop.sock_recv_into(self._socket, view[at:])
                if not count:
                    raise EOFError
                at += count
        return result

    async def end(self) -> None:
        """End it: it has nothing that could be lost."""
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.to_thread(self._process.wait)


def _started(fd: int) -> Child:
    """Start the process; what it inherits is its end of the socket."""
    if _fork is not None:
        with contextlib.suppress(OSError):
            return _fork(_MODULE, fd, _environment())
    # Not the loop's own: that forks, and then gRPC's handlers of forks crash the child now and then.
    command = (sys.executable, "-m", _MODULE, str(fd))
    return subprocess.Popen(command, pass_fds=(fd,), env=_environment(), stdin=subprocess.DEVNULL)  # noqa: S603  # ours


def _environment() -> dict[str, str]:
    """Return what the process needs to find this program: no secret of the environment concerns it."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(part or os.curdir for part in sys.path)}
