"""The containers are the same system as `make run` starts."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from deploy.build import chart_settings
from deploy.build.chart import SETTINGS
from deploy.local.logs import Limits
from deploy.local.plan import LARGE_PAGES
from deploy.local.stack import REPOSITORY
from deploy.local.topology import (
    DATABASE,
    EDGE,
    HUB,
    INFERENCE,
    INTERNAL_PORT,
    NETWORK,
    PROCESSES,
    PUBLIC_PORT,
    STORE,
    Process,
)

COMPOSE: dict[str, Any] = msgspec.yaml.decode((REPOSITORY / "docker-compose.yml").read_bytes())

DOCKERFILE = (REPOSITORY / "deploy" / "container" / "Dockerfile").read_text()

each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)

TRACES = {
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_LOGS_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
}
"""Each process takes part in them."""

OURS = {"MOA_VARIABLES_SET"}
"""What every process could read, and only those that the table names are told."""


def service(process: Process) -> dict[str, Any]:
    found: dict[str, Any] = COMPOSE["services"][process.name]
    return found


def environment(process: Process) -> dict[str, str]:
    """Return what a service is told; what is passed on only where it is set is left out."""
    return {name: value for name, value in service(process)["environment"].items() if value is not None}


def test_same_services() -> None:
    """Every worker of the table is a service, and there is no other."""
    assert set(COMPOSE["services"]) == {name for process in PROCESSES for name in process.names} | {DATABASE}


@each_process
def test_same_workers(process: Process) -> None:
    """The workers of a process are alike, and services find all of them behind one name."""
    for name in process.names[1:]:
        assert COMPOSE["services"][name] == service(process)
        assert service(process)["networks"] == {"default": {"aliases": [f"{process.name}s"]}}


@each_process
def test_same_command(process: Process) -> None:
    """Each service runs the module that the launcher runs; all but inference share the image without torch."""
    assert service(process)["command"] == ["python", "-m", process.module]
    image, target = ("moa-inference", "inference") if process is INFERENCE else ("moa", "moa")
    assert service(process)["image"] == image
    assert service(process)["build"]["target"] == target
    assert f" AS {target}\n" in DOCKERFILE


@each_process
def test_each_is_asked_whether_it_serves(process: Process) -> None:
    """Each service has a health check, at the port where it serves."""
    asked = f"127.0.0.1:{process.port}" if process.serves_grpc else f"http://127.0.0.1:{INTERNAL_PORT}/ready"
    assert service(process)["healthcheck"]["test"] == ["CMD", "python", "-m", "services.common.probe", asked]


def test_logs_do_not_grow_without_end() -> None:
    """Every container's log is begun anew by size, and so many files are kept as `make run` keeps."""
    kept = Limits()
    for named in COMPOSE["services"].values():
        assert named["logging"]["driver"] == "json-file"
        options = named["logging"]["options"]
        assert options["max-size"] == f"${{MOA_LOG_MB:-{kept.file_bytes // 2**20}}}m"
        assert options["max-file"] == str(kept.files + 1)


def test_links_point_to_the_port_that_is_published() -> None:
    """Links to made images follow `MOA_PORT`, where no public address is set."""
    for process in (process for process in PROCESSES if process.store):
        default = f"http://127.0.0.1:${{MOA_PORT:-{PUBLIC_PORT}}}"
        assert environment(process)["MOA_PUBLIC_URL"] == f"${{MOA_PUBLIC_URL:-{default}}}"


@each_process
def test_same_ports(process: Process) -> None:
    """Each service listens where the table says; only the edge is published."""
    assert environment(process)["MOA_LISTEN"] == f"0.0.0.0:{process.port}"
    if process.public_port is not None:
        assert environment(process)["MOA_PUBLIC_LISTEN"] == f"0.0.0.0:{process.public_port}"
    if process is EDGE:
        assert service(process)["ports"] == [f"${{MOA_PORT:-{PUBLIC_PORT}}}:{PUBLIC_PORT}"]
        assert environment(process)["MOA_INTERNAL_LISTEN"] == f"0.0.0.0:{INTERNAL_PORT}"
    else:
        assert "ports" not in service(process)
        assert environment(process)["MOA_METRICS_PORT"] == str(process.metrics_port)


@each_process
def test_same_callees(process: Process) -> None:
    """Each service calls whom the table says, at its port, and waits for it to be started."""
    for variable, callee in process.calls.items():
        if callee == DATABASE:
            assert f"@{DATABASE}/" in environment(process)[variable]
        else:
            other = next(other for other in PROCESSES if other.name == callee)
            port = other.public_port if process is EDGE and other.public_port else other.port
            hosts = other.names if process is EDGE else [f"{callee}s" if other.workers > 1 else callee]
            assert environment(process)[variable] == ",".join(f"{host}:{port}" for host in hosts)
            assert set(other.names) <= set(service(process)["depends_on"])
        assert callee in service(process)["depends_on"]


