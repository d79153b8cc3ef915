"""Several router workers behind one edge."""

from __future__ import annotations

import re
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import requests

from deploy.local.ports import Ports
from deploy.local.stack import Stack
from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from services.quota_client import Recording
from tests import forking, waiting
from tests.edge.upstream import Upstream, mortal

APART_BYTES = 256 * 1024
"""A larger request goes to routers of its own."""
LARGE_BYTES = 5_000_000
"""More than any buffer on the way holds, so that a request is sent anew only where it was kept."""


def healthy(stack: Stack) -> int:
    """Return how many routers the edge takes for well."""
    told = requests.get(stack.internal_url + "/metrics/edge", timeout=20).text
    found = re.search(r'^envoy_cluster_membership_healthy\{envoy_cluster_name="router"\} (\d+)$', told, re.MULTILINE)
    assert found
    return int(found[1])


def test_workers_share_and_stand_in(tmp_path: Path) -> None:
    """Workers share the requests of one connection; when one is gone the other answers all, and none fails."""
    with Upstream() as staying:
        with Upstream() as leaving:
            addresses = f"127.0.0.1:{staying.port},127.0.0.1:{leaving.port}"
            stack = Stack(
                tmp_path, processes=["edge"], start=forking.spawn, environment={"MOA_ROUTER_ADDRESSES": addresses}
            ).start()
            with requests.Session() as session:
                # By chance: of a fixed number one of them may have few.
                while min(staying.held.calls, leaving.held.calls) < 10:
                    assert session.post(stack.url + "/generate/text", json={}, timeout=20).status_code == 200
            assert healthy(stack) == 2
        try:
            # A request on a connection whose end the edge has not read yet fails, and must: it may have been served.
            until = time.monotonic() + 90
            while healthy(stack) == 2:
                assert time.monotonic() < until, "the edge does not let go of the worker that is gone"
                # Whoever is left out for a request is left out at once; it is looked at by itself each twenty seconds.
                requests.post(stack.url + "/generate/text", json={}, timeout=20)
            with requests.Session() as session:
                before = staying.held.calls
                for _ in range(20):
                    assert session.post(stack.url + "/generate/text", json={}, timeout=20).status_code == 200
            assert staying.held.calls == before + 20
        finally:
            stack.stop()


def test_a_router_that_could_record_nothing_is_left_out(tmp_path: Path) -> None:
    """Its journal's disk is full and auth away from it: the other router gets all requests; where there is no other it
    goes on to be asked, and says itself why it refuses. Once it can record it is asked again."""
    full = "No space left on device"
    with Upstream() as well, Upstream() as ill:
        environment = {
            "MOA_ROUTER_ADDRESSES": f"127.0.0.1:{well.port},127.0.0.1:{ill.port}",
            "MOA_EDGE_LOOK_S": "0.5",
        }
        with (
            Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment) as stack,
            requests.Session() as session,
        ):

            def ready() -> requests.Response:
                return session.get(stack.internal_url + "/ready", timeout=20)

            def counted(routers: int) -> None:
                pauses = waiting.pauses()
                while healthy(stack) != routers:
                    time.sleep(next(pauses))

            counted(2)
            ill.held.recording = Recording(full)
            told = set[tuple[bool, str]]()
            while len(told) < 2:  # auth books what it serves: it is asked as before
                each = ready().json()
                told.add((each["journal_failed"], each["journal_fault"]))
            assert told == {(False, ""), (True, full)}
            ill.held.recording = Recording(full, refuses=True)
            counted(1)
            for _ in range(10):
                assert session.post(stack.url + "/generate/text", json={}, timeout=20).status_code == 200
            assert ill.held.calls == 0
            assert not any(ready().json()["journal_failed"] for _ in range(10))
            well.held.recording = Recording(full, refuses=True)
            counted(0)
            answer = ready()
            assert answer.status_code == 503
            assert f"journal cannot be written ({full})" in answer.text
            assert session.head(stack.url + "/ready", timeout=20).status_code == 503
            well.held.recording = ill.held.recording = Recording()
            counted(2)
            assert ready().status_code == 200


