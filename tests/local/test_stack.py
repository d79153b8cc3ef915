"""What the launcher refuses, and in which words."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections import namedtuple
from pathlib import Path

import psycopg
import pytest

from deploy.local import backup, once, reload, words
from deploy.local.database import Database
from deploy.local.plan import shared
from deploy.local.stack import Stack, StackError
from deploy.local.topology import AUTH, DATABASE, EDGE


def test_port_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's port is named, with the way out. A database that a backup has started meanwhile is left alone."""
    monkeypatch.setattr(Database, "stop", lambda _: pytest.fail("nothing was started here"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = Stack(tmp_path, port=port, processes=["edge", "auth"])
        with pytest.raises(StackError, match=f"port {port} is in use .*MOA_PORT={port + 1} make run"):
            stack.start()


def test_one_gateway_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two gateways on one state folder would share a database: the second is refused, and the first goes on with it."""
    first = Stack(tmp_path, processes=[]).start()
    with monkeypatch.context() as patched:
        patched.setattr(Database, "stop", lambda _: pytest.fail("the database is the first one's"))
        with pytest.raises(StackError, match=r"already runs in .*MOA_HOME=…"):
            Stack(tmp_path, processes=["auth"]).start()
    first.stop()
    Stack(tmp_path, processes=[]).start().stop()


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is said before anything breaks over it."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10 * 2**20))
    with pytest.raises(StackError, match="is full: 10 MB are left, 200 MB are needed"):
        Stack(tmp_path, processes=[]).start()


def test_bad_setting(tmp_path: Path) -> None:
    """A process that refuses its settings ends the start with the variable's name, not with a time-out."""
    stack = Stack(tmp_path, processes=["edge"], environment={"MOA_EDGE_WORKERS": "many"})
    with pytest.raises(StackError, match=r"edge ended at its start .*MOA_EDGE_WORKERS"):
        stack.start()
    assert stack.pid("edge") is None


def test_not_ready_in_time(tmp_path: Path) -> None:
    """A part that does not become ready is named, with its log; nothing is left running."""
    stack = Stack(tmp_path, processes=["edge"], environment={"MOA_ROUTER_ADDRESSES": "127.0.0.1:9"})
    with pytest.raises(StackError, match=r"edge is not ready: .*edge\.log"):
        stack.start(wait_s=2)
    assert stack.pid("edge") is None


def test_a_database_runs_until_its_gateway_stops(tmp_path: Path) -> None:
    """A second gateway that is refused, and a backup that has begun before the gateway, leave PostgreSQL alone. Killed
    with -9 it comes back by itself, in the same folder, and the launcher says so."""
    told: list[str] = []
    with Stack(tmp_path, processes=["auth"], durable=False, tell=told.append) as stack:
        first = stack.pid("postgres")
        assert first is not None
        with pytest.raises(StackError, match="already runs"):
            Stack(tmp_path, processes=["auth"], durable=False).start()
        backup.stop_unused(Database(tmp_path / DATABASE, follow=False), tmp_path)
        assert stack.pid("postgres") == first
        os.kill(first, signal.SIGKILL)
        until = time.monotonic() + 60
        while stack.pid("postgres") in (None, first) or not answers(stack.database_url):
            assert time.monotonic() < until, stack.log("postgres").read_text()
            time.sleep(0.05)
    assert told.count("postgres ended; starting it again") == 1
    assert stack.pid("postgres") is None


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "given", "signup"),
    [
        ("127.0.0.1", {}, "open"),
        ("::1", {}, "open"),
        ("localhost", {}, "open"),
        ("0.0.0.0", {}, "invite"),
        ("192.0.2.1", {}, "invite"),
        ("0.0.0.0", {"MOA_SIGNUP": "closed"}, "closed"),
    ],
)
def test_strangers_sign_up_on_this_machine_alone(host: str, given: dict[str, str], signup: str) -> None:
    """Who can be reached by others takes those with an invitation only, unless the operator says otherwise."""
    assert shared(host, given)["MOA_SIGNUP"] == signup
    assert "MOA_SIGNUP" in AUTH.shared


