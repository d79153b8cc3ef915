"""Which calls may be made again, by their contracts: those that read, by their names and by their paths alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from moa.common.v1 import call_pb2

READS = ("Describe", "Download", "Find", "Get", "List", "Query", "Read", "ReportSpend", "Stream", "Watch")
"""What the names of calls begin with that change nothing."""
OTHERS = {"CheckDeskHealth", "CheckHealth", "CheckCatalogue", "PreviewCatalogue"}
"""What reads by another name."""
PAID = {"moa.router.v1.GoogleService.StreamGenerateContent"}
CHANGES = {"StartOidc", "FinishOidc"}
"""A browser is sent to them by GET, and they write."""


def methods() -> Iterator[tuple[str, descriptor_pb2.MethodDescriptorProto]]:
    """Yield every call of the contracts, by its full name."""
    files = descriptor_pb2.FileDescriptorSet.FromString(Path("build/moa.binpb").read_bytes())
    for file in files.file:
        for service in file.service:
            for method in service.method:
                yield f"{file.package}.{service.name}.{method.name}", method


def repeat(method: descriptor_pb2.MethodDescriptorProto) -> int:
    return method.options.Extensions[call_pb2.repeat]


def test_what_reads_says_so() -> None:
    """A call whose name says that it reads is marked, one that a GET reaches too, and no other is."""
    seen = 0
    for name, method in methods():
        bound = method.options.Extensions[annotations_pb2.http].WhichOneof("pattern")
        named = (method.name.startswith(READS) or method.name in OTHERS) and name not in PAID
        assert (repeat(method) == call_pb2.REPEAT_READS) == named, name
        if bound is not None and method.name not in OTHERS:
            assert named == (bound == "get" and method.name not in CHANGES), f"{name} by {bound}"
        seen += named
    assert seen > 80
