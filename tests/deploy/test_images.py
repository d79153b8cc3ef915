"""What the images are made of: named once, held to hashes, and written down."""

from __future__ import annotations

import json
import re
from importlib import metadata

import msgspec
import pytest

from deploy.container import images, materials
from deploy.container.images import DOCKERFILE, ROOT

TEXT = DOCKERFILE.read_text()
STAGES = re.findall(r"^FROM (\S+) AS (\S+)$", TEXT, re.MULTILINE)


def test_every_stage_begins_with_the_one_image_that_is_named() -> None:
    """A second name would be pinned by nobody; that of the database is compose's."""
    names = {name for _, name in STAGES}
    assert {base for base, _ in STAGES} <= names | {"${PYTHON}"}
    assert len(STAGES) == len(re.findall(r"^FROM ", TEXT, re.MULTILINE))
    assert images.PYTHON_IMAGE.startswith("docker.io/library/python:3.11")
    repeated = [
        path
        for path in (ROOT / "deploy").rglob("*")
        if path.suffix in {".py", ".yaml", ".sh", ".tpl"} and re.search(r"python:3\.|postgres:\d", path.read_text())
    ]
    assert not repeated
    assert images.DATABASE_IMAGE.startswith("docker.io/library/postgres:")


def test_packages_come_by_hashes_alone() -> None:
    """Each install is the installer's, which asks for hashes, or torch's, which was held to one before; and every lock
    that it is given has a hash for each package."""
    runs = re.sub(r"\\\n", " ", TEXT)
    assert not re.search(r"\b(pip|pip3|uv|apt-get|apt|curl|wget)\s+(install|download|-)", runs)
    assert '"--require-hashes"' in (ROOT / "deploy/local/installer.py").read_text()
    installs = re.findall(r"deploy\.local\.installer ([a-z $_{}:+A-Z-]+)", runs)
    locks = {lock for line in installs for lock in line.split()}
    known = {lock for lock in locks if lock.isalpha() and lock.islower()}
    assert {"base", "web", "inference", "contracts"} <= known
    for lock in {*known, "uv", "torch-cpu"} - {"remove"}:
        path = ROOT / "requirements" / f"{lock}.txt"
        if not path.exists():
            continue
        pinned = re.findall(r"^\S+==\S+.*?(?=^\S|\Z)", path.read_text(), re.MULTILINE | re.DOTALL)
        assert pinned
        assert all("--hash=sha256:" in one for one in pinned), path


def test_who_fetches_weights_keeps_pip() -> None:
    """The installer leaves both images, and pip the one that fetches nothing: models whose weights come in packages are
    fetched by it in the other."""
    runs = re.sub(r"\\\n", " ", TEXT)
    removed = [line.split() for line in re.findall(r"deploy\.local\.installer --remove ([a-z -]+)", runs)]
    assert [("uv" in line, "pip" in line) for line in removed] == [(True, True), (True, False)]
    assert "FROM installer AS packages-inference" in TEXT.partition("--remove")[2]


def test_compilers_stay_out_of_the_images() -> None:
    """What is copied from the stage of the contracts is what it made, and each image has a user of its own."""
    for image in ("moa", "inference"):
        stage = TEXT.partition(f"FROM system AS {image}\n")[2].partition("\nFROM ")[0]
        from_contracts = re.findall(r"COPY --from=contracts (\S+)", stage)
        assert from_contracts == ["/moa/gen", "/moa/build"]
        assert stage.rstrip().endswith("USER moa")
        assert "org.opencontainers.image.revision" in stage


def test_the_bill_of_materials_is_the_same_twice_and_holds_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """At one time of the source; its packages have names by which scanners know them."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    status = (
        "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.0.17-1~deb12u2\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    )
    lock = {
        "packages": {
            "": {"name": "console", "version": "0.0.0"},
            "node_modules/react": {"version": "19.0.0", "license": "MIT"},
            "node_modules/vite": {"version": "7.0.0", "dev": True},
        }
    }
    parts = [*materials.debian_packages(status), *materials.console_packages(json.dumps(lock))]
    assert [one["purl"] for one in parts] == [
        "pkg:deb/debian/libssl3@3.0.17-1~deb12u2?arch=amd64",
        "pkg:npm/react@19.0.0",
    ]
    one = materials.bill("moa", parts, made_at=1_800_000_000)
    assert msgspec.json.encode(one) == msgspec.json.encode(materials.bill("moa", parts[::-1], made_at=1_800_000_000))
    assert one["metadata"]["timestamp"] == "2027-01-15T08:00:00Z"
    names = {component["purl"].partition("@")[0] for component in materials.python_packages(metadata.distributions())}
    assert {"pkg:pypi/grpcio", "pkg:pypi/psycopg"} <= names