@pytest.mark.parametrize("only", ["", "edge"])
def test_a_reload_is_asked_of_who_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], only: str
) -> None:
    """`make reload` reaches the process whose gateway runs in the folder; where none does, it says so."""
    monkeypatch.setenv("MOA_HOME", str(tmp_path))
    asked: list[int] = []
    number = reload.SIGNALS[only]
    before = signal.signal(number, lambda number, _: asked.append(number))
    try:
        assert reload.main(only) == 1
        with Stack(tmp_path, processes=[]):
            assert reload.main("router") == 2
            signal.signal(number, signal.SIG_DFL)  # as of a launcher that does not know the wish: it would be ended
            assert reload.main(only) == 2
            signal.signal(number, lambda number, _: asked.append(number))
            assert reload.main(only) == 0
        assert reload.main(only) == 1
    finally:
        signal.signal(number, before)
    assert asked == [number]
    assert capsys.readouterr().err.count("no gateway runs in") == 2


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            '{"event": "started"}\nbad setting MOA_CATALOGUE: there is no such file\n',
            ": bad setting MOA_CATALOGUE: there is no such file",
        ),
        ('bad setting MOA_CATALOGUE: fixed since\n{"event": "rpc.finished"}\n', ""),
        (
            'Fatal Python error: Aborted\n\nThread 0x1 (most recent call first):\n  File "other.py", line 1 in wait\n\n'
            'Current thread 0x2 (most recent call first):\n  File "here.py", line 3 in go\n\nExtension modules: a\n',
            ": Fatal Python error: Aborted (here.py, line 3)",
        ),
        ("Fatal Python error: Aborted\n\nExtension modules: uvloop\n", ": Fatal Python error: Aborted"),
        ('Fatal Python error: Aborted\n\nExtension modules: uvloop\n{"event": "rpc.finished"}\n', ""),
    ],
)
def test_a_process_that_ends_again_says_why(tmp_path: Path, output: str, reason: str) -> None:
    """What cannot come back, as with a catalogue that went bad, is told with its reason; lines of the log are none."""
    log = tmp_path / "router.log"
    log.write_text(output)
    assert once.reason_in(log) == reason
    assert once.reason_in(tmp_path / "none.log") == ""


def test_last_words_are_of_this_start(tmp_path: Path) -> None:
    """A log goes on where the one before ended; one that is shorter by now was begun anew."""
    log = tmp_path / "edge.log"
    log.write_text("caught SIGTERM\n")
    before = log.stat().st_size
    assert once.last_line_of(log, behind=before).startswith("it gave no reason")
    with log.open("a") as more:
        more.write("no route\n")
    assert once.last_line_of(log, behind=before) == f"no route (log: {log})"
    log.write_text("anew\n")
    assert once.last_line_of(log, behind=before) == f"anew (log: {log})"


def test_a_file_of_code_that_is_broken_is_named(tmp_path: Path) -> None:
    """Of a traceback the last line tells what, and not where: the file and the line stand behind it."""
    (tmp_path / "broken.py").write_text("import json\n\ndef (:\n")
    (tmp_path / "raising.py").write_text("import broken_too\n")
    (tmp_path / "refusing.py").write_text("raise SystemExit('bad setting MOA_LISTEN: empty')\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    told = []
    for module in ("broken", "raising", "refusing"):
        with pytest.raises(once.Failed) as failed:
            once.run(module, environment=environment, folder=tmp_path)
        told.append(str(failed.value))
    assert told[0].startswith("SyntaxError: ")
    assert told[0].endswith(f"({tmp_path / 'broken.py'}, line 3)")
    assert told[1] == f"ModuleNotFoundError: No module named 'broken_too' ({tmp_path / 'raising.py'}, line 1)"
    assert told[2] == "bad setting MOA_LISTEN: empty"


@pytest.mark.parametrize(
    ("fetch", "told"), [("early", "in the background"), ("asked", "first\nasked"), ("never", "=never")]
)
def test_the_greeting_says_when_weights_are_fetched(tmp_path: Path, fetch: str, told: str) -> None:
    """As `MOA_FETCH` has it: what is never fetched is not announced."""
    stack = Stack(tmp_path, processes=[EDGE.name], environment={"MOA_FETCH": fetch})
    stack.plan.choose()
    try:
        greeting = words.ready(stack)
    finally:
        stack.plan.close()
    assert told in greeting
    assert ("in the background" in greeting) == (fetch == "early")
