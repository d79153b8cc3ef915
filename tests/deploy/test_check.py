"""The gates of `make check`: each is run whatever the others say, within its time, and told in one table."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from deploy.build import advisories, check, licences, tools
from deploy.build.breaking import NOT_RUN
from deploy.build.breaking import check as hold_contracts
from deploy.build.check import Gate, Result
from deploy.build.protos import REPOSITORY, compile_protos


def gate(name: str, program: str, limit_s: float = 60.0) -> Gate:
    return Gate(name=name, line=(sys.executable, "-c", program), limit_s=limit_s)


PASSED = gate("good", "print('fine')")
FAILED = gate("bad", "import sys; print('one fault'); sys.exit(3)")
UNRUN = gate("away", f"import sys; print('no engine'); sys.exit({NOT_RUN})")
ABSENT = Gate(name="absent", line=("/no/such/program",))


def test_all_gates_run_and_one_failure_fails_the_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failing gate stops no later one; the table has each with its result, and the exit code is the sum."""
    monkeypatch.setattr(check, "gates", lambda *_: (FAILED, ABSENT, UNRUN, PASSED))
    assert check.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    rows = {
        line.split()[0]: line
        for line in lines[next(at for at, line in enumerate(lines) if line.startswith("gate ")) :]
        if line
    }
    assert "FAILED   one fault" in rows["bad"]
    assert "FAILED" in rows["absent"]
    assert "not run  no engine" in rows["away"]
    assert "passed   fine" in rows["good"]
    assert lines[-1] == "failed: bad, absent"


def test_a_gate_that_was_not_run_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a check cannot be made, that is told, and the others decide."""
    monkeypatch.setattr(check, "gates", lambda *_: (UNRUN, PASSED))
    assert check.main([]) == 0


@pytest.mark.timeout(300)  # seconds of CPU, more where the cores are shared
def test_a_gate_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    """At its limit a gate fails, and neither it nor its children stay."""
    pid = tmp_path / "pid"
    child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    program = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); "
        f"open({str(pid)!r}, 'w').write(str(p.pid)); print('begun', flush=True); p.wait()"
    )
    for limit_s in (1, 4, 16, 64):
        got = check.run(gate("slow", program, limit_s=limit_s))
        assert (got.word, got.outcome, got.failed) == ("FAILED", f"not done after {limit_s} s", True)
        if pid.exists() and pid.read_text():
            break  # else the machine is too busy to begin anything in that time
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(pid.read_text())).wait(timeout=30)


def test_every_gate_of_the_check_is_named_once() -> None:
    """The table's rows can be told apart, and the tests are the last of them."""
    names = [each.name for each in check.gates()]
    assert len(set(names)) == len(names)
    assert names[-1] == "tests"


def test_table_cuts_long_words() -> None:
    """A row stays a row whatever a program says."""
    row = check.table([Result(name="x", seconds=1.0, word="FAILED", outcome="y" * 500, failed=True)]).splitlines()[-1]
    assert len(row) < 140


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=folder, check=True)


def contract(folder: Path, fields: str) -> Path:
    """Write a contract into a repository; return its descriptor set."""
    text = f'syntax = "proto3";\npackage t.v1;\nmessage M {{\n{fields}\n}}\n'
    (folder / "proto" / "t").mkdir(parents=True, exist_ok=True)
    (folder / "proto" / "t" / "t.proto").write_text(text)
    compile_protos(folder / "proto", folder / "now.binpb")
    return folder / "now.binpb"


