"""A running inference server, and calls to it as a service makes them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from pydantic import SecretStr

from inference.__main__ import Process, serve
from inference.settings import InferenceSettings
from inference.text.events import Shown
from moa.common.v1 import error_pb2, media_pb2, usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2, image_service_pb2_grpc
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from services.common.errors import MoaError
from services.common.rpc import client
from services.common.rpc.status import error_from_rpc

TOKEN = "a-service-token-for-tests"
CATALOGUE = Path("gateway/catalogue.yaml")
CHAT = "moa-tiny-chat"
IMAGE = "moa-tiny-image"


class Running:
    """A process on a loop and thread of its own, as far from the tests' loops as another process would be."""

    def __init__(self, catalogue: Path = CATALOGUE, **settings: Any) -> None:
        self.process: Process
        # One thread an operation: tests share few cores, and two threads then wait for each other.
        self._config = InferenceSettings(
            service_token=SecretStr(TOKEN),
            catalogue=catalogue,
            listen="127.0.0.1:0",
            torch_threads=1,
            drain_s=0.5,
            **settings,
        )
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._started.wait(120)
        if self._failed is not None:
            raise self._failed

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._stop = asyncio.Event()
        try:
            self._loop.run_until_complete(self._main())
        except Exception as error:
            # Who waits for the start is told at once why there is none.
            if self._started.is_set():
                raise
            self._failed = error
            self._started.set()
        finally:
            self._loop.close()

    async def _main(self) -> None:
        async with serve(self._config) as self.process:
            self.address = f"127.0.0.1:{self.process.port}"
            self._started.set()
            await self._stop.wait()

    def stop(self) -> None:
        """Stop as on SIGTERM."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def engine(self, name: str) -> Any:
        """Return a loaded model's engine."""
        return self.process.registry.engines()[name]

    @contextlib.contextmanager
    def held(
        self,
        name: str,
        *,
        after_ticks: int = 0,
        when: Callable[[Any], bool] | None = None,
        reached: threading.Event | None = None,
    ) -> Iterator[Any]:
        """Hold a loaded model's engine after so many more ticks, or `when` that is true of it, until the block ends.

        Yield the engine. `reached` is set when it is held.
        """
        engine = self.engine(name)
        ticks = threading.Semaphore(after_ticks)
        go_on = threading.Event()
        tick = engine.tick

        def waiting() -> None:
            if when(engine) if when is not None else not ticks.acquire(blocking=False):
                if reached is not None:
                    reached.set()
                go_on.wait()
            tick()

        engine.tick = waiting
        try:
            yield engine
        finally:
            del engine.tick
            go_on.set()

    @contextlib.contextmanager
    def in_step(self, name: str) -> Iterator[Callable[[], None]]:
        """Have a loaded model's engine tick again only after the pieces of its last tick were taken, in the block.

        Yield what to call for each piece that was taken.
        """
        engine = self.engine(name)
        submit, tick = engine.submit, engine.tick
        taken = threading.Semaphore(0)
        given = 0

        def submitted(job: Any, emit: Callable[[Any], None]) -> None:
            def counted(event: Any) -> None:
                nonlocal given
                given += isinstance(event, Shown)
                emit(event)

            submit(job, counted)

        def waiting() -> None:
            nonlocal given
            for _ in range(given):
                taken.acquire()
            given = 0
            tick()

        engine.submit, engine.tick = submitted, waiting
        try:
            yield taken.release
        finally:
            del engine.submit, engine.tick
            # What is left has nobody who takes it.
            taken.release(1_000)


