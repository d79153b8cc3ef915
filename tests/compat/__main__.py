"""Run the clients as they are published against a gateway over strict fakes of three vendors; print a table.

    python -m tests.compat                    all of them
    python -m tests.compat openai-python llm  some
    python -m tests.compat lock openai        pin the newest versions of a lock

It ends with 1 where anything failed or could not be run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.compat import environments, runner, table
from tests.compat.client import OWN, VENDORS, Client
from tests.compat.clients import CLIENTS
from tests.compat.world import world


def main() -> int:
    arguments = sys.argv[1:]
    if arguments[:1] == ["lock"]:
        for name in arguments[1:]:
            environments.lock(name)
        return 0
    names = [client.name for client in CLIENTS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.compat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="CLIENT", help=", ".join(names))
    parser.add_argument("--vendor", choices=(*VENDORS, OWN), help="ask models of this vendor alone")
    parser.add_argument("--scenario", help="ask this alone")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(names):
        parser.error(f"no client {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    wanted = [client for client in CLIENTS if not given.names or client.name in given.names]
    return asyncio.run(_run([_narrowed(client, given.vendor, given.scenario) for client in wanted]))


def _narrowed(client: Client, vendor: str | None, scenario: str | None) -> Client:
    rows = {
        each: [one for one in asked if scenario in (None, one)]
        for each, asked in client.scenarios.items()
        if vendor in (None, each)
    }
    return replace(client, scenarios=rows)


async def _run(clients: Sequence[Client]) -> int:
    began = time.monotonic()
    results: list[runner.Result] = []
    with tempfile.TemporaryDirectory(prefix="moa-compat-") as folder:
        root = Path(folder)
        async with world(root / "gateway") as running:
            for client in clients:
                log = environments.FOLDER / "logs" / f"{client.name}.log"
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("wb") as file:
                    own = [result async for result in runner.run(client, running, file, root / client.name)]
                results += own
                failed = sum(1 for result in own if result.why)
                seconds = time.monotonic() - began
                print(f"{seconds:6.0f} s  {client.name}: {len(own) - failed} ok, {failed} failed", flush=True)
                for line in table.faults(own):
                    print(f"          {line}", flush=True)
    print("\n".join(("", *table.lines(results))))
    failed = sum(1 for result in results if result.why)
    print(
        f"\n{len(clients)} clients, {len(results)} scenarios, {failed} failed; what the clients said: build/compat/logs"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
