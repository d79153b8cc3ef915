"""Processes of a gateway that are forked from one that has imported what all of them need."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local import forking, forkserver
from deploy.local.attendant import MADE, SERVES, Attendant
from deploy.local.database import DatabaseError
from deploy.local.forked import Forked
from deploy.local.forking import Forks
from deploy.local.readiness import NotReady
from deploy.local.stack import REPOSITORY, StackError
from deploy.local.supervisor import Spec, Supervisor
from deploy.local.topology import EDGE, PROCESSES
from tests import waiting
from tests.suite.test_forking import MODULE, told

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks with pidfds, which Linux has")
PYTHON = {"PYTHONPATH": f"{REPOSITORY / 'gen'}{os.pathsep}{REPOSITORY}"}
SECRET = "sk-of-one-alone"
Run = Callable[[str, dict[str, str]], psutil.Process]


@pytest.fixture
def forks() -> Iterator[Forks]:
    result = Forks()
    yield result
    result.renew()


@pytest.fixture
def ended() -> list[tuple[str, int]]:
    """What ended, and how."""
    return []


@pytest.fixture
def run(tmp_path: Path, forks: Forks, ended: list[tuple[str, int]]) -> Iterator[Run]:
    """Yield what starts a process that sleeps, under a supervisor, and returns once it runs."""
    supervisor = Supervisor(tmp_path, on_death=lambda *how: ended.append(how), start=forks.spawn)

    def started(name: str, more: dict[str, str]) -> psutil.Process:
        log = tmp_path / f"{name}.log"
        environment = {**PYTHON, "WANTED": "sleep", "FD": "0", **more}
        supervisor.start(Spec(name=name, module=MODULE, environment=environment, log=log))
        assert told(log)[0] == environment
        return psutil.Process(supervisor.pid(name))

    yield started
    supervisor.close()


def test_each_has_its_own_variables_and_none_of_the_others(run: Run) -> None:
    """One server forks them all, whose own variables, which stay in their memory, hold no secret; each has a name."""
    first, second = run("one", {"OPENAI_API_KEY": SECRET}), run("two", {})
    server = first.parent()
    assert server is not None
    assert server == second.parent()
    for process in (server, first, second):
        assert SECRET not in Path(f"/proc/{process.pid}/environ").read_text()
    assert [process.name() for process in (first, second)] == ["moa-one", "moa-two"]


def test_all_trust_the_certificates_that_the_gateway_was_told_to_trust(run: Run) -> None:
    """Contexts of TLS are made by imports, in the server."""
    ours = {"SSL_CERT_FILE": "/etc/company.pem", "SSL_CERT_DIR": "/etc/company", "OPENSSL_CONF": "/dev/null"}
    server = run("one", ours).parent()
    assert server is not None
    assert ours.items() <= server.environ().items()


def test_their_server_reads_the_catalogue_and_forks_their_helpers(tmp_path: Path, forks: Forks) -> None:
    """Each process would import and parse alone. A helper is told no variable of its service's; a catalogue that was
    changed since is read anew."""
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_bytes((REPOSITORY / "gateway" / "catalogue.yaml").read_bytes())
    variables = {**PYTHON, "MOA_CATALOGUE": str(catalogue), "WANTED": "0", "FD": "0"}
    how = {"sibling": True, "size": 1_000_000, "secret": False, "models": True}
    for name, parsed in (("one", False), ("two", True)):
        spec = Spec(name=name, module="tests.local.asking", environment=variables, log=tmp_path / name)
        with spec.log.open("ab") as output:
            assert forks.spawn(spec, REPOSITORY, output).wait() == 0
        assert json.loads(spec.log.read_text()) == {**how, "parsed": parsed}
        catalogue.write_bytes(catalogue.read_bytes() + b"\n")


def test_new_code_is_for_later_ones(run: Run, forks: Forks) -> None:
    """Those that run go on, and their server ends with the last of them."""
    first = run("one", {})
    before = first.parent()
    assert before is not None
    forks.renew()
    second = run("two", {})
    assert second.parent() != before
    assert first.is_running()
    first.kill()
    before.wait(60)
    assert second.is_running()


def test_changed_code_is_not_mixed_with_what_was_loaded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is started again after an update, which nobody has brought in yet, has one state of the code."""
    monkeypatch.setattr(forking, "BEGUN_S", 0.0)
    first, second = run("one", {}), run("two", {})
    assert first.parent() == second.parent()
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "new.py").touch()
    assert run("three", {}).parent() != first.parent()


