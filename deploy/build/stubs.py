"""`make stubs`: a wheel of the contracts alone, `moa-api`, for teams that call the gateway."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "moa-api"
version = "{version}"
description = "Typed gRPC stubs of the Moa gateway."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["grpcio>={grpcio}", "protobuf>={protobuf}", "googleapis-common-protos>={googleapis}"]

[tool.setuptools.packages.find]
include = ["moa*"]

[tool.setuptools.package-data]
"*" = ["py.typed", "*.pyi"]
"""

_README = """\
# moa-api

The contracts of the Moa gateway as typed Python stubs.

```python
import grpc
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc

with grpc.insecure_channel("127.0.0.1:8080") as channel:
    stub = text_service_pb2_grpc.TextServiceStub(channel)
    part = text_pb2.Part(text="Hello!")
    request = text_service_pb2.GenerateTextRequest(
        model="smollm2-135m", stream=True, messages=[text_pb2.Message(role=text_pb2.ROLE_USER, parts=[part])]
    )
    for answer in stub.GenerateText(request, metadata=(("x-api-key", "moa-…"),)):
        for event in answer.events:
            print(event.text.text, end="", flush=True)
```
"""


def pinned(package: str) -> str:
    """Return the version that the lock file names."""
    lock = (REPOSITORY / "requirements" / "base.txt").read_text()
    match = re.search(rf"^{package}==(\S+)", lock, re.MULTILINE)
    if match is None:
        raise SystemExit(f"requirements/base.txt does not name {package}")
    return match[1]


def build(out: Path) -> Path:
    """Build the wheel into `out` and give its path."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copytree(REPOSITORY / "gen" / "moa", folder / "moa", ignore=shutil.ignore_patterns("__pycache__"))
        for package in (folder / "moa", *(path for path in (folder / "moa").rglob("*") if path.is_dir())):
            # Regular packages: a type checker reads `py.typed` only there.
            (package / "__init__.py").touch()
            (package / "py.typed").touch()
        (folder / "README.md").write_text(_README, encoding="utf-8")
        filled = _PROJECT.format(
            version=project["version"],
            # The generated code refuses older runtimes than the compiler that made it.
            grpcio=pinned("grpcio"),
            protobuf=pinned("protobuf"),
            googleapis=pinned("googleapis-common-protos"),
        )
        (folder / "pyproject.toml").write_text(filled)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(folder)], check=True)
    return max(out.glob("moa_api-*.whl"), key=lambda path: path.stat().st_mtime)


if __name__ == "__main__":
    print(build(REPOSITORY / "dist").relative_to(REPOSITORY))
