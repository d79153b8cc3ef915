"""Return whether what a costly target depends on has changed since it last passed, by content.

A target names the code that it runs. Its inputs are those files, the modules of ours that they import, directly or
through others, and the files, folders and rows of the catalogue that it reads without importing them. Packages that it
keeps apart are not followed: what is wrong there shows in other tests. `python -m
deploy.build.inputs TARGET` ends with 0 where they are as at the last pass, with 1 where they are not; `--run COMMAND …`
runs a command and, where it ends with 0, writes them down as passed. What passed is committed with the change, in
`tests/suite/passed/TARGET`.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from deploy.syntax import parsed

ROOT = Path(__file__).resolve().parents[2]
PASSED = Path("tests/suite/passed")
_SHIPPED = "../inference/models/"
_PACKAGES = ("services", "inference", "gateway", "deploy", "tests", "bench")


@dataclass(frozen=True)
class Target:
    """What a target depends on.

    Args:
        tests: The folders and files of its tests, or of its program.
        whole: Folders and files that it reads or runs without importing them.
        apart: Folders and files of which nothing counts, unless it is named above, and whose imports are not followed.
        models: A catalogue, of which the rows count whose weights ship with this repository.
    """

    tests: tuple[str, ...]
    whole: tuple[str, ...]
    apart: tuple[str, ...] = ()
    models: str = ""


TARGETS = {
    "test-training": Target(
        tests=("inference/training/tests", "tests/inference/test_bench.py", "tests/inference/test_compiler.py"),
        # Of the services, what is drawn and looked for in pictures. The rest carries requests, which changes no weight,
        # no score and no kernel: `make test` runs the same inference server, and mypy holds its callers to its names.
        whole=(
            "inference",
            "services/desk/domain/items.py",
            "requirements/inference.txt",
            "deploy/local/install_torch.py",
        ),
        apart=("services", "deploy"),
        models="gateway/catalogue.yaml",
    ),
    "containers": Target(
        tests=("deploy/container", "deploy/local/topology.py"),
        whole=(
            "docker-compose.yml",
            ".dockerignore",
            *(f"requirements/{name}.txt" for name in ("base", "web", "inference", "provenance", "uv")),
            *(f"requirements/{name}.txt" for name in ("contracts", "torch-cpu")),
            "deploy/build/protos.py",
            "deploy/local/installer.py",
            "deploy/local/install_torch.py",
        ),
        apart=("services", "gateway", "inference"),
    ),
}


def files(target: Target, root: Path = ROOT) -> list[Path]:
    """Return the target's inputs, relative to `root`, sorted."""
    results = {path for name in (*target.tests, *target.whole) for path in _within(root / name)}
    apart = {path for name in target.apart for path in _within(root / name)} - results
    open_ends = [path for path in results if path.suffix == ".py"]
    while open_ends:
        for path in _imported(open_ends.pop(), root):
            if path not in results and path not in apart:
                results.add(path)
                open_ends.append(path)
    return sorted(path.relative_to(root) for path in results)


def digest(target: Target, root: Path = ROOT) -> str:
    """Return a hash of the names and contents of the target's inputs."""
    digest_of_all = hashlib.sha256()
    for path in files(target, root):
        content = hashlib.sha256((root / path).read_bytes()).hexdigest()
        digest_of_all.update(f"{content}  {path.as_posix()}\n".encode())
    if target.models:
        digest_of_all.update(repr(shipped((root / target.models).read_bytes())).encode())
    return digest_of_all.hexdigest()


def shipped(catalogue: bytes) -> list[Any]:
    """Return a catalogue's rows of models whose weights ship with this repository."""
    rows = msgspec.yaml.decode(catalogue)["models"]
    return [row for row in rows if str((row.get("load") or {}).get("source", "")).startswith(_SHIPPED)]


def passed(name: str, root: Path) -> bool:
    """Return whether the target passed with its inputs as they are."""
    record = root / PASSED / name
    return record.exists() and record.read_text().strip() == digest(TARGETS[name], root)


def _within(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for below in path.rglob("*"):
        if below.is_file() and "__pycache__" not in below.parts:
            yield below


def _imported(path: Path, root: Path) -> Iterator[Path]:
    """Yield the files of the modules that a file imports, with the packages that they lie in."""
    for module in _modules(parsed(path.read_bytes())):
        parts = module.split(".")
        if parts[0] not in _PACKAGES:
            continue
        for length in range(1, len(parts) + 1):
            place = root.joinpath(*parts[:length])
            for file in (place / "__init__.py", place.with_suffix(".py")):
                if file.is_file():
                    yield file


def _modules(tree: ast.AST) -> Iterator[str]:
    """Yield every name that may be a module's: what is imported from a package may be one of its modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _recorded(name: str, command: Sequence[str]) -> int:
    """Run a command, and write down as passed what the inputs were when it began; return its exit code."""
    tried = digest(TARGETS[name], ROOT)
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code != 0:
        return code
    if digest(TARGETS[name], ROOT) != tried:
        print(f"{name}: passed, but its inputs changed meanwhile; run it again", file=sys.stderr)
        return 1
    record = ROOT / PASSED / name
    record.parent.mkdir(exist_ok=True)
    record.write_text(tried + "\n")
    print(f"{name}: passed; commit {record.relative_to(ROOT)}")
    return 0


def main(arguments: Iterable[str] | None = None) -> int:
    """Compare, or write down."""
    parser = argparse.ArgumentParser(prog="python -m deploy.build.inputs", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--run", nargs=argparse.REMAINDER, metavar="COMMAND", help="write them down if this passes")
    given = parser.parse_args(None if arguments is None else list(arguments))
    if given.run:
        return _recorded(given.target, given.run)
    same = passed(given.target, ROOT)
    print(f"{given.target}: its inputs are {'as when it last passed' if same else 'not those of its last pass'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
