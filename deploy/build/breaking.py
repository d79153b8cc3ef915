"""Hold the contracts against the earlier ones: those of git's main and of the last commits that changed them.

On main itself, as in continuous integration, main is what is being checked; so the comparison is with the states that
the history holds. An incompatible change is a `v2`.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from deploy.build.protos import REPOSITORY, compile_protos

NOT_RUN: Final = 77
"""The exit code of a check that could not be made; its last line says why."""

STATES: Final = 20
"""The earlier commits that changed the contracts and are compared with."""


def _git(repository: Path, *arguments: str) -> bytes | None:
    done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def earlier(repository: Path) -> list[tuple[str, str]]:
    """Return the earlier states of `proto/`, newest first: a commit, and the id of its tree of contracts."""
    log = _git(repository, "log", f"-{STATES}", "--format=%h", "--", "proto") or b""
    results: dict[str, str] = {}
    for commit in ("main", "origin/main", *log.decode().split()):
        tree = _git(repository, "rev-parse", "--verify", "--quiet", f"{commit}:proto")
        if tree is not None:
            results.setdefault(tree.decode().strip(), commit)
    return [(commit, tree) for tree, commit in results.items()]


def compare(repository: Path, tree: str, now: Path) -> int:
    """Return buf's exit code for the contracts `now`, held against those of git's tree."""
    archive = _git(repository, "archive", "--format=zip", tree)
    assert archive is not None
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(io.BytesIO(archive)) as packed:
            packed.extractall(Path(scratch) / "proto")
        before = Path(scratch) / "before.binpb"
        compile_protos(Path(scratch) / "proto", before)
        buf = [str(Path(sys.executable).with_name("buf")), "breaking", str(now), "--against", str(before)]
        return subprocess.run([*buf, "--config", str(REPOSITORY / "buf.yaml")], cwd=repository, check=False).returncode


def check(repository: Path, now: Path) -> int:
    """Return 0 when the contracts `now` break none of the repository's earlier states; say which one they break."""
    if _git(repository, "rev-parse", "--is-shallow-repository") != b"false\n":
        print("buf breaking: git has no history here (no repository, or a shallow clone: git fetch --unshallow)")
        return NOT_RUN
    states = earlier(repository)
    broken = [commit for commit, tree in states if compare(repository, tree, now) != 0]
    if broken:
        print(f"buf breaking: callers of the contracts of {', '.join(broken)} would break (above)", file=sys.stderr)
        return 1
    print(f"buf breaking: compatible with {len(states)} earlier states")
    return 0


if __name__ == "__main__":
    raise SystemExit(check(REPOSITORY, REPOSITORY / "build" / "moa.binpb"))
