"""Lint `build/openapi.json`: valid OpenAPI 3.1 by its specification's own schema, and by Redocly's rules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT: Final = REPOSITORY / "build" / "openapi.json"

_SOURCE: Final = Path(__file__).with_name("redocly")
_INSTALLED: Final = REPOSITORY / "build" / "redocly"
_LIMIT_S: Final = 300.0
_QUIET: Final = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "CI": "true"}


def _install() -> None:
    """Install Redocly as its lock file pins it, unless it is there."""
    pins = list(_SOURCE.glob("package*.json"))
    there = (_INSTALLED / "node_modules").is_dir()
    if there and all((_INSTALLED / pin.name).read_bytes() == pin.read_bytes() for pin in pins):
        return
    shutil.rmtree(_INSTALLED, ignore_errors=True)
    _INSTALLED.mkdir(parents=True)
    for pin in pins:
        shutil.copy(pin, _INSTALLED)
    line = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    if subprocess.run(line, cwd=_INSTALLED, stdin=subprocess.DEVNULL, check=False, timeout=_LIMIT_S).returncode != 0:
        shutil.rmtree(_INSTALLED)
        raise SystemExit("openapi: npm cannot install Redocly, which lints the document (npm's words are above)")


def problems(document: Path) -> list[str]:
    """Return a line for each of the rules that the document breaks."""
    program = _INSTALLED / "node_modules" / "@redocly" / "cli" / "bin" / "cli.js"
    line = ["node", str(program), "lint", str(document), "--format=json", f"--config={_SOURCE / 'redocly.yaml'}"]
    environment = {**os.environ, **_QUIET}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        return [f"Redocly made no report: {done.stderr[-2000:]}"]
    results = [f"{each['ruleId']}: {each['location'][0].get('pointer', '')}: {each['message']}"
             for each in report["problems"]]  # fmt: skip
    return results or ([] if done.returncode == 0 else [f"Redocly ended with {done.returncode}: {done.stderr[-2000:]}"])


def main() -> int:
    """Return 0 when the document is valid and breaks no rule."""
    from openapi_spec_validator import OpenAPIV31SpecValidator

    made = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    results = [
        f"specification: {error.json_path}: {error.message}" for error in OpenAPIV31SpecValidator(made).iter_errors()
    ]
    _install()
    results += problems(DOCUMENT)
    for each in results:
        print(f"openapi: {each}", file=sys.stderr)
    if not results:
        print(f"openapi: {len(made['paths'])} paths, no rule broken")
    return 1 if results else 0


if __name__ == "__main__":
    raise SystemExit(main())