def test_large_requests_go_to_a_router_of_their_own(tmp_path: Path) -> None:
    """REST, forms and gRPC alike, whatever the framing; where that router is gone the others take them, and small ones
    never come to it."""
    key = {"X-API-Key": "moa-known"}

    def ask(size: int, **how: Any) -> int:
        body = b"[%s]" % (b" " * (size - 2))
        headers = {**key, "Content-Type": "application/json"}
        how = {"data": body, "headers": headers, "timeout": 20, **how}
        return int(requests.post(stack.url + "/generate/text", **how).json()["size"])

    with ExitStack() as ending:
        small, gone = ending.enter_context(Upstream()), ExitStack()
        large = gone.enter_context(Upstream())
        environment = {
            "MOA_ROUTER_ADDRESSES": f"127.0.0.1:{small.port}",
            "MOA_LARGE_ROUTER_ADDRESSES": f"127.0.0.1:{large.port}",
        }
        stack = ending.enter_context(Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment))
        for size in (10, APART_BYTES, APART_BYTES + 1, LARGE_BYTES):
            assert ask(size) == size
        assert ask(0, data=iter([b"[", b" " * LARGE_BYTES, b"]"])) == LARGE_BYTES + 2
        form = {"image": ("a.png", b"x" * LARGE_BYTES)}
        requests.post(stack.url + "/v1/images/edits", files=form, headers=key, timeout=20)
        with grpc.insecure_channel(f"127.0.0.1:{stack.port}", (("grpc.max_send_message_length", -1),)) as channel:
            for size, taker in ((10, small), (LARGE_BYTES, large)):
                asked = text_service_pb2.CountTokensRequest(model="x" * size)
                metadata = (("x-api-key", "moa-known"), ("x-request-id", str(size)))
                text_service_pb2_grpc.TextServiceStub(channel).CountTokens(asked, metadata=metadata, timeout=20)
                assert taker.held.told["x-request-id"] == str(size)
        assert (small.held.calls, large.held.calls) == (2, 4)
        gone.close()
        # One on a connection whose end the edge has not read yet may fail: it may have been served.
        until = time.monotonic() + 90
        while small.held.calls < 4:
            assert time.monotonic() < until, "nobody takes the large requests of a router that is gone"
            requests.post(stack.url + "/generate/text", data=b" " * LARGE_BYTES, headers=key, timeout=20)


def retries(stack: Stack) -> int:
    """Return how often the edge has sent requests for the router again."""
    told = requests.get(stack.internal_url + "/metrics/edge", timeout=20).text
    found = re.search(r'^envoy_cluster_upstream_rq_retry\{envoy_cluster_name="router"\} (\d+)$', told, re.MULTILINE)
    return int(found[1]) if found else 0


def test_a_request_waits_for_a_router_that_is_started_again(tmp_path: Path) -> None:
    """The only router is killed: requests that come then, small, large and more than a few at once, are answered by its
    successor."""
    port = Ports().any()
    environment = {"MOA_ROUTER_ADDRESSES": f"127.0.0.1:{port}", "MOA_EDGE_RETRIES": "200"}
    answers: list[Any] = []

    def ask(size: int) -> None:
        body = {"filler": "x" * size}
        answers.append(requests.post(stack.url + "/generate/text", json=body, headers=key, timeout=110))

    key = {"X-API-Key": "moa-known"}
    with ExitStack() as ending:
        process = ending.enter_context(mortal(port))
        stack = ending.enter_context(Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment))
        process.kill()
        process.wait()
        threads = [threading.Thread(target=ask, args=(size,)) for size in (0,) * 10 + (LARGE_BYTES,)]
        for thread in threads:
            thread.start()
        pauses = waiting.pauses()
        while retries(stack) < 3 * len(threads):
            time.sleep(next(pauses))
        with mortal(port):
            for thread in threads:
                thread.join()
    assert [answer.status_code for answer in answers] == [200] * len(threads), [a.text[:200] for a in answers]
    assert max(answer.json()["size"] for answer in answers) > LARGE_BYTES
