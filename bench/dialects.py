"""`make bench-dialects`: what each dialect adds to a chat, over the typed call of the same shape, in one run.

Each is asked at the router, where the edge would ask it, one call at a time, each right beside its typed call, so that
whatever else the machine does falls on both alike. Told are medians: of each side, and of the differences within the
pairs; for whole answers, and for the first piece of streams. Goal: 0.3 ms at most. Writes `build/bench/dialects.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc
import uvloop
from google.api import httpbody_pb2

from bench.gateway import upstream
from bench.upstream import MODEL
from deploy.local.stack import Stack
from moa.router.v1 import (
    anthropic_service_pb2_grpc,
    google_service_pb2,
    google_service_pb2_grpc,
    native_service_pb2_grpc,
    openai_service_pb2_grpc,
    responses_service_pb2_grpc,
)
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc

OUT: Final = Path("build/bench/dialects.json")
GOAL_MS: Final = 0.3
WORDS: Final = "Say hello."
MOST: Final = 256
WARM: Final = 20
"""Rounds before what is counted."""

_TEXT_EVENTS: Final = (b"event: content_block_delta", b"event: response.output_text.delta")

Ask = Callable[[], Awaitable[float]]
"""Makes one call; gives when what is measured had come, by `time.perf_counter`."""


def _json(body: Mapping[str, Any]) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps(body).encode())


class Calls:
    """The calls, at a router."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._metadata = (("x-api-key", key),)
        self._text = text_service_pb2_grpc.TextServiceStub(channel)
        self._native = native_service_pb2_grpc.NativeServiceStub(channel)
        self._openai = openai_service_pb2_grpc.OpenAIServiceStub(channel)
        self._google = google_service_pb2_grpc.GoogleServiceStub(channel)
        self._anthropic = anthropic_service_pb2_grpc.AnthropicServiceStub(channel)
        self._responses = responses_service_pb2_grpc.ResponsesServiceStub(channel)

    def all(self) -> dict[str, tuple[Ask, Ask]]:
        """Return each dialect's call, and the typed one of the same shape, by name."""
        turns = [{"role": "user", "content": WORDS}]
        native = {"model_id": MODEL, "provider": "openai-text", "messages": turns, "max_tokens": MOST}
        openai = {"model": MODEL, "messages": turns, "max_tokens": MOST}
        responses = {"model": MODEL, "input": WORDS, "max_output_tokens": MOST}
        typed, stream = self._streamed(self._text.GenerateText, self._typed()), self._typed(stream=True)
        typed_stream = self._streamed(self._text.GenerateText, stream, first=True)
        found = {}
        for name, method, body in (
            ("native", self._native.GenerateText, native),
            ("openai", self._openai.CreateChatCompletion, openai),
            ("anthropic", self._anthropic.CreateMessage, openai),
            ("responses", self._responses.CreateResponse, responses),
        ):
            found[name] = (self._streamed(method, _json(body)), typed)
            streamed = _json({**body, "stream": True})
            found[f"{name}, first piece"] = (self._streamed(method, streamed, first=True), typed_stream)
        asked = google_service_pb2.GoogleServiceRequest(
            model=MODEL,
            body=_json({"contents": [{"parts": [{"text": WORDS}]}], "generationConfig": {"maxOutputTokens": MOST}}),
            alt="sse",
        )
        whole = text_service_pb2.GenerateWholeTextRequest(request=self._typed())
        found["google"] = (
            self._unary(self._google.GenerateContent, asked),
            self._unary(self._text.GenerateWholeText, whole),
        )
        found["google, first piece"] = (
            self._streamed(self._google.StreamGenerateContent, asked, first=True),
            typed_stream,
        )
        return found

    @staticmethod
    def _typed(*, stream: bool = False) -> text_service_pb2.GenerateTextRequest:
        request = text_service_pb2.GenerateTextRequest(model=MODEL, max_tokens=MOST, stream=stream)
        request.messages.add(role=text_pb2.ROLE_USER).parts.add(text=WORDS)
        return request

    def _unary(self, method: Any, request: Any) -> Ask:
        async def ask() -> float:
            await method(request, metadata=self._metadata)
            return time.perf_counter()

        return ask

    def _streamed(self, method: Any, request: Any, *, first: bool = False) -> Ask:
        """Read all; with `first`, tell when the first piece of text had come (typed: after `started`)."""

        async def ask() -> float:
            call = method(request, metadata=self._metadata)
            at = 0.0
            while (message := await call.read()) is not grpc.aio.EOF:
                if not at and _has_text(message):
                    at = time.perf_counter()
            return at if first else time.perf_counter()

        return ask


def _has_text(message: Any) -> bool:
    if isinstance(message, text_service_pb2.GenerateTextResponse):
        return any(event.HasField("text") for event in message.events)
    # Anthropic's streams and those of responses begin with events before the text.
    return not message.data.startswith(b"event: ") or any(mark in message.data for mark in _TEXT_EVENTS)


async def measure(address: str, key: str, calls: int) -> dict[str, dict[str, float]]:
    """Make all calls in turn; give the medians in milliseconds."""
    taken: dict[str, tuple[list[float], list[float]]] = {}
    async with grpc.aio.insecure_channel(address) as channel:
        pairs = Calls(channel, key).all()
        for turn in range(WARM + calls):
            for name, pair in pairs.items():
                # Who goes first changes: the second of two finds warmer caches.
                for side in (0, 1) if turn % 2 else (1, 0):
                    began = time.perf_counter()
                    came = await pair[side]()
                    if turn >= WARM:
                        taken.setdefault(name, ([], []))[side].append(1000 * (came - began))
    return {
        name: {
            "dialect_p50_ms": round(median(dialect), 3),
            "typed_p50_ms": round(median(typed), 3),
            "added_p50_ms": round(median(a - b for a, b in zip(dialect, typed, strict=True)), 3),
        }
        for name, (dialect, typed) in taken.items()
    }


def bench(calls: int) -> dict[str, Any]:
    """Start what is needed, measure, stop it."""
    with tempfile.TemporaryDirectory(prefix="moa-bench-") as folder, upstream() as direct:
        environment = {"OPENAI_BASE_URL": direct, "OPENAI_API_KEY": "sk-bench", "MOA_LOG_LEVEL": "warning"}
        names = ("auth", "text", "router")
        with Stack(Path(folder), environment=environment, processes=names) as stack:
            results = uvloop.run(measure(stack.address("router"), stack.api_key, calls))
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    return {"machine": machine, "calls": calls, "results": results, "goal": f"added_p50_ms <= {GOAL_MS:g}"}


def main() -> None:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=400, help="calls of each kind")
    report = bench(parser.parse_args().calls)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{'':<24}{'dialect':>10}{'typed':>10}{'added':>10}   ms, medians; goal: added <= {GOAL_MS:g}")
    for name, row in report["results"].items():
        print(f"{name:<24}" + "".join(f"{value:>10.3f}" for value in row.values()))
    print(f"written to {OUT}")


if __name__ == "__main__":
    main()
