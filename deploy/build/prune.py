"""Leave out of a lock file what `requirements/unused.txt` names, and what only those ask for."""

from __future__ import annotations

import re
import sys
from pathlib import Path

UNUSED = Path(__file__).resolve().parents[2] / "requirements" / "unused.txt"
_NAME = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==")


def prune(lock: str, unused: set[str]) -> str:
    """Return a lock file as pip-compile writes it (with its `# via` comments) without the packages of `unused`.

    A package that was asked for by left-out ones alone is left out too; what an input file names stays.
    """
    head, blocks = _parted(lock)
    gone = {name for name, _ in blocks} & unused
    while True:
        also = {
            name
            for name, lines in blocks
            if name not in gone and (asking := _asking(lines)) and all(each in gone for each in asking)
        }
        if not also:
            break
        gone |= also
    kept = [_without(lines, gone) for name, lines in blocks if name not in gone]
    return "".join([*head, *(line for lines in kept for line in lines)])


def _parted(lock: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the lines before the first package, and each package's name and lines."""
    head: list[str] = []
    blocks: list[tuple[str, list[str]]] = []
    for line in lock.splitlines(keepends=True):
        if result := _NAME.match(line):
            blocks.append((result[1], [line]))
        elif blocks:
            blocks[-1][1].append(line)
        else:
            head.append(line)
    return head, blocks


def _asking(lines: list[str]) -> list[str]:
    """Return who asks for a package: other packages, and input files as `-r NAME`; constraints (`-c`) do not ask."""
    comments = "".join(line.strip().removeprefix("#") + "\n" for line in lines if line.startswith("    #"))
    dependants = comments.partition("via")[2].replace(",", "\n").splitlines()
    return [each.strip() for each in dependants if each.strip() and not each.strip().startswith("-c")]


def _without(lines: list[str], gone: set[str]) -> list[str]:
    """Return a package's lines without the left-out packages in its list of who asks."""
    return [line for line in lines if not (line.startswith("    #   ") and line[8:].strip() in gone)]


def main() -> int:
    """Prune the lock files that are named."""
    unused = {line.split()[0] for line in UNUSED.read_text().splitlines() if line and not line.startswith("#")}
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(prune(path.read_text(), unused))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
