"""`make run`: start a gateway on this machine, say how to use it, stop it on Ctrl-C."""

from __future__ import annotations

import os
import queue
import signal
import sys
from pathlib import Path
from types import FrameType

from deploy.local import plan, reload, room
from deploy.local.attendant import Attendant
from deploy.local.forking import Forks
from deploy.local.logs import Limits
from deploy.local.stack import REPOSITORY, Stack, StackError
from deploy.local.topology import EDGE, EDGE_PROCESSES, LARGE_ROUTER, LARGE_TEXT, PUBLIC_PORT, ROUTER
from deploy.local.words import Steps, ready

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    # SIGINT too: a shell that runs this in the background has it ignored, and Python then leaves it so.
    for number in _ENDINGS:
        signal.signal(number, _interrupt)
    os.umask(0o077)
    wishes: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()
    for wish in reload.SIGNALS.values():
        signal.signal(wish, lambda number, _: wishes.put(signal.Signals(number)))
    steps = Steps(sys.stdout)
    code_at_start = reload.launcher_code()
    forks = Forks()
    attendant = Attendant(forks.attendant)
    try:
        stack = _stack(steps, forks, attendant)
        steps.tell(f"starting; logs are in {stack.root / 'logs'}")
        try:
            stack.start()
            print(ready(stack), flush=True)
            stack.key_was_shown()
            while True:
                _reload(stack, steps, code_at_start, only_edge=wishes.get() == reload.SIGNALS[EDGE.name])
        except StackError:
            stack.stop()
            raise
        except KeyboardInterrupt:
            for number in _ENDINGS:
                signal.signal(number, signal.SIG_IGN)
            steps.tell("stopping")
        stack.stop()
        attendant.close()
        forks.close()
    except StackError as error:
        print(f"\nMoa cannot start: {error}", file=sys.stderr)
        return 1
    steps.tell("stopped")
    return 0


def _reload(stack: Stack, steps: Steps, code_at_start: str, *, only_edge: bool) -> None:
    steps.tell("reloading")
    try:
        if only_edge:
            stack.reload_edge()
        else:
            stack.reload()
    except (StackError, OSError) as error:
        steps.tell(f"not reloaded: {error}")
    else:
        steps.tell("reloaded")
        if not only_edge and reload.launcher_code() != code_at_start:
            steps.tell(
                "the launcher itself is still that of before: stop it and `make run` again when nobody is served"
            )


def _stack(steps: Steps, forks: Forks, attendant: Attendant) -> Stack:
    # While it imports, the rest is prepared, and the database starts. Its parent is this thread, which stays.
    forks.begin(plan.at_start(os.environ), REPOSITORY)
    return Stack(
        Path(os.environ.get("MOA_HOME", REPOSITORY / ".moa")),
        port=_number("MOA_PORT", PUBLIC_PORT, 65535),
        host=os.environ.get("MOA_HOST", "127.0.0.1"),
        workers={
            ROUTER.name: _number("MOA_ROUTERS", room.workers(ROUTER.workers), 64),
            **dict.fromkeys(
                (LARGE_ROUTER.name, LARGE_TEXT.name), _number("MOA_LARGE_ROUTERS", _large_routers(), 64, least=0)
            ),
            EDGE.name: _number("MOA_EDGE_PROCESSES", room.workers(EDGE_PROCESSES), 16),
        },
        environment={
            "MOA_DRAIN_S": os.environ.get("MOA_DRAIN_S", "3"),
            "MOA_COLOCATE": _one_of("MOA_COLOCATE", "none", "text"),
            "MOA_FETCH": _one_of("MOA_FETCH", "early", "asked", "never"),
            "MOA_LOG_LEVEL": _one_of("MOA_LOG_LEVEL", "info", "debug", "warning", "error"),
        },
        logs=Limits(
            file_bytes=_number("MOA_LOG_MB", 20, 10_000) * 2**20,
            files=_number("MOA_LOG_FILES", 5, 1000),
            days=_number("MOA_LOG_DAYS", 14, 3650),
        ),
        keep_ports=True,
        postpones=True,
        tell=steps.tell,
        start=forks.spawn,
        renew=forks.renew,
        ask=attendant,
    )


def _large_routers() -> int:
    """Return how many routers take large requests apart by default: one, where memory allows more than one of each."""
    return room.workers(2) - 1


def _number(name: str, default: int, most: int, *, least: int = 1) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdigit() or not least <= int(text) <= most:
        raise StackError(f"{name}={text} is not a number from {least} to {most}")
    return int(text)


def _one_of(name: str, default: str, *others: str) -> str:
    text = os.environ.get(name) or default
    if text not in (default, *others):
        raise StackError(f"{name}={text} is not known; use {', '.join((default, *others[:-1]))} or {others[-1]}")
    return text


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
