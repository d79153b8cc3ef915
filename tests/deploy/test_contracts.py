"""Which contracts may change."""

from __future__ import annotations

import re

import msgspec

from deploy.build.protos import REPOSITORY
from gateway.routes import DIALECTS, GRPC_PREFIXES

PROTO = REPOSITORY / "proto"


def ignored() -> list[str]:
    """Return the paths that the breaking check leaves out."""
    read = msgspec.yaml.decode((REPOSITORY / "buf.yaml").read_bytes())
    return [path for path in read["breaking"]["ignore"] if path != "google"]


def held(path: str) -> bool:
    """Return whether the breaking check looks at a contract."""
    return not any(path == each or path.startswith(f"{each}/") for each in ignored())


def test_what_callers_reach_is_held_to_be_compatible() -> None:
    """Every service that the edge serves, and whatever its contract imports, is in the breaking check."""
    served = {*DIALECTS, *(prefix.strip("/") for prefix in GRPC_PREFIXES if prefix.startswith("/moa."))}
    files = {str(path.relative_to(PROTO)): path.read_text() for path in PROTO.rglob("*.proto")}
    waiting = []
    for name in served:
        package, _, service = name.rpartition(".")
        found = [
            path
            for path, text in files.items()
            if f"package {package};" in text and re.search(rf"^service {service} ", text, re.MULTILINE)
        ]
        assert len(found) == 1, name
        waiting += found
    seen = set()
    while waiting:
        path = waiting.pop()
        if path in seen or not path.startswith("moa/"):
            continue
        seen.add(path)
        assert held(path), path
        waiting += re.findall(r'^import "([^"]+)";$', files[path], re.MULTILINE)


def test_what_is_left_out_says_that_it_is_internal() -> None:
    """A service outside the check tells in its contract that only Moa's own processes call it."""
    for path in PROTO.rglob("*_service.proto"):
        if not held(str(path.relative_to(PROTO))):
            assert "Internal: only Moa's services may call it" in path.read_text()


FACING = (
    "services/common/vendor_fields.py",
    "services/providers/text/carrying.py",
    "services/providers/openai/",
    "services/providers/google/",
    "services/router/dialects/openai/",
    "services/router/dialects/google/",
)
"""What speaks a vendor's API, towards callers or towards the vendor, and what these share."""
READS = re.compile(r"vendor\.json|VendorFields\(|vendor_pb2|import vendor_fields|vendor_fields import")


def test_a_vendors_own_fields_are_read_by_what_speaks_its_api_alone() -> None:
    """The carrier of JSON is no way around the contracts: nobody else makes one, or looks into it."""
    readers = {
        str(path.relative_to(REPOSITORY))
        for folder in ("services", "inference", "gateway")
        for path in (REPOSITORY / folder).rglob("*.py")
        if READS.search(path.read_text())
    }
    assert {reader for reader in readers if not reader.startswith(FACING)} == set()
    assert all(any(reader.startswith(facing) for reader in readers) for facing in FACING)
