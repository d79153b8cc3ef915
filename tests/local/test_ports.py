"""Nobody is given another's port, and every process says which one it cannot have, and ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.local.ports import Ports
from deploy.local.stack import REPOSITORY
from deploy.local.supervisor import Spec, started
from deploy.local.topology import EDGE, PROCESSES, Process
from services.auth.migrations import migrate
from tests import forking


@pytest.mark.parametrize("variable", ["MOA_LISTEN", "MOA_METRICS_PORT"])
@pytest.mark.parametrize("process", [p for p in PROCESSES if p is not EDGE], ids=lambda process: process.name)
def test_a_taken_port(process: Process, variable: str, database_url: str, tmp_path: Path) -> None:
    """Somebody else's port ends a process with a sentence that names it: no trace, and nothing hangs."""
    migrate(database_url)
    ports = Ports()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        environment = {
            **os.environ,
            "PYTHONPATH": f"{REPOSITORY / 'gen'}:{REPOSITORY}",
            "MOA_SERVICE_TOKEN": "a-service-token-for-tests",
            "MOA_KEY_PEPPER": "pepper-of-the-tests",
            "MOA_DATABASE_URL": database_url,
            "MOA_STATE_DIR": str(tmp_path / "state"),
            "MOA_STORE_DIR": str(tmp_path / "objects"),
            "MOA_PUBLIC_URL": "http://127.0.0.1",
            "MOA_DRAIN_S": "0",
            "MOA_PUBLIC_LISTEN": f"127.0.0.1:{ports.any()}",
            "MOA_LISTEN": f"127.0.0.1:{ports.any()}",
            "MOA_METRICS_PORT": str(ports.any()),
        }
        environment[variable] = address if variable == "MOA_LISTEN" else address.rpartition(":")[2]
        log = tmp_path / "log"
        # To import torch for a process that ends before it would takes longer than its start.
        start = started if process.module == "inference" else forking.spawn
        spec = Spec(name="one", module=process.module, environment=environment, log=log)
        with log.open("wb") as output:
            assert start(spec, REPOSITORY, output).wait() == 1
    told = log.read_text()
    assert f"cannot listen on {address}" in told
    assert "Traceback" not in told


CHOOSER = """
import sys
from deploy.local.ports import Ports
ports = []
try:
    while len(ports) < int(sys.argv[1]):
        ports.append(Ports().any())
except OSError as error:
    print(error, file=sys.stderr)
print(*ports, flush=True)
sys.stdin.read()
"""


def _choosing(count: int, folder: Path) -> subprocess.Popen[str]:
    """Start a process that chooses ports, as many as it can get, prints them and stays until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", CHOOSER, str(count)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _chosen(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(port) for port in process.stdout.readline().split()]


def test_two_that_choose_at_once_choose_apart(tmp_path: Path) -> None:
    """A port that was chosen and not bound yet is given to nobody else, in the process or in another."""
    with _choosing(250, tmp_path) as first, _choosing(250, tmp_path) as second:
        chosen = [*_chosen(first), *_chosen(second)]
    assert len(chosen) == len(set(chosen)) == 500
    assert all(20_000 <= port < 32_000 for port in chosen)


def test_the_ports_of_a_killed_process_come_back(tmp_path: Path) -> None:
    """While a process has every port another is told that there is none; after kill -9 it gets them."""
    with _choosing(12_001, tmp_path) as greedy:
        assert len(_chosen(greedy)) > 10_000
        assert _choosing(1, tmp_path).communicate() == ("\n", "no free port\n")
        greedy.kill()
        greedy.wait()
        with _choosing(1, tmp_path) as patient:
            assert len(_chosen(patient)) == 1


def test_a_preferred_port_is_given_once(tmp_path: Path) -> None:
    """Two gateways that start at once and want the documented port do not both get it, though neither has bound it."""
    wanted = next(
        port for port in iter(Ports().any, None) if port % 100
    )  # the claim of a block is a claim of its first
    chooser = CHOOSER.replace("Ports().any()", f"Ports().preferring({wanted})")
    first, second = Ports(), Ports()
    assert first.preferring(wanted) == wanted
    assert second.preferring(wanted) != wanted
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", chooser, "1"]
    stranger = subprocess.run(
        command, cwd=REPOSITORY, env=environment, input="", capture_output=True, text=True, check=True
    )
    assert int(stranger.stdout) != wanted
    first.close()
    assert second.preferring(wanted) == wanted


def test_a_reserved_port_is_held_while_its_server_is_away() -> None:
    """Nobody can bind a reserved port, also past lingering connections, before its server listens or after it died."""
    ports = Ports()
    held, unused = ports.reserve(ports.any), ports.reserve(ports.any)
    port = held.getsockname()[1]
    # Whoever closes first keeps the port busy for a minute: the caller does, from a port of its own.
    server = (
        "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.listen(); c = s.accept()[0];"
        " c.send(b'here'); c.recv(1)"
    )

    def stranger() -> None:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port))

    stranger()
    for _ in range(2):
        command = [sys.executable, "-c", server, str(held.fileno())]
        with subprocess.Popen(command, pass_fds=(held.fileno(),)) as process, socket.socket() as caller:
            while caller.connect_ex(("127.0.0.1", port)):
                assert process.poll() is None
                time.sleep(0.01)
            assert caller.recv(4) == b"here"
        stranger()
    free = unused.getsockname()
    ports.close()
    # Not the port that was served at: what its server's end left of a connection keeps it for a minute.
    with socket.create_server(free):
        pass
