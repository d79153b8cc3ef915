"""What processes are told of each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.local.plan import Plan
from deploy.local.stack import Stack
from deploy.local.topology import BY_NAME


def told(
    root: Path,
    names: str,
    workers: Mapping[str, int] | None = None,
    given: Mapping[str, str] | None = None,
    asked_by: Mapping[str, int] | None = None,
) -> tuple[Plan, dict[str, dict[str, str]]]:
    """Return the plan of a gateway of these processes, and the environment of each."""
    wanted, given = [BY_NAME[name] for name in names.split()], given or {}
    plan = Plan(root, port=None, host="127.0.0.1", given=given, wanted=wanted, workers=workers or {}, keep_ports=False)
    plan.choose()
    plan.asked_by.update(asked_by or {})
    try:
        return plan, {name: plan.environment(name, "") for name in plan.addresses}
    finally:
        plan.close()


def test_keys_of_the_request_log_that_are_given_come_first(tmp_path: Path) -> None:
    """The one that was made stays behind them, unless one is of its name: what it encrypted can be read."""
    name, first = "MOA_REQUEST_LOG_KEYS", f"first:{'1' * 64}"
    made = told(tmp_path, "auth")[1]["auth"][name]
    assert made.startswith("first:")
    mine = f"mine:{'2' * 64}"
    assert told(tmp_path, "auth", given={name: mine})[1]["auth"][name] == f"{mine},{made}"
    assert told(tmp_path, "auth", given={name: f"{mine}, {first}"})[1]["auth"][name] == f"{mine},{first}"
    assert told(tmp_path, "auth")[1]["auth"][name] == made


def test_large_requests_pass_processes_of_their_own(tmp_path: Path) -> None:
    """The edge is told which router takes them, that one which text service, and nobody else calls them."""
    plan, environment = told(tmp_path, "text largetext router largerouter tasks edge", {"router": 2})
    edge, large = environment["edge"], environment["largerouter"]
    assert edge["MOA_LARGE_ROUTER_ADDRESSES"] == plan.addresses["largerouter"]
    both = f"{plan.addresses['router']},{plan.addresses['router-2']}"
    assert edge["MOA_ROUTER_ADDRESSES"] == environment["tasks"]["MOA_ROUTER_ADDRESS"] == both
    assert large["MOA_TEXT_ADDRESS"] == plan.addresses["largetext"]
    assert environment["router"]["MOA_TEXT_ADDRESS"] == plan.addresses["text"]
    yields = {name: told.get("MOA_YIELDS") for name, told in environment.items()}
    assert {name for name, value in yields.items() if value} == {"largetext", "largerouter"}


@pytest.mark.parametrize(
    ("names", "edge_is_told", "asked"),
    [("text router edge", False, "text"), ("text router largerouter edge", True, "text")],
)
def test_where_they_are_not_the_usual_ones_stand_in(tmp_path: Path, names: str, edge_is_told: bool, asked: str) -> None:
    """Without a large router the edge knows of none; without its text service it asks the usual one."""
    plan, environment = told(tmp_path, names)
    assert bool(environment["edge"]["MOA_LARGE_ROUTER_ADDRESSES"]) is edge_is_told
    assert environment.get("largerouter", environment["router"])["MOA_TEXT_ADDRESS"] == plan.addresses[asked]


def test_they_are_started_where_they_are_asked_for(tmp_path: Path) -> None:
    """By a number of workers, or by name; all processes of a gateway are those that nobody can stand in for."""
    apart = {"largetext", "largerouter"}

    def wanted(**how: object) -> set[str]:
        stack = Stack(tmp_path, **how)  # type: ignore[arg-type]
        stack.plan.choose()
        try:
            return set(stack.names)
        finally:
            stack.plan.close()

    assert wanted() == set(BY_NAME) - apart
    assert wanted(workers=dict.fromkeys(apart, 0)) == set(BY_NAME) - apart
    assert wanted(workers=dict.fromkeys(apart, 1)) == set(BY_NAME)
    assert wanted(workers=dict.fromkeys(apart, 2)) == {*BY_NAME, "largetext-2", "largerouter-2"}
    assert wanted(processes=("text", "largetext")) == {"text", "largetext"}


def test_mailed_links_lead_to_the_gateway_itself(tmp_path: Path) -> None:
    """Auth, which mails links for forgotten passwords, is told the port that callers come in by, whatever it is."""
    plan, environment = told(tmp_path, "auth edge")
    assert environment["auth"]["MOA_PUBLIC_URL"] == plan.url
