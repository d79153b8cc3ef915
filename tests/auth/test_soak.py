"""Exactness under kill -9: a small run of `tests.auth.soak`, and disconnects at every point of a stream."""

from __future__ import annotations

from pathlib import Path

from tests.auth.asking import audited, reserve, settle, until
from tests.auth.conftest import Admit, Auth
from tests.auth.holder import TOKENS
from tests.auth.soak import Plan, run


async def test_a_run_with_kills_is_exact(tmp_path: Path) -> None:
    """With a replica and a router killed -9, the database restarted midway, and a quarter of the callers leaving,
    the ledger equals the invoice, to the nano-dollar, and a team's dollars and a budget by tag are counted exactly."""
    plan = Plan(requests=120, room=48)
    outcome = await run(plan, tmp_path)
    assert outcome.answered + outcome.refused > 0
    assert outcome.left > 0
    assert outcome.unmatched == []
    assert outcome.charged <= outcome.invoiced
    assert outcome.mispriced == []
    assert outcome.by_tag[0] == outcome.by_tag[1] > 0
    assert outcome.outstanding == 0
    assert outcome.filled == outcome.room_left
    assert 0 <= outcome.spare < TOKENS


async def test_a_stream_cut_anywhere_is_charged_what_was_delivered(auth: Auth, admit: Admit) -> None:
    """Settlements as after a cut at ten points: the ledger has each to the token (real streams: e2e/test_invoice)."""
    account, _, key = await auth.account()
    admission = await admit(auth)
    invoice = 0
    for delivered in range(0, 100, 10):
        reservation = await reserve(admission, key, 100)
        if delivered:
            settle(reservation, delivered)
        else:
            reservation.release()
        invoice += delivered
    await until(lambda: auth.spent(account) == (invoice, 0))
    await admission.stop()
    await audited(auth.url)
