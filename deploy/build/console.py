"""The console's built files: `gateway/web` holds what was built of `gateway/console`; this says whether it still is.

`python -m deploy.build.console` compares digests and needs no Node; `--build` builds with Node and writes the files,
`--compare` builds and compares every byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.build.console_words import unused

REPOSITORY: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = REPOSITORY / "gateway" / "console"
PAGES: Final = REPOSITORY / "gateway" / "web"
RECORD: Final = SOURCES / "built.json"
"""The digest of the sources that were built, and of each built file."""
BUILT: Final = ("index.html", "console")
"""What of `gateway/web` is built; the rest is written by hand."""

_IGNORED: Final = frozenset(("node_modules", "dist", RECORD.name, ".gitignore"))
_SHIPPED: Final = ("svelte", "uplot")
"""The packages of which built files hold parts, and whose licences ask to be told."""
_BUILD_S: Final = 600


def digest_of(files: Mapping[str, Path]) -> str:
    """Return one digest of files and their names."""
    result = hashlib.sha256()
    for name, path in sorted(files.items()):
        result.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return result.hexdigest()


def sources(folder: Path = SOURCES) -> dict[str, Path]:
    """Return the files that a build reads, by name."""
    return {name: path for name, path in _files(folder).items() if name.partition("/")[0] not in _IGNORED}


def built(folder: Path = PAGES) -> dict[str, Path]:
    """Return the built files, by name."""
    return {name: path for name, path in _files(folder).items() if name.partition("/")[0] in BUILT}


def faults(folder: Path = SOURCES, pages: Path = PAGES) -> list[str]:
    """Return what is not as it was built."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD.name).read_text())
    except (OSError, ValueError) as error:
        return [f"{RECORD.name} cannot be read: {error}"]
    results = []
    if record.get("sources") != digest_of(sources(folder)):
        results.append("the console's sources have changed since it was built")
    now = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in built(pages).items()}
    was = record.get("files", {})
    results += [
        f"gateway/web/{name}: not as built"
        for name in sorted(now.keys() | was.keys())
        if now.get(name) != was.get(name)
    ]
    return results + unused(folder / "src")


def build(into: Path) -> None:
    """Build the console into a folder. Raises CalledProcessError, and SystemExit without Node."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is missing: the console is built with Node 20.19 or newer")
    for step in (
        ("ci", "--no-audit", "--no-fund"),
        ("run", "check"),
        ("run", "build", "--", "--outDir", str(into), "--emptyOutDir"),
    ):
        subprocess.run((npm, *step), cwd=SOURCES, check=True, timeout=_BUILD_S)
    (into / "console" / "licences.txt").write_text("\n\n".join(map(_licence, _SHIPPED)), encoding="utf-8")


def _licence(package: str) -> str:
    folder = SOURCES / "node_modules" / package
    version = json.loads((folder / "package.json").read_text())["version"]
    text = next(path for path in sorted(folder.iterdir()) if path.name.upper().startswith("LICENSE"))
    return f"{package} {version}\n\n{text.read_text(encoding='utf-8').strip()}\n"


def take(made: Path) -> None:
    """Put what was built in place of what is there, and record both digests."""
    for name in BUILT:
        path = PAGES / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        source = made / name
        if source.is_dir():
            shutil.copytree(source, path)
        else:
            shutil.copyfile(source, path)
    files = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(built().items())}
    record = {"sources": digest_of(sources()), "files": files}
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and "node_modules" not in path.parts
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, build, or build and compare. Return the process's status."""
    parser = argparse.ArgumentParser(prog="console")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--build", action="store_true", help="build the console, with Node")
    ways.add_argument("--compare", action="store_true", help="build the console and compare it with what is committed")
    asked = parser.parse_args(arguments)
    if asked.build or asked.compare:
        made = REPOSITORY / "build" / "console"
        build(made)
        if asked.build:
            take(made)
        else:
            fresh, there = (
                {name: path.read_bytes() for name, path in built(folder).items()} for folder in (made, PAGES)
            )
            wrong = [name for name in sorted(fresh.keys() | there.keys()) if fresh.get(name) != there.get(name)]
            if wrong:
                print(f"a build gives other files than those committed: {', '.join(wrong)}", file=sys.stderr)
                return 1
    found = faults()
    for fault in found:
        print(fault, file=sys.stderr)
    if found:
        print("`make console` builds it", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in built().values())
    print(f"console: {len(built())} built files of {size // 1024} KiB are those of their sources")
    return 0


if __name__ == "__main__":
    sys.exit(main())
