"""Lock files without what nothing of ours reaches."""

from __future__ import annotations

import re

from deploy.build.prune import UNUSED, prune
from deploy.local.stack import REPOSITORY

LOCK = """\
# made by a tool
console==1 \\
    --hash=sha256:1
    # via hub
colours==1 \\
    --hash=sha256:2
    # via
    #   -c base.txt
    #   console
hub==2 \\
    --hash=sha256:3
    # via -r in.in
shared==3 \\
    --hash=sha256:4
    # via
    #   console
    #   hub
"""


def test_what_only_the_left_out_ask_for_is_left_out() -> None:
    """A console goes with its colours; what another package or an input file asks for stays, with its hashes."""
    assert prune(LOCK, {"console"}) == LOCK[:17] + LOCK[LOCK.index("hub==2") :].replace("    #   console\n", "")
    assert prune(LOCK, set()) == LOCK


def test_the_locks_are_pruned() -> None:
    """What is said to be unused is in no lock of what runs, and those hold seventy packages at most, without those that
    torch alone asks for (requirements/inference.in)."""
    unused = {line.split()[0] for line in UNUSED.read_text().splitlines() if line and not line.startswith("#")}
    names: set[str] = set()
    for lock in ("base", "web", "inference"):
        text = (REPOSITORY / "requirements" / f"{lock}.txt").read_text()
        names.update(re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.MULTILINE))
        assert prune(text, unused) == text
    of_torch = {"mpmath", "networkx", "setuptools", "sympy"}
    assert of_torch < names
    assert len(names - of_torch) <= 70
