"""The table of processes."""

from __future__ import annotations

from deploy.local.topology import CALLERS, DATABASE, EDGE, PROCESSES, callers_first, processes_of


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


def test_who_may_call_a_process_is_who_calls_it() -> None:
    """What a process takes certificates of is what the rows say that call it; at a public port that is the edge."""
    for process in PROCESSES:
        callers = {other.certificate_name for other in PROCESSES if process.name in other.calls.values()}
        if process.public_port is not None:
            callers.remove(EDGE.name)
        if process is EDGE:
            assert CALLERS not in process.fixed
        else:
            assert set(process.fixed[CALLERS].split(",")) == callers


def test_a_colocated_text_service_is_no_process_of_its_own() -> None:
    """Each router then asks providers itself, with their credentials; the others of the table stay as they are."""
    alone, colocated = ({p.name: p for p in processes_of(given)} for given in ({}, {"MOA_COLOCATE": "text"}))
    assert tuple(alone.values()) == PROCESSES
    assert alone.keys() - colocated.keys() == {"text", "largetext"}
    assert colocated.keys() <= alone.keys()
    changed = {name for name, process in colocated.items() if process != alone[name]}
    assert changed == {"router", "largerouter", "tasks"}
    for name in changed - {"tasks"}:
        assert (colocated[name].module, colocated[name].providers) == ("services.colocated", True)
        assert "text" not in {callee.removeprefix("large") for callee in colocated[name].calls.values()}
    assert not {callee for process in colocated.values() for callee in process.calls.values()} & {"text", "largetext"}
    assert colocated["tasks"].fixed["MOA_PROVIDER_BATCHES"] == "0", "nobody is there to hand batches to providers"
