"""A reservation through the router's half and auth, with the real PostgreSQL."""

from __future__ import annotations

import asyncio

from services.quota_client import Admission
from tests.auth.asking import reserve, settle
from tests.auth.conftest import Admit, Auth
from tests.walks import documented
from tests.walks.walking import walked

_DUTIES = {
    "quota_client/_refreshing",
    "auth/domain/recalls",
    "auth/sweeper",
    *(f"auth/adapters/{name}" for name in ("paces", "tries", "answers", "retention")),
}
"""What is done now and then, and may come in the way of a walk."""


async def test_a_reservation_passes_the_modules_that_the_page_lists(auth: Auth, admit: Admit) -> None:
    """The first of a key passes the quota client and auth, its booking too; a later one, settled, the client alone."""
    admission = await admit(auth)
    # A method's first call makes its handler, and other calls may come in the way of some walks.
    walks = [await _walked(auth, admission) for _ in range(4)]
    cold, warm = (set.intersection(*parts) - _DUTIES for parts in zip(*walks, strict=True))
    assert warm == documented.walk("a warm reservation and its settlement")
    assert cold == warm | documented.walk("a cold reservation and its booking")


async def _walked(auth: Auth, admission: Admission) -> tuple[set[str], set[str]]:
    """Return what the first reservation of a new key passes until it is booked, and what a second one passes."""
    account, _, key = await auth.account()
    with walked() as cold:
        settle(await reserve(admission, key, 300), 120)
        while auth.spent(account) != (120, 0):
            await asyncio.sleep(0.02)
    with walked() as warm:
        settle(await reserve(admission, key, 300), 120)
    return cold, warm
