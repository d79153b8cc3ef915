"""The processes of the Helm chart: those of `make run` and the containers, as each is run, told and reached."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.build import chart
from deploy.build.chart_settings import TRACE_SECRETS
from deploy.local.topology import (
    CALLERS,
    DATABASE,
    EDGE,
    INFERENCE,
    INTERNAL_PORT,
    PROCESSES,
    STORE,
    Process,
)
from services.common.rpc.health import READY
from tests.deploy.rendered_chart import (
    NAMESPACE,
    of_kind,
    pods,
)
from tests.local.test_compose import COMPOSE, TRACES

each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)


def container(process: Process) -> dict[str, Any]:
    """Return the container of a process in production, which has all of them."""
    found = dict(pods("production"))[f"moa-{process.name}"]
    (result,) = found["containers"]
    return dict(result)


def environment(process: Process) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(process)["env"]}


def test_same_processes() -> None:
    """Production has the table's processes and no other; without large requests apart, those that stand in go."""
    names = {found["metadata"]["name"] for found in of_kind("production", "Deployment", "StatefulSet")}
    assert names == {f"moa-{process.name}" for process in PROCESSES}
    names = {found["metadata"]["name"] for found in of_kind("trial", "Deployment", "StatefulSet")}
    assert names == {f"moa-{process.name}" for process in PROCESSES if not process.stands_in}


@each_process
def test_same_command_and_ports(process: Process) -> None:
    """Each runs the module and serves the ports that the launcher and the containers have."""
    found = container(process)
    assert found["command"] == COMPOSE["services"][process.name]["command"]
    ports = {process.port, INTERNAL_PORT if process is EDGE else process.metrics_port, process.public_port} - {None}
    if process.serves_grpc:
        ports.add(process.health_port)
    assert {port["containerPort"] for port in found["ports"]} == ports
    assert ("inference" in found["image"]) == (process is INFERENCE)
    asked: dict[str, Any] = {"httpGet": {"path": "/health", "port": "http", "scheme": "HTTP"}}
    ready = asked
    if process.serves_grpc:
        asked = {"grpc": {"port": process.health_port}}
        ready = {"grpc": {"port": process.health_port, "service": READY}}
    for probe, question in (("startupProbe", asked), ("readinessProbe", ready), ("livenessProbe", asked)):
        assert question.items() <= found[probe].items()


@each_process
def test_same_variables(process: Process) -> None:
    """Each is told what the containers' file tells it, and no other secret; what nobody set is not there."""
    has = {name for name, value in environment(process).items()}
    composed = COMPOSE["services"][process.name]["environment"]
    bounds = {name for name, value in composed.items() if value is None}
    optional = bounds | TRACES | set(STORE) | {*process.shared, *process.secrets, "MOA_TLS_CERT", "MOA_METRICS_TARGETS"}
    told = {*process.secrets, *TRACE_SECRETS, "MOA_EDGE_PROCESSES", "HF_HOME"}
    assert has <= set(composed) | told
    assert set(composed) - optional <= has
    secrets = {name for name, value in environment(process).items() if isinstance(value, dict)}
    assert secrets == {*chart.secrets_of(process), *TRACE_SECRETS}
    assert process.fixed.items() <= environment(process).items()
    assert ("envFrom" in container(process)) == process.providers


@each_process
def test_certificates_are_of_the_processes(process: Process) -> None:
    """Each process has the certificate of who it is, for the name by which others know it, and they alone; what stands
    in for another is known as the other."""
    told = environment(process)
    secrets = [each for each in dict(pods("production"))[f"moa-{process.name}"]["volumes"] if "secret" in each]
    (volume,) = [each for each in secrets if each["secret"]["secretName"] != "moa-credentials"]
    (mount,) = [each for each in container(process)["volumeMounts"] if each["name"] == volume["name"]]
    assert (mount["mountPath"], mount["readOnly"]) == (told["MOA_SERVICE_TLS_DIR"], True)
    (certificate,) = [
        found["spec"]
        for found in of_kind("production", "Certificate")
        if found["spec"]["secretName"] == volume["secret"]["secretName"]
    ]
    assert certificate["dnsNames"] == [told["MOA_SERVICE_TLS_NAME"].format(process.certificate_name)]
    assert {"server auth", "client auth"} <= set(certificate["usages"])
    others = {
        other.certificate_name for other in PROCESSES if other is not process and process.name in other.calls.values()
    }
    callers = set(process.fixed.get(CALLERS, "").split(",")) - {""}
    assert callers == (others - {EDGE.name} if process.public_port else others)
    assert ("MOA_HEALTH_LISTEN" in told) == process.serves_grpc