def test_contracts_are_held_against_those_that_main_had(tmp_path: Path) -> None:
    """On main itself, all committed: what was added stays compatible, what an earlier commit had may not go."""
    git(tmp_path, "init", "-q", "-b", "main")
    contract(tmp_path, "string a = 1;\nstring b = 2;")
    for now, fields in (
        (0, "string a = 1;\nstring b = 2;"),
        (0, "string a = 1;\nstring b = 2;\nstring c = 3;"),
        (1, "string a = 1;\nstring c = 3;"),
    ):
        made = contract(tmp_path, fields)
        git(tmp_path, "add", "proto")
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x")
        assert hold_contracts(tmp_path, made) == now
    contract(tmp_path, "string a = 1;\nstring c = 3;\nstring d = 4;")
    assert hold_contracts(tmp_path, tmp_path / "now.binpb") == 1


def test_without_history_contracts_are_not_compared(tmp_path: Path) -> None:
    """A copy without git's history says that nothing was compared."""
    assert hold_contracts(tmp_path, contract(tmp_path, "string a = 1;")) == NOT_RUN


@pytest.mark.parametrize(
    ("licence", "permitted"),
    [
        ("MIT", True),
        ("(Apache-2.0 OR BSD-3-Clause) AND MIT", True),
        ("GPL-2.0-only OR MIT", True),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception", True),
        ("LGPL-3.0-only", True),
        ("GPL-3.0-only", False),
        ("MIT AND AGPL-3.0-or-later", False),
        ("Proprietary", False),
        ("", False),
    ],
)
def test_licences(licence: str, permitted: bool) -> None:
    """Every part must be permitted, of alternatives one; what is unknown is not."""
    assert licences.permitted(licence) == permitted


def test_a_locked_package_that_is_not_installed_is_told() -> None:
    """No licence is taken for granted."""
    assert list(licences.refusals({"no-such-package-here", "protobuf"})) == [
        "no-such-package-here: locked and not installed, so its licence cannot be read"
    ]


def test_advisories_are_counted() -> None:
    """A report's vulnerabilities are lines; packages of which the index says nothing are counted apart."""
    two = [{"id": "PYSEC-1", "fix_versions": ["2"]}, {"id": "X", "fix_versions": []}]
    report = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": two},
            {"name": "b", "version": "1", "vulns": []},
            {"name": "c", "skip_reason": "Dependency not found"},
        ]
    }
    found = advisories.read(report)
    assert (found.audited, found.untold) == (2, 1)
    assert found.lines == ("a 1: PYSEC-1, mended in 2", "a 1: X, mended in none")


def test_missing_tools_are_told_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A developer reads which program is missing, what for, and the one command that installs all."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def present(*names: str) -> None:
        for name in names:
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)

    present("make", "git", "curl", "jq", "node", "npm")
    assert tools.main([]) == 1
    told = capsys.readouterr().err
    assert "chromium is missing; it is for the console" in told
    assert told.splitlines()[-1] == "Debian, Ubuntu: apt-get install --no-install-recommends g++ chromium pgbouncer"
    # And where no package manager can bring them, installing fails rather than going on without.
    assert tools.main(["--install"]) == 1
    present("g++", "chromium")
    assert tools.main(["--install"]) == 0, "a tool that is not needed has nothing installed for it alone"
    capsys.readouterr()


def test_a_tool_that_is_not_needed_keeps_no_other_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the packages have no PgBouncer, those that checking needs are installed without it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    asked: list[list[str]] = []

    def install(wanted: Sequence[tools.Tool]) -> bool:
        asked.append([tool.package for tool in wanted])
        return "pgbouncer" not in asked[-1]

    monkeypatch.setattr(tools, "install", install)
    assert tools.main(["--install"]) == 1
    assert asked[0] == [*asked[1], "pgbouncer"]


def test_continuous_integration_refuses_skips(tmp_path: Path) -> None:
    """`.ci/run` installs the tools and checks with `CI=true`, by which a test that skips for lack of a tool fails."""
    (tmp_path / ".ci").mkdir()
    script = shutil.copy(REPOSITORY / ".ci" / "run", tmp_path / ".ci")
    for name in ("python3", "make"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $* CI=$CI"\n')
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["python3 -m deploy.build.tools --install CI=true", "make check CI=true"]
