"""Which contracts may change."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from google.protobuf import descriptor_pb2

from deploy.build import naming
from deploy.build.protos import REPOSITORY, compile_protos
from gateway.routes import DIALECTS, GRPC_PREFIXES

PROTO = REPOSITORY / "proto"
PAGES = "moa.router.v1.PagesService"
"""HTML of the gateway's own."""


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


def test_raw_bodies_are_of_dialects_alone() -> None:
    """What buf's rules on names of requests and responses are lifted for is what the edge serves in a dialect."""
    descriptors = (REPOSITORY / "build" / "moa.binpb").read_bytes()
    lifted = naming.excused(descriptors)
    services = {
        f"{file.package}.{service.name}"
        for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
        if file.name in lifted
        for service in file.service
    }
    assert services - DIALECTS.keys() == {PAGES}
    assert {"moa.router.v1.OpenAIService", "moa.task.v1.PredictionService"} <= services


CONTRACT = """
// A contract.
syntax = "proto3";
package moa.probe.v1;
{imported}
// What is answered.
message Answer {{
  // The text.
  string text = 1;
}}
// The service.
service ProbeService {{
  // Answers.
  rpc GetProbe({body}) returns (Answer);
}}
"""


@pytest.mark.parametrize(
    ("imported", "body", "code"),
    [("", "Answer", 100), ('import "google/api/httpbody.proto";', "google.api.HttpBody", 0)],
)
def test_names_are_free_beside_raw_bodies_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], imported: str, body: str, code: int
) -> None:
    """A contract that carries no raw body is held to all of buf's rules; another needs no line to be excused."""
    contract = tmp_path / "proto" / "moa" / "probe" / "v1" / "probe_service.proto"
    contract.parent.mkdir(parents=True)
    contract.write_text(CONTRACT.format(imported=imported, body=body))
    compile_protos(tmp_path / "proto", tmp_path / "probe.binpb")
    assert naming.lint(tmp_path / "probe.binpb") == code
    assert ("GetProbeRequest" in capfd.readouterr().out) == (code != 0)


FACING = (
    "services/common/vendor_fields.py",
    "services/providers/text/carrying.py",
    "services/providers/openai/",
    "services/providers/google/",
    "services/providers/anthropic/",
    "services/router/dialects/openai/",
    "services/router/dialects/google/",
    "services/router/dialects/anthropic/",
    "services/router/dialects/responses/",
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
