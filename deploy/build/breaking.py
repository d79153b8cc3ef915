"""Hold the contracts against those of git's main branch: an incompatible change is a `v2`."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from deploy.build.protos import REPOSITORY, compile_protos


def _git(*arguments: str) -> bytes | None:
    line = ["git", *arguments]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def main() -> int:
    """Compare `build/moa.binpb` with main's contracts, by buf."""
    branch = next((name for name in ("main", "origin/main") if _git("rev-parse", "--verify", name)), None)
    archive = _git("archive", branch, "proto") if branch else None
    if archive is None:
        print("buf breaking: git's main has no contracts to compare with")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(scratch, filter="data")
        before = Path(scratch) / "main.binpb"
        compile_protos(Path(scratch) / "proto", before)
        buf = [str(Path(sys.executable).with_name("buf")), "breaking", "build/moa.binpb"]
        return subprocess.run([*buf, "--against", str(before)], cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
