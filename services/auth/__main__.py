"""The auth process: `serve` (the default), `migrate`, `bootstrap`, `audit`, `forget-pepper`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from services.auth.adapters.accounts import Accounts
from services.auth.adapters.checker import Checker
from services.auth.adapters.key_pepper import forget_pepper, see_pepper
from services.auth.adapters.postgres import Postgres
from services.auth.domain import keys
from services.auth.domain.accounts import BYOK_LIMITS, BYOK_RULE, CEILINGS, EVERYTHING
from services.auth.migrations import SCHEMA, migrate
from services.auth.replica import Replica, serving
from services.auth.settings import AuthSettings, DatabaseSettings
from services.common import byok, logs, memory, metrics, settings
from services.common.database import refusal
from services.common.errors import Unavailable
from services.common.migrations import bring_up_to_date
from services.common.rpc.server import run

_FIRST_MICRO_CREDITS = 1_000_000 * 10**6
_INTERRUPTED = 128 + signal.SIGINT


@asynccontextmanager
async def serve(config: AuthSettings) -> AsyncIterator[Replica]:
    """Bring the schema up to date; serve until the block ends, then drain, and return what was borrowed."""
    await bring_up_to_date(config.session_url, SCHEMA)
    await asyncio.to_thread(see_pepper, config.session_url, config.key_pepper.get_secret_value().encode())
    if config.byok:
        await make_byok(config.session_url)
    metrics.serve(config)
    async with serving(config) as replica:
        logs.get("auth").info("process.started", listen=config.listen, public_listen=config.public_listen)
        yield replica


async def _run_until(stop: asyncio.Event, config: AuthSettings) -> None:
    memory.take_small_pages()
    async with serve(config):
        await stop.wait()


async def make_byok(url: str) -> None:
    """Make the account of those who bring their own key. Its key has no secret, so that nobody can present it."""
    postgres = Postgres(url, size=1)
    await postgres.open()
    await Accounts(postgres).shared(
        byok.ACCOUNT_ID, byok.KEY_ID, limits=BYOK_LIMITS, rules=[BYOK_RULE], digest=secrets.token_bytes(32)
    )
    await postgres.close()


async def bootstrap(config: DatabaseSettings) -> dict[str, str | bool]:
    """Create the first administrator and its key; what it gives holds the key, which is shown only now."""
    await asyncio.to_thread(migrate, config.session_url)
    pepper = config.key_pepper.get_secret_value().encode()
    await asyncio.to_thread(see_pepper, config.session_url, pepper)
    postgres = Postgres(config.session_url, size=1)
    await postgres.open()
    key = keys.make(pepper)
    made = await Accounts(postgres).first(
        limits=CEILINGS, rules=[EVERYTHING], key=key, micro_credits=_FIRST_MICRO_CREDITS
    )
    await postgres.close()
    if made is None:
        return {"exists": True}
    account_id, key_id = made
    return {"account_id": account_id, "key_id": key_id, "api_key": key.secret}


async def audit(config: DatabaseSettings, *, as_json: bool, whole: bool) -> bool:
    """Check the ledger and print what was found; tell whether it balances."""

    def told(at: int, last: int) -> None:
        print(f"checked up to row {at:,} of {last:,}", file=sys.stderr, flush=True)

    def looks(name: str) -> None:
        print(f"looking for: {name}", file=sys.stderr, flush=True)

    found = await Checker(config.session_url).check(whole=whole, told=told, looks=looks)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), default=str))
        return not found.faults
    for unit, sums in found.totals.items():
        print(f"{unit}: " + ", ".join(f"{name} {amount:,}" for name, amount in sums.items()))
    for name, rows in {**found.notes, **found.faults}.items():
        print(f"{name}: {len(rows)}")
        for row in rows:
            print("  " + " ".join(f"{column}={value}" for column, value in row.items() if value is not None))
    if found.faults:
        print("the ledger does NOT balance")
    else:
        print(f"the ledger balances ({found.rows:,} rows)")
    return not found.faults


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m services.auth", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve moa.quota.v1 and moa.account.v1")
    commands.add_parser("migrate", help="bring the database's schema up to date")
    first = commands.add_parser(
        "bootstrap", help="make the first administrator, or a key after forget-pepper; print it, once"
    )
    first.add_argument("--json", action="store_true", help="print one JSON object")
    check = commands.add_parser("audit", help="check that the ledger balances, and list orphans")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument(
        "--full", action="store_true", help="check everything anew, not only what was booked since the last check"
    )
    commands.add_parser(
        "forget-pepper", help="take another MOA_KEY_PEPPER at the next start: no key or session works then"
    )
    chosen = parser.parse_args(arguments)
    try:
        _run(chosen)
    except psycopg.OperationalError as error:
        raise SystemExit(f"the database cannot be reached: {str(error).splitlines()[0]}") from None
    except Unavailable as error:
        raise SystemExit(f"the database cannot be reached: {refusal() or error}") from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None


def _run(chosen: argparse.Namespace) -> None:
    if chosen.command == "migrate":
        migrate(settings.read(DatabaseSettings).session_url)
    elif chosen.command == "forget-pepper":
        forget_pepper(settings.read(DatabaseSettings).session_url)
        print("the next start takes its MOA_KEY_PEPPER for that of the database; `bootstrap` makes a first key")
    elif chosen.command == "bootstrap":
        config = settings.read(DatabaseSettings)
        logs.configure("auth", config.log_level)
        made = asyncio.run(bootstrap(config))
        if chosen.json:
            print(json.dumps(made))
        else:
            print("\n".join(f"{name}: {value}" for name, value in made.items()))
    elif chosen.command == "audit":
        config = settings.read(DatabaseSettings)
        logs.configure("auth", config.log_level)
        if not asyncio.run(audit(config, as_json=chosen.json, whole=chosen.full)):
            raise SystemExit(1)
    else:
        config = settings.read(AuthSettings)
        logs.configure("auth", config.log_level)
        run(lambda stop: _run_until(stop, config), "auth")


if __name__ == "__main__":
    main(sys.argv[1:])
