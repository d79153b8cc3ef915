"""`make setup`: the virtual environment and everything in it, pinned by hash. Run by the system's Python.

Only the standard library is used: nothing else is there yet.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from deploy.local import installer, interpreter
from deploy.local.alone import alone

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "ready"
LOCKS = tuple(ROOT / "requirements" / name for name in ("base.txt", "web.txt", "inference.txt", "dev.txt"))
UV_LOCK = ROOT / "requirements" / "uv.txt"
_ROOM_BYTES = 3 * 2**30
_TELL_EVERY_S = 10.0
_BEGAN = time.monotonic()


def tell(what: str) -> None:
    """Print a step, with the seconds since the start."""
    print(f"  {time.monotonic() - _BEGAN:5.1f} s  {what}", flush=True)


def check_machine() -> None:
    """Refuse what cannot work, before anything is downloaded."""
    if sys.platform not in ("linux", "darwin"):
        raise SystemExit("make setup: Linux or macOS is needed (on Windows: WSL).")
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        raise SystemExit(
            f"make setup: {sys.executable} has no venv module; install it (Debian, Ubuntu: "
            f"apt install python{sys.version_info.major}.{sys.version_info.minor}-venv) and try again."
        )
    free = shutil.disk_usage(ROOT).free
    if free < _ROOM_BYTES and not PYTHON.exists():
        raise SystemExit(f"make setup: 3 GB of disk are needed in {ROOT}, and {free / 2**30:.1f} GB are free.")


def make_environment() -> None:
    """Make the virtual environment; anew where it belongs to a Python that is gone or has moved."""
    try:
        usable = PYTHON.exists() and subprocess.run([PYTHON, "-c", "import pip"], check=False).returncode == 0
    except OSError:
        usable = False
    if usable:
        return
    tell("making a virtual environment in .venv")
    program, found = sys.executable, interpreter.found_better()
    if found is not None:
        own, other = found
        program = str(other.program)
        tell(f"  of {other}; {own} was built without optimizations and is slower (PYTHON=… make setup chooses)")
    done = subprocess.run([program, "-m", "venv", "--clear", VENV], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise SystemExit(f"make setup: the virtual environment cannot be made: {output[-1]}")


def install() -> None:
    """Install the locked packages, telling now and then how far it is; by pip where uv cannot."""
    names = {name for lock in LOCKS for name in re.findall(r"^([A-Za-z0-9_.-]+)==", lock.read_text(), re.MULTILINE)}
    by_uv = installer.fetch_uv(PYTHON, UV_LOCK) is not None
    tell(f"installing {len(names)} packages" + ("" if by_uv else " by pip; the first time takes some minutes"))
    output = _install(len(names))
    if output and by_uv:
        tell("  uv could not; trying with pip, which takes some minutes")
        os.environ["MOA_INSTALLER"] = "pip"
        output = _install(len(names))
    if output:
        print(output, file=sys.stderr)
        raise SystemExit(f"make setup: {meaning(output)} (the installer's last words are above).")


def _install(count: int) -> str:
    """Install them all; return the last words of an installer that failed."""
    # Nothing is built here, so no compiler is needed.
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    line = [*installer.line(PYTHON), *options, *(part for lock in LOCKS for part in ("-r", str(lock)))]
    environment = installer.environment(PYTHON)
    seen, printed_at = 0, time.monotonic()
    tail: list[str] = []
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for each in process.stdout:
            tail = [*tail[-20:], each.rstrip()]
            if each.startswith(("Collecting ", " + ")):
                seen += 1
            if each.startswith("Installing collected packages"):
                tell("  all are here; unpacking takes another minute")
            elif time.monotonic() - printed_at > _TELL_EVERY_S:
                printed_at = time.monotonic()
                tell(f"  {seen} of {count}")
    return "\n".join(tail) or "it said nothing" if process.returncode != 0 else ""


def meaning(output: str) -> str:
    """Return a sentence for what pip or uv said at its end."""
    if "No space left" in output:
        return f"the disk of {ROOT} is full"
    if "No matching distribution" in output or "No solution found" in output:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return (
            f"a package has no ready-made build for Python {version} on this system, or the package index cannot be "
            "reached; Python 3.11 to 3.13 on x86-64 or ARM have them"
        )
    if "HASH" in output.upper() and ("DO NOT MATCH" in output.upper() or "MISMATCH" in output.upper()):
        return "a package is not the one that was pinned"
    return "the packages could not be installed"


def install_torch() -> None:
    """Install torch for what this machine has."""
    tell("torch")
    # By its name: it imports its neighbours.
    if subprocess.run([PYTHON, "-m", "deploy.local.install_torch"], cwd=ROOT, check=False).returncode != 0:
        raise SystemExit("make setup: torch could not be installed (the installer's last words are above).")


def main() -> None:
    """Do all of it; what is done already costs seconds. Two at once would unpack over each other."""
    check_machine()
    # Beside what .venv really is: several checkouts may share one by a link.
    lock = Path(os.path.realpath(VENV)).with_name(".venv.lock")
    began = time.time()
    with alone(lock, waiting=lambda: tell("another set-up is at work here; waiting for it")) as waited:
        if waited and STAMP.exists() and STAMP.stat().st_mtime >= began:
            tell("the other one has set it up")
            return
        make_environment()
        install()
        install_torch()
        STAMP.touch()
    tell("set up")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("make setup: interrupted; run it again to go on.") from None
    except OSError as error:
        raise SystemExit(f"make setup: {error}") from None