@each_process
def test_same_variables(process: Process) -> None:
    """Each service gets the variables of the table and no others: no secret goes where it has no use."""
    expected = {"MOA_LISTEN", *TRACES, *process.shared, *process.fixed, *process.calls, *process.folders}
    if process.public_port is not None:
        expected.add("MOA_PUBLIC_LISTEN")
    if process is EDGE:
        expected |= {"MOA_INTERNAL_LISTEN", "MOA_METRICS_TARGETS", "MOA_TLS_CERT", "MOA_TLS_KEY"}
    else:
        expected |= {"MOA_METRICS_PORT", "MOA_METRICS_HOST"}
    if process.store:
        expected |= set(STORE)
    assert set(environment(process)) == expected
    assert process.fixed.items() <= environment(process).items()


@each_process
def test_what_an_operator_may_set_reaches_the_container(process: Process) -> None:
    """A setting that the README or a page of docs/ names is passed on to the process that reads it, where it is set."""
    passed_on = {name for name, value in service(process)["environment"].items() if value is None}
    of_traces = {name for name in passed_on if name.startswith("OTEL_")}
    assert of_traces | TRACES >= {*chart_settings.TRACES, *chart_settings.TRACE_SECRETS}
    passed_on -= of_traces
    assert passed_on == set(process.optional)
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    named = {name for page in pages for name in re.findall(r"MOA_[A-Z0-9_]+", page.read_text())}
    read = {f"MOA_{name}".upper() for name in SETTINGS[process.module].model_fields}
    assert (named & read) - OURS <= set(service(process)["environment"])
    assert passed_on <= read | {*NETWORK, *HUB}


@each_process
def test_same_providers(process: Process) -> None:
    """The processes that read providers' credentials get them all from one file, and no other does."""
    files = [{"path": "providers.env", "required": False}]
    assert service(process).get("env_file") == (files if process.providers else None)


def test_metrics_targets() -> None:
    """The edge finds the metrics of every other process."""
    others = [process for process in PROCESSES if process is not EDGE]
    told = environment(EDGE)["MOA_METRICS_TARGETS"].split(",")
    assert set(told) == {f"{name}={name}:{p.metrics_port}" for p in others for name in p.names}


def test_no_secret_has_a_default() -> None:
    """A secret that is not set stops compose with its name; none is written in the file."""
    text = (REPOSITORY / "docker-compose.yml").read_text()
    for name in ("MOA_SERVICE_TOKEN", "MOA_KEY_PEPPER", "POSTGRES_PASSWORD"):
        assert f"${{{name}:?" in text
        assert f"${{{name}:-" not in text


def test_ports_are_distinct() -> None:
    """No two processes of the table want one port, and all are below the range that the kernel hands out."""
    ports = [port for process in PROCESSES for port in (process.port, process.metrics_port)]
    assert len(set(ports)) == len(ports)
    assert max(ports) < 32768


def test_dockerfile_runs_every_command() -> None:
    """The images hold what the commands need: each package is copied, the stubs are generated."""
    text = DOCKERFILE
    stages = {stage.split()[0]: stage for stage in text.split(" AS ")[1:]}
    assert "deploy.build.protos" in stages["contracts"]
    for process in PROCESSES:
        stage = stages["inference" if process is INFERENCE else "moa"]
        package = process.module.partition(".")[0]
        assert f"COPY {package} {package}\n" in stage
        assert "USER moa" in stage
    assert f"ENV {'='.join(LARGE_PAGES)}\n" in stages["system"], "both images are made from it"
    assert "torch" not in stages["packages"]
    ignored = (REPOSITORY / ".dockerignore").read_text().split()
    packages = {process.module.partition(".")[0] for process in PROCESSES}
    assert not packages & set(ignored)
    for process in PROCESSES:
        for folder in process.folders.values():
            assert f"/moa/state/{folder}" in text


def test_each_has_the_certificate_of_its_process() -> None:
    """The override for TLS mounts in each service the folder of whose work it does, as it is told where that is."""
    override = msgspec.yaml.decode((REPOSITORY / "docker-compose.tls.yml").read_bytes())["services"]
    expected = {
        name: {"volumes": [f"./certificates/{process.certificate_name}:/moa/service-tls:ro"]}
        for process in PROCESSES
        for name in process.names
    }
    assert override == expected
    for name in override:
        assert {"MOA_SERVICE_TLS_DIR", "MOA_SERVICE_TLS_NAME"} <= set(COMPOSE["services"][name]["environment"])


def test_a_database_of_ones_own() -> None:
    """The override leaves PostgreSQL's container out, and whoever calls the database takes the address that is set."""
    override = msgspec.yaml.decode((REPOSITORY / "docker-compose.database.yml").read_bytes())["services"]
    assert override == {DATABASE: {"profiles": ["bundled"]}}
    for process in PROCESSES:
        if process.needs_database:
            assert environment(process)["MOA_DATABASE_URL"].startswith("${MOA_DATABASE_URL:-postgresql://")
            assert service(process)["depends_on"][DATABASE]["required"] is False


def test_files_of_settings_are_mounted() -> None:
    """The override mounts one folder in every service, and neither git nor an image takes it."""
    override = msgspec.yaml.decode((REPOSITORY / "docker-compose.files.yml").read_bytes())["services"]
    mounted = {"volumes": ["./files:/moa/files:ro"]}
    assert override == {name: mounted for process in PROCESSES for name in process.names}
    assert "/files/" in (REPOSITORY / ".gitignore").read_text().split()
    assert "files" in (REPOSITORY / ".dockerignore").read_text().split()
