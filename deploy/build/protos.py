"""`make proto`: stubs into `gen/`, the contracts' descriptor set into `build/moa.binpb`, OpenAPI beside it.

Both are swapped in whole, so that a process that starts meanwhile sees the old ones or the new ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.resources import files
from pathlib import Path

from deploy.local.alone import alone

REPOSITORY = Path(__file__).resolve().parents[2]


class ProtoError(Exception):
    """The contracts do not compile; protoc has said why on standard error."""


def compile_protos(source: Path, descriptors: Path, *, stubs: Path | None = None) -> None:
    """Compile every contract under `source` into a descriptor set, and into Python stubs where a folder is given."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    names = sorted(str(path.relative_to(source)) for path in source.rglob("*.proto"))
    arguments = ["protoc", f"-I{source}", f"-I{_googleapis()}", f"-I{files('grpc_tools') / '_proto'}"]
    arguments += [f"--descriptor_set_out={descriptors}", "--include_imports", "--include_source_info"]
    if stubs is not None:
        # protoc looks for the typing plugins on PATH.
        os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ.get("PATH", "")
        arguments += [f"--{kind}_out={stubs}" for kind in ("python", "grpc_python")]
        arguments += [f"--{kind}_out=quiet:{stubs}" for kind in ("mypy", "mypy_grpc")]
    descriptors.parent.mkdir(parents=True, exist_ok=True)
    if protoc.main([*arguments, *names]) != 0:
        raise ProtoError("the contracts do not compile")


def _googleapis() -> Path:
    """Return the folder of google/api/*.proto, which googleapis-common-protos installs."""
    return Path(str(files("google.api") / "http.proto")).parents[2]


def main() -> int:
    """Write `gen/`, `build/moa.binpb` and `build/openapi.json`."""
    build = REPOSITORY / "build"
    build.mkdir(exist_ok=True)
    began = time.time()
    waiting = "proto: another one is at work here; waiting for it"
    with alone(build / "lock", waiting=lambda: print(waiting, flush=True)) as waited:
        if waited and (build / "openapi.json").exists() and (build / "openapi.json").stat().st_mtime >= began:
            return 0
        return _generate(build)


def _generate(build: Path) -> int:
    with tempfile.TemporaryDirectory(dir=build, prefix="proto-") as scratch:
        new = Path(scratch) / "gen"
        new.mkdir()
        descriptors = Path(scratch) / "moa.binpb"
        try:
            compile_protos(REPOSITORY / "proto", descriptors, stubs=new)
        except ProtoError as error:
            print(error, file=sys.stderr)
            return 1
        descriptors.replace(build / "moa.binpb")
        old = REPOSITORY / "gen"
        if old.exists():
            old.rename(Path(scratch) / "old")
        new.rename(old)
    count = sum(1 for _ in (REPOSITORY / "gen").rglob("*_pb2.py"))
    print(f"proto: {count} modules in gen/, the descriptor set in build/moa.binpb")
    # A process of its own: it imports the stubs that have just been made.
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'gen'}{os.pathsep}{REPOSITORY}"}
    done = subprocess.run([sys.executable, "-m", "deploy.build.openapi"], cwd=REPOSITORY, env=environment, check=False)
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
