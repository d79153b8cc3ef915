"""`make run` as a stranger uses it: start, paste the three commands, Ctrl-C, start again, kill -9."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
import requests

from deploy.local import keep
from deploy.local.ports import Ports
from deploy.local.stack import REPOSITORY
from tests import waiting

PATIENCE_S = 110
"""A busy machine takes its time; what hangs is told before the test's own limit."""


class Launched:
    """A launcher in a process of its own, which ends with this one however that ends, and what it has said."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.local.child", str(os.getpid()), "deploy.local"],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "PYTHONPATH": f"{REPOSITORY / 'gen'}:{REPOSITORY}",
                "MOA_HOME": str(home),
                "MOA_DRAIN_S": "1",
                "MOA_TORCH_THREADS": "1",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""

    def until_ready(self) -> str:
        """Read until the greeting is out."""
        return self.until("Ctrl-C")

    def until(self, part: str) -> str:
        """Read up to a line that has something in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if part in line:
                return self.said
        raise AssertionError(self.said + self.rest()[1])

    def rest(self) -> tuple[str, str]:
        """Wait for the end; give what was still said."""
        return self.process.communicate(timeout=PATIENCE_S)

    def end(self) -> None:
        """Have it end, with all that it started, whatever its test came to."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.rest()
            except subprocess.TimeoutExpired:
                # What it started ends with it.
                self.process.kill()
                self.rest()

    def family(self) -> list[int]:
        """List the ids of the processes that it started and that live."""
        found = []
        for status in Path("/proc").glob("[0-9]*/environ"):
            try:
                mine = f"MOA_HOME={self.home}".encode() in status.read_bytes()
            except OSError:
                continue
            if mine and int(status.parent.name) != self.process.pid:
                found.append(int(status.parent.name))
        found += [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]
        postmaster = self.home / "postgres" / "postmaster.pid"
        return [*{*found}, *([int(postmaster.read_text().split()[0])] if postmaster.exists() else [])]


class Launch(Protocol):
    """Starts a launcher."""

    def __call__(self, home: Path, **environment: str) -> Launched: ...


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start launchers, which end with the test."""
    with ExitStack() as running:

        def go(home: Path, **environment: str) -> Launched:
            launched = Launched(home, **environment)
            running.callback(launched.end)
            return launched

        yield go


def opened(home: Path) -> list[Path]:
    """List what in a state folder others than its owner have any right on; the database's own folder is closed."""
    found = [home, *(path for path in home.rglob("*") if home / "postgres" not in path.parents)]
    opened = []
    for path in found:
        # Some go meanwhile: what was to be shown once has been shown.
        with suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            if stat.S_IMODE(mode) & 0o077 and not stat.S_ISLNK(mode):
                opened.append(path)
    return opened


def ends(pids: list[int]) -> list[int]:
    """Return descriptors that are readable once their processes have ended; of those that live still."""
    found = []
    for pid in pids:
        # The database's sessions come and go.
        with suppress(ProcessLookupError):
            found.append(os.pidfd_open(pid))
    return found


def commands(said: str) -> list[str]:
    """Return the commands of the greeting as a person would paste them."""
    return re.findall(r"^curl .*?(?=\n\n)", said, re.MULTILINE | re.DOTALL)


