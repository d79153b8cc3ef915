"""The chart's network policies for values of one's own: a list that is emptied shuts what it was to open."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.rendered_chart import of_kind, rendered
from tests.deploy.test_chart_values import INSTALLED


def policies(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what each policy says, by its name."""
    found = rendered({**INSTALLED, "database": {"existingSecret": "here", "cidrs": ["10.20.0.0/24"]}, **values})
    return {each["metadata"]["name"]: each["spec"] for each in found if each["kind"] == "NetworkPolicy"}


def blocks(policy: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the ranges of addresses that a policy lets pods reach."""
    return [peer["ipBlock"] for rule in policy["egress"] for peer in rule["to"] if "ipBlock" in peer]


@pytest.mark.parametrize("external", [{"cidrs": []}, {"ports": []}])
def test_who_names_nowhere_opens_nothing(external: dict[str, Any]) -> None:
    """Without ranges or ports outside no pod reaches any address but the database; without readers of metrics nobody
    reads them. A rule with an empty list would be one for everybody: none is made."""
    found = policies({"networkPolicies": {"external": external, "metricsFrom": []}})
    assert len(found) > 9
    for name, policy in found.items():
        for rule in policy["egress"]:
            assert rule["to"], name
            assert rule["ports"], name
        assert all(block == {"cidr": "10.20.0.0/24"} for block in blocks(policy)), name
        for rule in policy.get("ingress", ()):
            assert rule.get("from") or name == "moa-edge"
            assert {each["port"] for each in rule["ports"]}.isdisjoint(range(8200, 8212)), name


def test_exceptions_lie_within_their_range() -> None:
    """A range of one's own has those exceptions alone that lie within it, as Kubernetes wants: the policy as a whole is
    refused otherwise."""
    ranges = ["203.0.113.0/24", "10.0.0.0/8", "10.0.0.0/7", "172.0.0.0/8", "2001:db8::/32", "f000::/4", "0::0/0"]
    found = policies({"networkPolicies": {"external": {"cidrs": ranges}}})
    made = {block["cidr"]: block.get("except") for block in blocks(found["moa-text"])}
    assert made == {
        "203.0.113.0/24": None,
        "10.0.0.0/8": None,
        "10.0.0.0/7": ["10.0.0.0/8"],
        "172.0.0.0/8": ["172.16.0.0/12"],
        "2001:db8::/32": None,
        "f000::/4": ["fc00::/7", "fe80::/10"],
        "0::0/0": ["fc00::/7", "fe80::/10"],
    }


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"dns": {"to": []}}, "dns/to': minItems"),
        ({"dns": {"ports": []}}, "dns/ports': minItems"),
        ({"extraEgress": [{"to": []}]}, "extraEgress/0/to': minItems"),
        ({"extraEgress": [{"to": [{}]}]}, "extraEgress/0/to/0': minProperties"),
        ({"extraEgress": [{"ports": [{"port": 1}]}]}, "extraEgress/0': missing property 'to'"),
        ({"extraEgress": [{"to": [{"podSelector": {}}], "ports": []}]}, "extraEgress/0/ports': minItems"),
        ({"external": {"cidrs": ["10.0.0.300/8"]}}, "'10.0.0.300/8' does not match"),
        ({"external": {"cidrs": ["2001:db8/32"]}}, "'2001:db8/32' does not match"),
        (
            {"edgeFrom": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["fc00::/7"]}}]},
            "networkPolicies.edgeFrom: except fc00::/7 is not within 0.0.0.0/0",
        ),
        (
            {"extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}]},
            "except 10.0.0.0/8 is not within 10.0.0.0/8",
        ),
    ],
)
def test_what_would_open_more_than_it_says_is_refused(values: dict[str, Any], says: str) -> None:
    """A rule to nowhere, which Kubernetes reads as one to everywhere, and a range that is none, end the install."""
    import helm_python  # see rendered_chart

    with pytest.raises(helm_python.HelmError, match=says):
        rendered({**INSTALLED, "networkPolicies": values})


def test_the_charts_database_is_reached_by_who_uses_it() -> None:
    """Accounts, tasks, their migrations, its own servers and its operator; else there is none."""
    found = {each["metadata"]["name"]: each["spec"] for each in of_kind("production", "NetworkPolicy")}
    used, own, metrics = found["moa-db"]["ingress"]
    (users,) = used["from"][0]["podSelector"]["matchExpressions"]
    assert users["values"] == ["auth", "tasks", "migrate-auth", "migrate-tasks"]
    assert [port["port"] for rule in (used, own, metrics) for port in rule["ports"]] == [5432, 5432, 8000, 9187]
    assert "moa-db" not in {each["metadata"]["name"] for each in of_kind("trial", "NetworkPolicy")}
