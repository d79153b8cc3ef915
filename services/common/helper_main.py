"""The helper process of a service: `python -m services.common.helper_main SOCKET` works on its large requests."""

from __future__ import annotations

import faulthandler
import functools
import gc
import pickle
import signal
import socket
import struct
import sys
import traceback
from typing import Any

from services.common import low_priority, memory
from services.common.errors import MoaError
from services.common.helper_process import HEADER, Packed, Raised, Unforeseen


def main() -> None:
    """Work on what comes until the service closes its end."""
    # Ctrl-C reaches every process of the terminal; this one ends with its service.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    memory.give_back_freed()
    gc.freeze()
    link = socket.socket(fileno=int(sys.argv[1]))
    while (head := _received(link, HEADER.size)) is not None:
        asked_bytes, data_bytes = HEADER.unpack(head)
        asked, data = _received(link, asked_bytes), _received(link, data_bytes)
        if asked is None or data is None:
            return
        holder = [data]
        del data  # it is freed with the work that takes it
        _send(link, _answer(asked, holder))


def _send(link: socket.socket, answer: Packed) -> None:
    """Send an answer, of which nothing is kept here: the next request may be a while in coming."""
    sizes = answer.sizes
    link.sendall(HEADER.pack(len(answer.pickled), len(sizes)) + struct.pack(f">{len(sizes)}Q", *sizes))
    link.sendall(answer.pickled)
    answer.buffers.reverse()
    while answer.buffers:
        with answer.buffers.pop().raw() as data:
            link.sendall(data)


def _answer(asked: bytes, holder: list[bytes]) -> Packed:
    result: Any
    try:
        work, args, kwargs = pickle.loads(asked)  # noqa: S301  # from the service that started this process
        _yield_to_small_requests()
        result = work(holder.pop(), *args, **kwargs)
    except MoaError as error:
        result = Raised.of(error)
    except Exception:
        result = Unforeseen(traceback.format_exc())
    return Packed(result)


@functools.cache
def _yield_to_small_requests() -> None:
    """Let the service and whoever it calls have the processor before a large request, from the first one on.

    Not before: a busy machine would take half a minute to import what the work needs.
    """
    # A fifth of a normal share where all processors work: with a third, a small chat's p95 was 2.5 to 3.4 times that
    # of quiet beside four pictures of 8 MB; with a fifth 1.2 to 1.8, and a tenth made it no better.
    low_priority.yield_to_others(7)


def _received(link: socket.socket, size: int) -> bytes | None:
    """Return so many bytes, which are copied once, by the kernel; None when the service is gone."""
    parts = []
    while size:
        try:
            part = link.recv(size, socket.MSG_WAITALL)
        except ConnectionError:
            return None
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


if __name__ == "__main__":
    main()