def pasted(command: str, folder: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(300)  # a whole gateway by `make run`, slower where the cores are shared
def test_life_of_a_gateway(tmp_path: Path, launch: Launch) -> None:
    """A first start shows a key once; its commands work; nobody else reads its files; a second start knows it all."""
    home, port = tmp_path / "home", str(Ports().any())
    first = launch(home, MOA_PORT=port, MOA_LARGE_ROUTERS="1")
    said = first.until_ready()
    kept = keep.read(home / "dev.env")
    assert kept["MOA_URL"] == f"http://127.0.0.1:{port}"
    assert said.count(kept["MOA_API_KEY"]) == 1
    assert opened(home) == []

    chat, text, picture = commands(said)
    lines = pasted(chat, tmp_path).splitlines()
    assert lines[-2:] == ["data: [DONE]", ""] or "data: [DONE]" in lines
    # However many words a message has: a busy machine sends several in one.
    streamed = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert "".join(choice["delta"].get("content") or "" for each in streamed for choice in each["choices"])
    assert json.loads(pasted(text, tmp_path))["response"]
    pasted(picture, tmp_path)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG\r\n")

    # What large requests have to themselves is started with the first of them, which others answer.
    own = home / "logs" / "largerouter.log"
    assert not own.exists()
    body = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    large: dict[str, Any] = {
        "url": f"{kept['MOA_URL']}/v1/chat/completions",
        "data": json.dumps(body) + " " * 300_000,
        "headers": {"X-API-Key": kept["MOA_API_KEY"], "Content-Type": "application/json"},
        "timeout": PATIENCE_S,
    }
    assert [requests.post(**large).status_code for _ in "12"] == [200, 200]
    first.until("starting largetext and largerouter")
    pauses = waiting.pauses()
    while not own.exists() or "rpc.finished" not in own.read_text():
        assert requests.post(**large).status_code == 200
        time.sleep(next(pauses))

    # Nobody has asked for desks yet. Without a shop's credentials, as every first installation is.
    assert not (home / "logs" / "desk.log").exists()
    health = requests.get(f"{kept['MOA_URL']}/healthcheck", timeout=PATIENCE_S)
    assert (health.status_code, health.json()["status"]) == (200, "ok"), health.text
    assert health.json()["dependencies"]["shopping"]["status"] == "not_configured"
    first.until("starting desk")

    token = re.findall(rf"http://127.0.0.1:{port}/#setup=(\S+)", said)[0]
    boss = {"email": "boss@example.com", "password": "correct horse battery"}
    claims = [
        requests.post(f"{kept['MOA_URL']}/account/setup", json={**boss, "setup_token": token}, timeout=PATIENCE_S)
        for _ in "12"
    ]
    assert [answer.status_code for answer in claims] == [200, 403]
    session = {"Authorization": f"Bearer {claims[0].json()['session_token']}"}
    assert requests.get(f"{kept['MOA_URL']}/admin/accounts", headers=session, timeout=PATIENCE_S).status_code == 200
    assert token not in "".join(log.read_text() for log in (home / "logs").iterdir())

    family = ends(first.family())
    assert len(family) >= 6
    first.process.send_signal(signal.SIGINT)
    out, err = first.rest()
    assert (first.process.returncode, err) == (0, "")
    assert out.rstrip().endswith("stopped")
    assert sorted(select.select(family, [], [], 0)[0]) == sorted(family)
    for descriptor in family:
        os.close(descriptor)

    for path in (home, home / "logs", home / "logs" / "router.log", home / "state"):
        path.chmod(0o755)
    again = launch(home, MOA_PORT=port, MOA_LARGE_ROUTERS="0")
    said = again.until_ready()
    assert kept["MOA_API_KEY"] not in said
    assert "#setup=" not in said
    assert keep.read(home / "dev.env") == kept
    assert opened(home) == []
    answer = requests.get(
        f"{kept['MOA_URL']}/providers", headers={"X-API-Key": kept["MOA_API_KEY"]}, timeout=PATIENCE_S
    )
    assert "local-text" in answer.json()["providers"]

    waits = ends(again.family())
    again.process.kill()
    again.rest()
    while waits:
        ready, _, _ = select.select(waits, [], [], PATIENCE_S)
        assert ready, "something outlived a launcher that was killed with -9"
        for descriptor in ready:
            os.close(descriptor)
        waits = [descriptor for descriptor in waits if descriptor not in ready]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("MOA_PORT", "eighty", "MOA_PORT=eighty is not a number from 1 to 65535"),
        ("MOA_PORT", "99999", "MOA_PORT=99999 is not a number"),
        ("MOA_ROUTERS", "0", "MOA_ROUTERS=0 is not a number"),
        ("MOA_LARGE_ROUTERS", "many", "MOA_LARGE_ROUTERS=many is not a number from 0 to 64"),
        ("MOA_COLOCATE", "image", "MOA_COLOCATE=image is not known; use none or text"),
        (
            "MOA_LOG_LEVEL",
            "WARNING",
            "Moa cannot start: MOA_LOG_LEVEL=WARNING is not known; use info, debug, warning or error",
        ),
    ],
)
def test_refusals_are_sentences(tmp_path: Path, launch: Launch, name: str, value: str, sentence: str) -> None:
    """What cannot start says why in one sentence, with exit code 1 and no trace."""
    launched = launch(tmp_path, **{name: value})
    _, err = launched.rest()
    assert launched.process.returncode == 1
    assert sentence in err
    assert "Traceback" not in err
