"""Install the pinned torch: for CUDA where there is an NVIDIA driver, else the far smaller build for CPUs.

`MOA_TORCH=auto|cpu|cuda` decides; `auto` looks for a driver. What pip would take by itself differs by system and
index (macOS and ARM: CPU; Linux on x86: CUDA, with gigabytes of libraries), so pip is asked first.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from deploy.local import installer

VERSION = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_INDEX = "https://download.pytorch.org/whl/cu130"

_PYTHON = Path(sys.executable)
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-qq")
_DRIVER_SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
_CUDA_NAMES = ("nvidia-", "cuda-", "triton", "pytorch-triton")


def wanted(choice: str) -> str:
    """Return `cpu` or `cuda` for `auto|cpu|cuda`."""
    if choice in ("cpu", "cuda"):
        return choice
    if choice != "auto":
        raise SystemExit(f"MOA_TORCH={choice} is not auto, cpu or cuda")
    seen = any(Path(sign).exists() for sign in _DRIVER_SIGNS) or shutil.which("nvidia-smi") is not None
    return "cuda" if seen and sys.platform == "linux" else "cpu"


def kind_of(requirements: list[str]) -> str:
    """Return `cuda` when a torch with these requirements would bring CUDA's libraries to this system, else `cpu`."""
    from packaging.requirements import Requirement

    for text in requirements:
        needed = Requirement(text)
        applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
        if applies and needed.name.lower().startswith(_CUDA_NAMES):
            return "cuda"
    return "cpu"


def installed() -> str | None:
    """Return the kind of the torch that is installed in the pinned version; None when there is none."""
    try:
        torch = metadata.distribution("torch")
    except metadata.PackageNotFoundError:
        return None
    if torch.version.partition("+")[0] != VERSION:
        return None
    return kind_of(torch.requires or [])


def offered() -> str | None:
    """Return the kind of torch that pip would take by itself; None when it finds none."""
    asked = (*_PIP, "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", f"torch=={VERSION}")
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    (item,) = json.loads(done.stdout)["install"]
    return kind_of(item["metadata"].get("requires_dist", []))


def install(kind: str) -> int:
    """Install that kind; return 0 where that was done."""
    usual = offered()
    if usual == kind:
        # A CPU build's few requirements are in the lock files; CUDA's libraries come with torch.
        extra = ["--no-deps"] if kind == "cpu" else []
        return 0 if _installed_by(*extra, f"torch=={VERSION}") else 1
    own = ["--no-deps", "--index-url", CPU_INDEX] if kind == "cpu" else ["--extra-index-url", CUDA_INDEX]
    # A CUDA build's version has a local part, which sorts above the plain one of the same number.
    if _installed_by(*own, f"torch=={VERSION}") and installed() == kind:
        return 0
    if usual is None:
        return 1
    print(f"           PyTorch's own index is not reachable; taking the {usual} build that pip finds", flush=True)
    return 0 if _installed_by(f"torch=={VERSION}") else 1


def _installed_by(*arguments: str) -> bool:
    """Install; tell whether it succeeded. uv is asked first, where there is one."""
    lines: list[tuple[str, ...]] = [_PIP]
    if installer.uv(_PYTHON) is not None:
        lines.insert(0, (*installer.line(_PYTHON), "--quiet"))
    environment = installer.environment(_PYTHON)
    return any(subprocess.run((*line, *arguments), check=False, env=environment).returncode == 0 for line in lines)


def main() -> int:
    """Install what `MOA_TORCH` asks for, unless it is there."""
    kind = wanted(os.environ.get("MOA_TORCH", "auto"))
    if installed() == kind:
        return 0
    print(f"           installing torch {VERSION} for {'CUDA' if kind == 'cuda' else 'CPUs'}", flush=True)
    return install(kind)


if __name__ == "__main__":
    raise SystemExit(main())
