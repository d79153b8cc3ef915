"""Credits: held when a task is created, charged or released in the transaction that ends it.

How many an account was granted in all, auth knows; what became of them is known here.
The ledger's unique (reference, kind) makes each step happen at most once, whatever is tried again.
"""

from __future__ import annotations

from services.common.errors import NoCredit
from services.tasks.adapters.database import Link
from services.tasks.domain.task import SUCCEEDED, Task

_ENTRY = "insert into tasks.credit_entries (account_id, kind, reference, micros) values (%s, %s, %s, %s)"


async def know(link: Link, account_id: str, granted_micros: int) -> None:
    """Note how many credits the account was granted in all, as auth says; make its row where there is none."""
    await link.execute(
        "insert into tasks.accounts (account_id, granted_micros) values (%s, %s) on conflict (account_id) "
        "do update set granted_micros = excluded.granted_micros "
        "where tasks.accounts.granted_micros <> excluded.granted_micros",
        (account_id, granted_micros),
    )


async def hold(link: Link, task: Task) -> None:
    """Set a task's price aside. Raises NoCredit when that much is not free."""
    if not task.price_micros:
        return
    done = await link.execute(
        "update tasks.accounts set held_micros = held_micros + %(price)s where account_id = %(account)s "
        "and granted_micros - spent_micros - held_micros >= %(price)s returning 1",
        {"price": task.price_micros, "account": task.account_id},
    )
    if not await done.fetchone():
        raise NoCredit("not enough credits")
    await link.execute(_ENTRY, (task.account_id, "hold", task.id, task.price_micros))


async def close(link: Link, task: Task) -> None:
    """Charge an ended task's price when it succeeded, else release it. Part of the transaction that ends it."""
    if not task.price_micros:
        return
    charged = task.consumed_micros if task.state == SUCCEEDED else 0
    await link.execute(
        "update tasks.accounts set held_micros = held_micros - %s, spent_micros = spent_micros + %s "
        "where account_id = %s",
        (task.price_micros, charged, task.account_id),
    )
    kind = "charge" if task.state == SUCCEEDED else "release"
    await link.execute(_ENTRY, (task.account_id, kind, task.id, task.price_micros))