def test_a_server_that_was_killed_is_replaced(run: Run, ended: list[tuple[str, int]]) -> None:
    """Its processes end with it, as their supervisor hears, and are forked from another."""
    first = run("one", {})
    server = first.parent()
    assert server is not None
    server.kill()
    first.wait(60)
    pauses = waiting.pauses()
    while not ended:
        time.sleep(next(pauses))
    assert ended == [("one", -signal.SIGTERM)]
    assert run("two", {}).parent() != server


def test_where_no_server_can_be_had_a_process_starts_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start is slower then, and no less a start."""

    def none_left(*_: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(socket, "socketpair", none_left)
    spec = Spec(name="one", module=MODULE, environment={**PYTHON, "WANTED": "0", "FD": "0"}, log=tmp_path / "log")
    with spec.log.open("ab") as output:
        assert Forks().spawn(spec, tmp_path, output).wait() == 0
    assert told(spec.log)[0] == spec.environment


def test_a_server_that_cannot_be_started_leaves_no_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: Forks
) -> None:
    """Each try makes a pair: a supervisor that tries for hours would run out of descriptors."""

    def refused(*_: object, **__: object) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(subprocess, "Popen", refused)
    monkeypatch.setattr(forking, "started", lambda *_: None)
    spec = Spec(name="one", module=MODULE, environment=PYTHON, log=tmp_path / "log")
    held: list[socket.socket] = []  # or the collector would close them
    make = socket.socketpair

    def kept(*how: int) -> tuple[socket.socket, socket.socket]:
        held.extend(pair := make(*how))
        return pair

    monkeypatch.setattr(socket, "socketpair", kept)
    with (tmp_path / "log").open("wb") as output:
        forks.spawn(spec, tmp_path, output)
    assert held
    assert [end.fileno() for end in held] == [-1] * len(held)


def test_the_edge_is_started_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It outlives a server that is killed, so that requests wait at it for the services."""
    monkeypatch.setattr(forking, "started", lambda spec, *_: spec.name)
    spec = Spec(name=EDGE.name, module=EDGE.module, environment=PYTHON, log=tmp_path / "log")
    with spec.log.open("ab") as output:
        made: object = Forks().spawn(spec, tmp_path, output)
    assert made == EDGE.name


def test_what_is_loaded_before_is_what_every_service_loads() -> None:
    """Else one would have metrics of a part that it does not use, and memory for nothing."""
    for process in PROCESSES:
        if process.serves_grpc:
            sources = (REPOSITORY / process.module.replace(".", "/")).rglob("*.py")
            code = "".join(source.read_text() for source in sources if "tests" not in source.parts)
            assert all(module in code for module in forkserver.PRELOADED), process.name
    assert not any(library.startswith(("services", "moa", "inference")) for library in forkserver.LIBRARIES)


def test_settings_that_are_loaded_before_make_no_metric() -> None:
    """Each service has those of all, and would have their metrics; what all services load may have some."""
    check = (
        "import importlib; from deploy.local import forkserver; from prometheus_client import REGISTRY\n"
        "def loaded(modules):\n"
        "    list(map(importlib.import_module, modules)); return sorted(each.name for each in REGISTRY.collect())\n"
        "assert loaded(forkserver.PRELOADED) == loaded(forkserver.SETTINGS)"
    )
    subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY, env={**os.environ, **PYTHON}, timeout=60, check=True)


def test_an_attendant_does_what_the_launcher_would_load_libraries_for(run: Run, forks: Forks) -> None:
    """It tells what came of it; one that was killed is replaced, and where none can be had the launcher does it. Who
    waits for it is told when that is no use any more, as when a process died at its start."""
    run("one", {})
    made: list[Forked] = []

    def forked(orders: socket.socket) -> None:
        made.append(forks.attendant(orders))

    def alive() -> None:
        raise StackError("it ended at its start")

    asking, url = Attendant(forked), "postgresql://nobody@/none?host=/nowhere"
    for _ in "12":
        with pytest.raises(NotReady, match="the database moa cannot be made"):
            asking(MADE, url, "moa", alive=lambda: None)
        with pytest.raises(StackError, match="at its start"):
            asking(SERVES, "127.0.0.1:1", time.monotonic() + 60, None, alive=alive)
        made[-1].kill()
        made[-1].wait()
    assert len(made) == 2
    asking.close()
    with pytest.raises(DatabaseError, match="the database moa cannot be made"):
        Attendant(Forks().attendant)(MADE, url, "moa", alive=lambda: None)
