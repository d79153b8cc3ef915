"""Lint the contracts: buf's rules, and which contracts the rules on names of requests and responses do not hold for.

Bodies of a foreign wire format are `google.api.HttpBody` by design (docs/decisions/0002-bindings.md), so that contracts
whose methods carry them cannot name these after the method. Which ones do is read from the contracts themselves.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
from google.protobuf import descriptor_pb2

from deploy.build.protos import REPOSITORY

RULES: Final = ("RPC_REQUEST_STANDARD_NAME", "RPC_RESPONSE_STANDARD_NAME", "RPC_REQUEST_RESPONSE_UNIQUE")
"""What is lifted for them, and for nobody else."""

_HTTP_BODY: Final = ".google.api.HttpBody"


def excused(descriptors: bytes) -> list[str]:
    """Return the files of a descriptor set with a method whose request or response is a raw body."""
    return [
        file.name
        for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
        if any(
            _HTTP_BODY in (method.input_type, method.output_type)
            for service in file.service
            for method in service.method
        )
    ]


def configuration(descriptors: bytes) -> dict[str, Any]:
    """Return what `buf.yaml` says, with the excused contracts."""
    result: dict[str, Any] = msgspec.yaml.decode((REPOSITORY / "buf.yaml").read_bytes())
    result["lint"]["ignore_only"] = dict.fromkeys(RULES, excused(descriptors))
    return result


def lint(descriptors: Path) -> int:
    """Return buf's exit code for the contracts, whose faults it prints."""
    buf = [str(Path(sys.executable).with_name("buf")), "lint", str(descriptors)]
    given = json.dumps(configuration(descriptors.read_bytes()))
    return subprocess.run([*buf, "--config", given], cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(lint(REPOSITORY / "build" / "moa.binpb"))
