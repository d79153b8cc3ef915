"""Which calls of the public contracts are made again: those that read, by their names and by their paths alike."""

from __future__ import annotations

from pathlib import Path

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from services.common.rereading import READS

CHANGES = {"StartOidc", "FinishOidc"}
"""A browser is sent to them by GET, and they write."""
ASKS_NOBODY = {"CheckDeskHealth"}


def test_what_reads_is_named_so() -> None:
    """Every unary call by GET of the services that have a database is one that is made again, and no other is."""
    files = descriptor_pb2.FileDescriptorSet.FromString(Path("build/moa.binpb").read_bytes())
    seen = 0
    for file in files.file:
        if file.package not in ("moa.account.v1", "moa.task.v1"):
            continue
        for method in (each for service in file.service for each in service.method):
            bound = method.options.Extensions[annotations_pb2.http].WhichOneof("pattern")
            if bound is None or method.server_streaming or method.name in ASKS_NOBODY:
                continue
            reads = bound == "get" and method.name not in CHANGES
            assert method.name.startswith(READS) == reads, f"{file.name}: {method.name} by {bound}"
            seen += reads
    assert seen > 30
