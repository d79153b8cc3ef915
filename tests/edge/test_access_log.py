"""Which requests have a line in the access log."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests

from deploy.local.stack import Stack
from moa.text.v1 import text_service_pb2
from tests import forking
from tests.edge.test_requests import logged
from tests.edge.upstream import Upstream


def asked(edge: Stack, request_id: str, **body: Any) -> None:
    """Make a REST call."""
    requests.post(f"{edge.url}/generate/text", json=body, headers={"x-request-id": request_id}, timeout=20)


def called(edge: Stack, request_id: str, path: str, request: bytes) -> None:
    """Make a gRPC call."""
    with grpc.insecure_channel(edge.url.removeprefix("http://")) as channel:
        method: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
        answer = method(request, metadata=(("x-request-id", request_id),), timeout=20)
        with contextlib.suppress(grpc.RpcError):
            list(answer)


@pytest.mark.parametrize(
    ("level", "kept"), [("warning", {"unavailable", "internal", "absent", "grpc-absent"}), ("error", {"internal"})]
)
def test_the_level_is_obeyed(upstream: Upstream, tmp_path: Path, level: str, kept: set[str]) -> None:
    """Above `info` what went well, and what its caller did wrong, has no line: only the gateway's own failures have."""
    address = f"127.0.0.1:{upstream.port}"
    environment = {
        "MOA_ROUTER_ADDRESSES": address,
        "MOA_TASKS_ADDRESSES": "127.0.0.1:1",
        "MOA_LOG_LEVEL": level,
        "MOA_EDGE_RETRIES": "2",
        "MOA_EDGE_LOG_FLUSH_S": "0.05",
    }
    with Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment) as edge:
        asked(edge, "well")
        asked(edge, "streamed", act="sse", events=2)
        asked(edge, "forbidden", act="fail", reason="permission_denied", message="no")
        asked(edge, "limited", act="fail", reason="rate_limited", message="no")
        asked(edge, "unavailable", act="fail", reason="unavailable", message="no")
        requests.get(f"{edge.url}/nowhere", headers={"x-request-id": "nowhere"}, timeout=20)
        requests.get(f"{edge.url}/v1/predictions/x", headers={"x-request-id": "absent"}, timeout=20)
        for request_id, model in (("grpc-well", "present"), ("grpc-unknown", "absent")):
            body = text_service_pb2.GenerateTextRequest(model=model).SerializeToString()
            called(edge, request_id, "/moa.text.v1.TextService/GenerateText", body)
        called(edge, "grpc-absent", "/moa.task.v1.TaskService/GetTask", b"")
        asked(edge, "internal", act="crash")
        # The edge's threads write each for itself: the last request's line may come before that of another.
        logged(edge.log("edge"), *kept)
        whole, _, _ = edge.log("edge").read_text().rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        assert {line["request_id"] for line in lines} == kept