def test_without_tls_the_port_is_asked() -> None:
    """Where processes speak no TLS there is no port for health alone, and no certificate."""
    assert not of_kind("trial", "Certificate")
    for name, spec in pods("trial"):
        (found,) = spec["containers"]
        for process in PROCESSES:
            if name == f"moa-{process.name}" and process.serves_grpc:
                assert found["readinessProbe"]["grpc"] == {"port": process.port, "service": READY}
                assert not {each["name"] for each in found["env"]} & {"MOA_SERVICE_TLS_DIR", "MOA_HEALTH_LISTEN"}


@each_process
def test_same_callees(process: Process) -> None:
    """Each calls whom the table says, by the name of a service that there is, at its port."""
    services = {found["metadata"]["name"]: found for found in of_kind("production", "Service")}
    for variable, callee in process.calls.items():
        if callee == DATABASE:
            assert environment(process)[variable]["secretKeyRef"] == {"name": "moa-db-app", "key": "uri"}
            continue
        host, _, port = environment(process)[variable].partition(":")
        other = next(other for other in PROCESSES if other.name == callee)
        assert int(port) == (other.public_port if process is EDGE and other.public_port else other.port)
        name, namespace, *_ = host.split(".")
        assert (name, namespace) == (f"moa-{callee}", NAMESPACE)
        assert int(port) in [each["port"] for each in services[name]["spec"]["ports"]]
        # Every pod is known: one address in front of all would have each caller ask one of them.
        assert services[name]["spec"]["clusterIP"] == "None"


@each_process
def test_who_may_call_whom(process: Process) -> None:
    """The policies allow what the table says and nothing else; only the edge is open."""
    (policy,) = [
        found["spec"]
        for found in of_kind("production", "NetworkPolicy")
        if found["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/name") == process.name
    ]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    metrics = INTERNAL_PORT if process is EDGE else process.metrics_port
    allowed: set[tuple[str, int]] = set()
    for rule in policy["ingress"]:
        for port in rule["ports"]:
            for source in rule.get("from", [None]):
                if source is None:
                    assert (process, port["port"]) == (EDGE, process.port)
                elif "podSelector" in source:
                    allowed.add((source["podSelector"]["matchLabels"]["app.kubernetes.io/name"], port["port"]))
                else:
                    assert port["port"] == metrics
    callers = {
        (other.name, process.public_port if other is EDGE and process.public_port else process.port)
        for other in PROCESSES
        if process.name in other.calls.values()
    }
    assert allowed == callers
    reached = {
        (source["podSelector"]["matchLabels"].get("app.kubernetes.io/name", DATABASE), port["port"])
        for rule in policy["egress"]
        for source in rule.get("to", ())
        if "podSelector" in source
        for port in rule["ports"]
    }
    by_name = {other.name: other for other in PROCESSES}
    assert reached == {
        (callee, 5432)
        if callee == DATABASE
        else (callee, (process is EDGE and by_name[callee].public_port) or by_name[callee].port)
        for callee in process.calls.values()
    }


def test_private_addresses_are_not_outside() -> None:
    """Who asks providers reaches public addresses alone; who does not reaches none at all, but the collector's port."""
    outside = {}
    for found in of_kind("production", "NetworkPolicy"):
        if "Egress" not in found["spec"]["policyTypes"]:
            continue  # the database's own servers
        rules = [rule for rule in found["spec"]["egress"] if rule["ports"] != [{"port": 4317}]]
        blocks = [s["ipBlock"] for rule in rules for s in rule["to"] if "ipBlock" in s]
        outside[found["metadata"]["name"]] = blocks
        for block in blocks:
            assert block["except"]
    assert {name for name, blocks in outside.items() if not blocks} == {"moa-edge", "moa-migrate"}
