"""Ask for known vulnerabilities of the locked packages, by pip-audit.

pip-audit ends well when it could look nothing up, as where the package index is a mirror without advisories; here that
is told as not run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.build.breaking import NOT_RUN

REPOSITORY = Path(__file__).resolve().parents[2]
LOCKS: Final = ("base", "web", "inference", "provenance", "dev")

_VERSION: Final = "2.10.1"
_LIMIT_S: Final = 300.0


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a report says: packages looked up, packages of which nothing is told, and a line for each vulnerability."""

    audited: int
    untold: int
    lines: tuple[str, ...]


def read(report: dict[str, Any]) -> Found:
    """Return what pip-audit's JSON report says."""
    packages = report["dependencies"]
    lines = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in packages
        for flaw in package.get("vulns", ())
    ]
    untold = sum("skip_reason" in package for package in packages)
    return Found(audited=len(packages) - untold, untold=untold, lines=tuple(lines))


def _tool() -> Path | None:
    """Install pip-audit apart from the project's environment; return its path, or None where that fails."""
    folder = REPOSITORY / "build" / f"pip-audit-{_VERSION}"
    program = folder / "bin" / "pip-audit"
    if not program.exists():
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        for line in ([sys.executable, "-m", "venv", "--clear", str(folder)], [*pip, f"pip-audit=={_VERSION}"]):
            if subprocess.run(line, check=False, stderr=subprocess.DEVNULL, timeout=_LIMIT_S).returncode != 0:
                return None
    return program


def audit(program: Path, *locks: Path) -> Found | None:
    """Return pip-audit's findings for lock files; None where it made no report."""
    line = [str(program), "--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json"]
    line += [part for lock in locks for part in ("-r", str(lock))]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    try:
        return read(json.loads(done.stdout))
    except json.JSONDecodeError:
        print(done.stderr[-2000:], file=sys.stderr)
        return None


def main() -> int:
    """Return 0 where no locked package has a known vulnerability, 1 where one has, 77 where nobody here knows."""
    program = _tool()
    if program is None:
        print("advisories: pip-audit cannot be installed here")
        return NOT_RUN
    locks = [REPOSITORY / "requirements" / f"{name}.txt" for name in LOCKS]
    with tempfile.TemporaryDirectory() as scratch:
        # One package first: an index without advisories answers the same for all.
        probe = Path(scratch) / "one.txt"
        probe.write_text("pip==26.0\n")
        one = audit(program, probe)
    if one is None or one.audited == 0:
        print("advisories: no known vulnerabilities can be looked up here (the package index has no advisories)")
        return NOT_RUN
    result = audit(program, *locks)
    if result is None:
        return 1
    for line in result.lines:
        print(f"advisories: {line}", file=sys.stderr)
    print(
        f"advisories: {result.audited} packages asked for, {len(result.lines)} vulnerabilities, {result.untold} unknown"
    )
    return 1 if result.lines or result.untold else 0


if __name__ == "__main__":
    raise SystemExit(main())
