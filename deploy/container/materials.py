"""Print the bill of materials of this environment, as CycloneDX 1.6: `python -m deploy.container.materials --name moa`.

It lists what is installed here: packages of Python by their metadata, of Debian by dpkg's list, of the console's bundle
by its lock. The same environment gives the same bytes, at `SOURCE_DATE_EPOCH`. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

DPKG: Final = Path("/var/lib/dpkg/status")
CONSOLE: Final = Path("gateway/console/package-lock.json")
_EARLIEST: Final = 946684800


def python_packages(found: Iterable[metadata.Distribution]) -> list[dict[str, Any]]:
    """Return the installed packages of Python, by the names that the index has them under."""
    result = []
    for one in found:
        name = re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()
        result.append(_component(name, one.version, f"pkg:pypi/{name}@{quote(one.version)}", _licence(one)))
    return result


def debian_packages(status: str) -> list[dict[str, Any]]:
    """Return the installed packages of dpkg's list."""
    result = []
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            place = f"pkg:deb/debian/{quote(name, safe='')}@{quote(version, safe='')}?arch={fields['Architecture']}"
            result.append(_component(name, version, place, None))
    return result


def console_packages(lock: str) -> list[dict[str, Any]]:
    """Return the packages that are part of the console's bundle: those that no build alone needs."""
    result = []
    for place, one in json.loads(lock)["packages"].items():
        if place and not one.get("dev") and not one.get("optional"):
            name = place.rpartition("node_modules/")[2]
            found = _component(name, one["version"], f"pkg:npm/{quote(name)}@{one['version']}", one.get("license"))
            result.append(found)
    return result


def bill(name: str, components: Sequence[dict[str, Any]], *, made_at: int) -> dict[str, Any]:
    """Return the document. Its serial number follows from its content."""
    sorted_ones = sorted(components, key=lambda one: str(one["bom-ref"]))
    content = json.dumps(sorted_ones, sort_keys=True)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(made_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "container", "name": name, "bom-ref": name},
        },
        "components": sorted_ones,
    }


def _component(name: str, version: str, place: str, licence: str | None) -> dict[str, Any]:
    result = {"type": "library", "name": name, "version": version, "purl": place, "bom-ref": place}
    return result if not licence else {**result, "licenses": [{"license": {"name": licence}}]}


def _licence(one: metadata.Distribution) -> str | None:
    """Return what a package says of its licence, in one line; None where it says a whole text or nothing."""
    declared = cast(Message, one.metadata)
    name = declared.get("License-Expression") or declared.get("License") or ""
    if name and "\n" not in name and len(name) < 100:
        return str(name)
    lines = [line for line in declared.get_all("Classifier", []) if line.startswith("License ::")]
    return lines[0].rpartition(" :: ")[2] if lines else None


def main() -> int:
    """Print the bill of materials."""
    parser = argparse.ArgumentParser(prog="python -m deploy.container.materials", description=__doc__)
    parser.add_argument("--name", required=True, help="what the image is called")
    given = parser.parse_args()
    version = platform.python_version()
    interpreter = _component("python", version, f"pkg:generic/python@{version}", "PSF-2.0")
    # By name, each once: a folder of modules may be found over two paths.
    packages = {one["bom-ref"]: one for one in python_packages(metadata.distributions())}
    components = [interpreter, *packages.values()]
    if DPKG.exists():
        components += debian_packages(DPKG.read_text())
    if CONSOLE.exists():
        components += console_packages(CONSOLE.read_text())
    made_at = int(os.environ.get("SOURCE_DATE_EPOCH", _EARLIEST))
    json.dump(bill(given.name, components, made_at=made_at), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