@dataclass
class TextOut:
    """A drained answer."""

    text: str = ""
    reasoning: str = ""
    messages: int = 0
    usage: usage_pb2.Usage | None = None
    ends: list[text_pb2.CandidateFinished] = field(default_factory=list)
    logprobs: list[text_pb2.TokenLogprob] = field(default_factory=list)
    by_candidate: dict[int, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


@dataclass
class ImageOut:
    """A drained order."""

    images: dict[int, image_pb2.Image] = field(default_factory=dict)
    events: list[image_pb2.ImageEvent] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        """The first image's file."""
        return self.images[0].image.data

    def kinds(self) -> list[str]:
        """The kinds of the events, in order."""
        return [str(e.WhichOneof("event")) for e in self.events]


class Client:
    """Calls a running server. Use inside one event loop."""

    def __init__(self, address: str, token: str = TOKEN) -> None:
        self.channel = client.channel(address)
        self.metadata = client.metadata(token, "test")
        self.text_stub = text_service_pb2_grpc.TextServiceStub(self.channel)
        self.image_stub = image_service_pb2_grpc.ImageServiceStub(self.channel)

    def text_call(
        self, prompt: str = "", *, metadata: Iterable[tuple[str, str]] = (), **fields: Any
    ) -> grpc.aio.UnaryStreamCall[Any, Any]:
        """Open a text stream."""
        return self.text_stub.GenerateText(chat(prompt, **fields), metadata=(*self.metadata, *metadata))

    def image_call(self, *more: tuple[str, str], timeout_s: float | None = None, **fields: Any) -> Any:
        """Open an image stream."""
        fields.setdefault("model", IMAGE)
        fields.setdefault("stream", True)
        request = image_service_pb2.GenerateImageRequest(**fields)
        return self.image_stub.GenerateImage(request, metadata=(*self.metadata, *more), timeout=timeout_s)

    async def text(self, prompt: str = "", *, took: Callable[[], object] = lambda: None, **fields: Any) -> TextOut:
        """Ask and drain; call `took` for each piece of the text. Raises the error that the call ended with."""
        out = TextOut()
        async for event in _events(
            self.text_call(prompt, **fields), lambda: setattr(out, "messages", out.messages + 1)
        ):
            out.text += event.text.text
            if event.HasField("text"):
                took()
            out.by_candidate[event.candidate] = out.by_candidate.get(event.candidate, "") + event.text.text
            out.reasoning += event.reasoning.text
            out.logprobs.extend(event.text.logprobs)
            out.ignored.extend(event.started.ignored)
            if event.HasField("candidate_finished"):
                out.ends.append(event.candidate_finished)
            if event.HasField("finished"):
                out.usage = event.finished.usage
        return out

    async def image(self, *more: tuple[str, str], timeout_s: float | None = None, **fields: Any) -> ImageOut:
        """Ask and drain. Raises the error that the call ended with."""
        out = ImageOut()
        async for event in self.image_events(*more, timeout_s=timeout_s, **fields):
            out.events.append(event)
            if event.HasField("image"):
                out.images[event.index] = event.image
        return out

    def image_events(self, *more: tuple[str, str], timeout_s: float | None = None, **fields: Any) -> AsyncIterator[Any]:
        """Ask and give the events as they come. Raises the error that the call ended with."""
        return _events(self.image_call(*more, timeout_s=timeout_s, **fields))

    async def count(self, prompt: str, *more: tuple[str, str]) -> int:
        """Count a prompt's tokens. Raises the error that the call ended with."""
        request = text_service_pb2.CountTokensRequest(model=CHAT, messages=chat(prompt).messages)
        try:
            counted = await self.text_stub.CountTokens(request, metadata=(*self.metadata, *more))
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
        return int(counted.prompt_tokens)

    async def close(self) -> None:
        """Close the channel."""
        await self.channel.close()


async def _events(call: Any, on_message: Callable[[], None] = lambda: None) -> AsyncIterator[Any]:
    try:
        async for response in call:
            if not response.events:
                continue  # a sign of life
            on_message()
            for event in response.events:
                if event.HasField("error"):
                    raise InBand(event.error)
                yield event
    except grpc.aio.AioRpcError as failure:
        raise error_from_rpc(failure) from None


class InBand(Exception):
    """A stream ended with an error event."""

    def __init__(self, detail: error_pb2.ErrorDetail) -> None:
        super().__init__(detail.message)
        self.detail = detail


async def until(true: Callable[[], Any], *, within_s: float = 60.0) -> None:
    """Wait for what other threads bring about."""
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)


def chat(prompt: str, **fields: Any) -> text_service_pb2.GenerateTextRequest:
    """Make a request of one user turn."""
    fields.setdefault("model", CHAT)
    fields.setdefault("stream", True)
    fields.setdefault("sampling", text_pb2.Sampling(temperature=0))
    if prompt:
        fields["messages"] = [text_pb2.Message(role=text_pb2.ROLE_USER, parts=[text_pb2.Part(text=prompt)])]
    return text_service_pb2.GenerateTextRequest(**fields)


def small(**fields: Any) -> dict[str, Any]:
    """Return the fields of a cheap image request."""
    fields.setdefault("prompt", "a red circle on a white background")
    fields.setdefault("width", 64)
    fields.setdefault("height", 64)
    fields.setdefault("seed", 7)
    fields.setdefault("diffusion", image_pb2.Diffusion(steps=4))
    return fields


def given(data: bytes) -> media_pb2.ImageInput:
    """Return image bytes as an input."""
    return media_pb2.ImageInput(data=data)


__all__ = [
    "CHAT",
    "IMAGE",
    "Client",
    "ImageOut",
    "InBand",
    "MoaError",
    "Running",
    "TextOut",
    "chat",
    "given",
    "small",
    "until",
]
