"""The real text service on a free port, over a catalogue of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from moa.text.v1.text_pb2 import FinishReason, Message, Part, Role, TextEvent
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest, GenerateTextResponse
from moa.text.v1.text_service_pb2_grpc import TextServiceStub
from services.catalogue import Watched
from services.common.errors import MoaError, error_of
from services.common.rpc.client import channel, metadata
from services.common.rpc.status import error_from_rpc
from services.text.service import SERVICE
from services.text.settings import TextSettings
from tests import shipped

TOKEN = "a-service-token-for-tests"
Row = dict[str, object]


class Failed(Exception):
    """The stream ended with an `error` event."""

    def __init__(self, error: MoaError, before: list[TextEvent]) -> None:
        super().__init__(error.message)
        self.error = error
        self.before = before


class TextClient:
    """Calls the service as the router does."""

    def __init__(
        self, to_text: Any, targets: Any, catalogue_path: Path, watched: Watched, *, address: str = ""
    ) -> None:
        self.address = address
        self.stub = TextServiceStub(to_text)
        self._health = health_pb2_grpc.HealthStub(to_text)
        self.targets = targets
        self.catalogue_path = catalogue_path
        self.watched = watched

    def call(self, request: GenerateTextRequest) -> grpc.aio.UnaryStreamCall[GenerateTextRequest, GenerateTextResponse]:
        """Begin a call."""
        made: grpc.aio.UnaryStreamCall[GenerateTextRequest, GenerateTextResponse] = self.stub.GenerateText(
            request, metadata=metadata(TOKEN, "req-test")
        )
        return made

    async def turn(self) -> None:
        """Go to the service and back, behind whatever was sent before."""
        await self._health.Check(health_pb2.HealthCheckRequest())

    async def ask(self, request: GenerateTextRequest, told: list[TextEvent] | None = None) -> list[TextEvent]:
        """Return all events, which `told` has as they come. Raises MoaError for a status, Failed for an `error`."""
        events = [] if told is None else told
        try:
            async for message in self.call(request):
                events += message.events
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
        if events and events[-1].HasField("error"):
            raise Failed(error_of(events[-1].error), events[:-1])
        return events

    async def count(self, request: CountTokensRequest) -> int:
        """Count a prompt."""
        try:
            return int((await self.stub.CountTokens(request, metadata=metadata(TOKEN, "req-test"))).prompt_tokens)
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None


def write_catalogue(path: Path, providers: Sequence[Row], models: Sequence[Row]) -> None:
    """Write a catalogue's file."""
    shipped.written(path, providers, models)


@asynccontextmanager
async def text_service(
    folder: Path, providers: Sequence[Row], models: Sequence[Row], environment: Mapping[str, str]
) -> AsyncIterator[TextClient]:
    """Serve until the block ends."""
    path = folder / "catalogue.yaml"
    write_catalogue(path, providers, models)
    config = TextSettings(service_token=SecretStr(TOKEN), catalogue=path, listen="127.0.0.1:0", drain_s=0)
    async with (
        SERVICE.serve(config, environment) as served,
        channel(address := f"127.0.0.1:{served.port}") as opened,
    ):
        yield TextClient(opened, served.targets["text"], path, served.catalogue, address=address)


def chat(text: str = "hello", **more: object) -> GenerateTextRequest:
    """Return a request with one user message, for the model `m` of the provider `p`."""
    request = GenerateTextRequest(model="m", provider="p", stream=True, **more)  # type: ignore[arg-type]
    request.messages.append(Message(role=Role.ROLE_USER, parts=[Part(text=text)]))
    return request


def text_of(events: Sequence[TextEvent], candidate: int = 0) -> str:
    """Join the text of a candidate."""
    return "".join(e.text.text for e in events if e.candidate == candidate and e.HasField("text"))


def ending_of(events: Sequence[TextEvent]) -> FinishReason.ValueType:
    """Return the reason for which the one candidate ended."""
    (ended,) = [e.candidate_finished for e in events if e.HasField("candidate_finished")]
    return ended.reason


def ignored_of(events: Sequence[TextEvent]) -> list[str]:
    """Return what the answer says that it ignored."""
    return [name for event in events if event.HasField("started") for name in event.started.ignored]


def reasoning_of(events: Sequence[TextEvent]) -> str:
    """Join the reasoning."""
    return "".join(e.reasoning.text for e in events if e.HasField("reasoning"))
