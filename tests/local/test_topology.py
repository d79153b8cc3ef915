"""The table of processes."""

from __future__ import annotations

from deploy.local.topology import DATABASE, PROCESSES, callers_first


def test_callers_stop_first() -> None:
    """Nobody is stopped while somebody who calls it still runs; the edge is first and the database last."""
    order = list(callers_first())
    at = {name: place for place, group in enumerate(order) for name in group}
    assert set(at) == {process.name for process in PROCESSES} | {DATABASE}
    for process in PROCESSES:
        assert all(at[process.name] < at[callee] for callee in process.calls.values())
    assert order[0] == {"edge"}
    assert at[DATABASE] == max(at.values())


def test_calls_name_processes() -> None:
    """Whoever is called is in the table."""
    known = {process.name for process in PROCESSES} | {DATABASE}
    assert {callee for process in PROCESSES for callee in process.calls.values()} <= known
