"""`python supported.py [OTHER]`: end with 0 where Moa runs on this Python, else with 1 and why not in a sentence.

OTHER is the Python of a virtual environment: one that is there and has another version is a reason too. Python 3.6 can
read this file, so that an old one is refused in words.
"""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path


def versions() -> "list[tuple[int, int]]":
    """Return the versions that `requires-python` of pyproject.toml admits: those that `make interpreters` tests."""
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit("pyproject.toml: requires-python is no range like >=3.11,<3.15")
    return [(3, minor) for minor in range(int(found.group(1)), int(found.group(2)))]


def tested() -> str:
    """Return which versions are supported, in words."""
    oldest, newest = versions()[0], versions()[-1]
    return f"CPython {oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]} are supported and tested"


def refusal(version: "tuple[int, int]", implementation: str, free_threaded: bool) -> str:
    """Return why Moa does not run on such a Python, nothing where it does."""
    if implementation != "cpython":
        return f"it is {implementation}; {tested()}"
    if version not in versions():
        return f"it is Python {version[0]}.{version[1]}; {tested()}"
    if free_threaded:
        return f"it is a free-threaded build, for which packages are missing; {tested()} in their usual builds"
    return ""


def own_refusal() -> str:
    """Return why Moa does not run on the Python that asks, nothing where it does."""
    version = (sys.version_info[0], sys.version_info[1])
    return refusal(version, sys.implementation.name, bool(sysconfig.get_config_var("Py_GIL_DISABLED")))


def difference(other: str) -> str:
    """Return in what another Python, of a virtual environment, is not of the version of the one that asks."""
    if not Path(other).exists():
        return ""
    try:
        ask = "import sys; print('{}.{}'.format(*sys.version_info))"
        version = subprocess.check_output([other, "-c", ask], universal_newlines=True).strip()
    except (OSError, subprocess.SubprocessError):
        return ""  # set-up makes such an environment anew
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    folder = Path(other).parents[1]
    hint = f"(`make interpreters VERSIONS={sys.executable}` runs the tests beside it)"
    return "" if version == own else f"{folder} is of Python {version}; delete it to change that {hint}"


if __name__ == "__main__":
    why = own_refusal() or "".join(difference(other) for other in sys.argv[1:2])
    if why:
        sys.exit(f"make: {sys.executable} cannot be used: {why}.")
