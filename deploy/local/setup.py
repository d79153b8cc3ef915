"""`make setup`: the virtual environment and everything in it, pinned by hash. Run by the system's Python.

`python3.13 -m deploy.local.setup FOLDER` makes one for that Python in another folder than .venv. Only the standard
library is used: nothing else is there yet.
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

from deploy.local import installer, interpreter, supported
from deploy.local.alone import alone

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
LOCKS = tuple(ROOT / "requirements" / name for name in ("base.txt", "web.txt", "inference.txt", "dev.txt"))
UV_LOCK = ROOT / "requirements" / "uv.txt"
_ROOM_BYTES = 3 * 2**30
_TELL_EVERY_S = 10.0
_BEGAN = time.monotonic()


def tell(what: str) -> None:
    """Print a step, with the seconds since the start."""
    print(f"  {time.monotonic() - _BEGAN:5.1f} s  {what}", flush=True)


def python_of(venv: Path) -> Path:
    """Return the interpreter of a virtual environment."""
    return venv / "bin" / "python"


def stamp_of(venv: Path) -> Path:
    """Return the file that is as old as the last set-up of an environment."""
    return venv / "ready"


def check_machine(venv: Path) -> None:
    """Refuse what cannot work, before anything is downloaded."""
    if why := supported.own_refusal():
        raise SystemExit(f"make setup: {sys.executable} cannot be used: {why}.")
    if sys.platform not in ("linux", "darwin"):
        raise SystemExit("make setup: Linux or macOS is needed (on Windows: WSL).")
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        raise SystemExit(
            f"make setup: {sys.executable} has no venv module; install it (Debian, Ubuntu: "
            f"apt install python{sys.version_info.major}.{sys.version_info.minor}-venv) and try again."
        )
    free = shutil.disk_usage(ROOT).free
    if free < _ROOM_BYTES and not python_of(venv).exists():
        raise SystemExit(f"make setup: 3 GB of disk are needed in {ROOT}, and {free / 2**30:.1f} GB are free.")


def make_environment(venv: Path) -> None:
    """Make the virtual environment; anew where it belongs to a Python that is gone or has moved."""
    python = python_of(venv)
    try:
        usable = python.exists() and subprocess.run([python, "-c", "import pip"], check=False).returncode == 0
    except OSError:
        usable = False
    if usable:
        return
    shown = venv.relative_to(ROOT) if venv.is_relative_to(ROOT) else venv
    tell(f"making a virtual environment in {shown}")
    program, found = sys.executable, interpreter.found_better()
    if found is not None:
        own, other = found
        program = str(other.program)
        tell(f"  of {other}; {own} was built without optimizations and is slower (PYTHON=… make setup chooses)")
    done = subprocess.run([program, "-m", "venv", "--clear", venv], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise SystemExit(f"make setup: the virtual environment cannot be made: {output[-1]}")


def install(venv: Path) -> None:
    """Install the locked packages, telling now and then how far it is; by pip where uv cannot."""
    names = {name for lock in LOCKS for name in re.findall(r"^([A-Za-z0-9_.-]+)==", lock.read_text(), re.MULTILINE)}
    python = python_of(venv)
    by_uv = installer.fetch_uv(python, UV_LOCK) is not None
    tell(f"installing {len(names)} packages" + ("" if by_uv else " by pip; the first time takes some minutes"))
    output = _install(python, len(names))
    if output and by_uv:
        tell("  uv could not; trying with pip, which takes some minutes")
        os.environ["MOA_INSTALLER"] = "pip"
        output = _install(python, len(names))
    if output:
        print(output, file=sys.stderr)
        raise SystemExit(f"make setup: {meaning(output)} (the installer's last words are above).")


def _install(python: Path, count: int) -> str:
    """Install them all; return the last words of an installer that failed."""
    # Nothing is built here, so no compiler is needed.
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    line = [*installer.line(python), *options, *(part for lock in LOCKS for part in ("-r", str(lock)))]
    environment = installer.environment(python)
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
    if (proxy := proxy_named()) and re.search(
        "proxy|tunnel|error sending request|No matching distribution", output, re.I
    ):
        return (
            f"the package index could not be reached through {proxy}; correct it, or unset it where this machine "
            "needs no proxy"
        )
    if "No matching distribution" in output or "No solution found" in output:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return (
            f"a package has no ready-made build for Python {version} on this system, or the package index cannot be "
            f"reached; {supported.tested()}, on x86-64 or ARM"
        )
    if "HASH" in output.upper() and ("DO NOT MATCH" in output.upper() or "MISMATCH" in output.upper()):
        return "a package is not the one that was pinned"
    return "the packages could not be installed"


def proxy_named() -> str:
    """Return the variable that names a proxy for package indexes and its value without a password; empty for none."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        if value := os.environ.get(name):
            return f"{name}={re.sub('//[^/]*@', '//', value)}"
    return ""


def install_torch(venv: Path) -> None:
    """Install torch for what this machine has."""
    tell("torch")
    # By its name: it imports its neighbours.
    if subprocess.run([python_of(venv), "-m", "deploy.local.install_torch"], cwd=ROOT, check=False).returncode != 0:
        raise SystemExit("make setup: torch could not be installed (the installer's last words are above).")


def main(venv: Path = VENV) -> None:
    """Do all of it; what is done already costs seconds. Two at once would unpack over each other."""
    check_machine(venv)
    # Beside what .venv really is: several checkouts may share one by a link.
    real = Path(os.path.realpath(venv))
    real.parent.mkdir(parents=True, exist_ok=True)
    began = time.time()
    stamp = stamp_of(venv)
    with alone(
        real.with_name(f"{venv.name}.lock"), waiting=lambda: tell("another set-up is at work here; waiting for it")
    ) as waited:
        if waited and stamp.exists() and stamp.stat().st_mtime >= began:
            tell("the other one has set it up")
            return
        make_environment(venv)
        install(venv)
        install_torch(venv)
        stamp.touch()
    tell("set up")


if __name__ == "__main__":
    try:
        main(*(Path(folder).absolute() for folder in sys.argv[1:2]))
    except KeyboardInterrupt:
        raise SystemExit("make setup: interrupted; run it again to go on.") from None
    except OSError as error:
        raise SystemExit(f"make setup: {error}") from None
