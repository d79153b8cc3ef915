"""The router as it is put together for its process, behind the real edge; admission and whoever answers are played.

So a dialect is tried by its official client, byte for byte as a caller would, without the other services.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from PIL import Image
from pydantic import SecretStr

from moa.common.v1 import media_pb2, usage_pb2
from moa.embedding.v1 import embedding_service_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Catalogue, Model, Provider, Retirement
from services.common.egress import Egress
from services.common.errors import MoaError, PermissionDenied, Unauthenticated
from services.common.store import links_of
from services.common.store.folder import FolderStore
from services.quota_client.amounts import Amount
from services.router.assembly import Around, serving
from services.router.domain.operation import Whole
from services.router.domain.terms import Patience
from services.router.settings import RouterSettings
from tests.router.played_books import TIMEOUT_S, Books, Reservation, VerifiedKey
from tests.router.played_responses import PlayedResponses

KEY = "moa-test-key"
OTHER_KEY = "moa-other-key"
"""A valid key of another account, which may use no model."""
ACCOUNTS = {KEY: "acc1", OTHER_KEY: "acc2"}

TEXT_CAPABILITIES = frozenset(
    {"vision", "tools", "reasoning", "json", "json_schema", "logprobs", "candidates", "seed", "stop"}
)
IMAGE_CAPABILITIES = frozenset(
    (
        *("edit", "mask", "variation", "preview", "size", "aspect_ratio", "quality", "background", "output_format"),
        *("style", "colors", "moderation", "seed", "negative_prompt", "steps", "guidance_scale", "strength"),
    )
)
CATALOGUE = Catalogue(
    [
        Provider(id="p-text", adapter="played", makes="text", base_url="x"),
        Provider(id="p-image", adapter="played", makes="image", base_url="x"),
        Provider(id="p-bare", adapter="played", makes="text", base_url="x"),
        Provider(id="p-vision", adapter="inference", makes="vision"),
        Provider(id="p-embedding", adapter="played", makes="embedding", base_url="x"),
    ],
    [
        Model(id="smart", provider="p-text", capabilities=TEXT_CAPABILITIES, context_tokens=1000, created=1700000000),
        Model(id="anthropic.smart-v1:0", provider="p-text", capabilities=TEXT_CAPABILITIES),
        Model(id="plain", provider="p-text"),
        Model(
            id="gemini-2.5-flash-image",
            provider="p-image",
            capabilities=IMAGE_CAPABILITIES,
            defaults={"steps": 12},
        ),
        Model(id="gpt-image-1", provider="p-image", aliases=("painter",)),
        Model(id="away", provider="p-bare"),
        Model(id="eye", provider="p-vision"),
        Model(id="encoder", provider="p-embedding", capabilities=frozenset({"token_input", "dimensions"})),
        Model(id="plain-encoder", provider="p-embedding"),
        Model(
            id="old-alias",
            provider="p-text",
            retirement=Retirement(date=date(2025, 1, 2), announced=date(2024, 1, 2), successor="smart"),
        ),
        Model(
            id="old-gone",
            provider="p-text",
            retirement=Retirement(date=date(2025, 1, 2), successor="smart", policy="gone"),
        ),
        Model(id="ending", provider="p-text", retirement=Retirement(date=date(2999, 1, 2), successor="p-text/smart")),
    ],
    frozenset({"p-text", "p-image", "p-vision", "p-embedding"}),
)


async def _at_once(_: float) -> None:
    """Pass the time."""


class MessageStream:
    """Plays messages; a MoaError among them is raised, and a function is awaited before what follows it."""

    def __init__(self, messages: list[Any]) -> None:
        self._left = list(messages)

    async def read(self) -> Any:
        if not self._left:
            return None
        message = self._left.pop(0)
        if callable(message):
            await message()
            return await self.read()
        if isinstance(message, MoaError):
            raise message
        return message

    def close(self) -> None: ...

    def cancel(self) -> None:
        self._left = []


def text(*events: text_pb2.TextEvent) -> text_service_pb2.GenerateTextResponse:
    """Make a message of text events."""
    return text_service_pb2.GenerateTextResponse(events=events)


def said(piece: str, candidate: int = 0) -> text_pb2.TextEvent:
    """Make a piece of text."""
    return text_pb2.TextEvent(candidate=candidate, text=text_pb2.TextDelta(text=piece))


def thought(piece: str = "", signature: bytes = b"") -> text_pb2.TextEvent:
    """Make a piece of reasoning."""
    return text_pb2.TextEvent(reasoning=text_pb2.ReasoningDelta(text=piece, signature=signature))


def called(index: int, name: str = "", arguments: str = "", call_id: str = "", sign: bytes = b"") -> text_pb2.TextEvent:
    """Make a piece of a tool call."""
    piece = text_pb2.ToolCallDelta(call_index=index, id=call_id, name=name, arguments_json=arguments, signature=sign)
    return text_pb2.TextEvent(tool_call=piece)


def ended(
    reason: text_pb2.FinishReason.ValueType = text_pb2.FINISH_REASON_STOP, *, candidates: int = 1
) -> text_service_pb2.GenerateTextResponse:
    """Make the last message."""
    usage = usage_pb2.Usage(prompt_tokens=7, completion_tokens=5, reasoning_tokens=2, exact=True)
    events = [
        text_pb2.TextEvent(candidate=n, candidate_finished=text_pb2.CandidateFinished(reason=reason))
        for n in range(candidates)
    ]
    return text(*events, text_pb2.TextEvent(finished=text_pb2.Finished(usage=usage)))


def picture(width: int = 8, height: int = 8, form: str = "PNG", colour: str = "red") -> bytes:
    """Make an encoded image."""
    out = BytesIO()
    Image.new("RGB", (width, height), colour).save(out, form)
    return out.getvalue()


def _image(width: int, height: int, colour: str) -> media_pb2.ImageData:
    return media_pb2.ImageData(
        data=picture(width, height, colour=colour), mime_type="image/png", width=width, height=height
    )


def vectors_of(request: embedding_service_pb2.EmbedTextsRequest) -> embedding_service_pb2.EmbedTextsResponse:
    """Make the vectors of what is asked: each begins with the length of its text, or of its tokens."""
    size = request.dimensions or 4
    lengths = [len(text) for text in request.texts] or [len(given.tokens) for given in request.token_lists]
    made = [embedding_service_pb2.Embedding(values=[n, *[0.1] * (size - 1)], tokens=n) for n in lengths]
    usage = usage_pb2.Usage(prompt_tokens=sum(lengths), exact=True)
    return embedding_service_pb2.EmbedTextsResponse(embeddings=made, model=request.model, usage=usage)


@dataclass
class Played:
    """What the played services do, and what they saw. `script` is taken once; without one they give a default."""

    script: list[Any] = field(default_factory=list)
    texts: list[text_service_pb2.GenerateTextRequest] = field(default_factory=list)
    pictures: list[image_service_pb2.GenerateImageRequest] = field(default_factory=list)
    embedded: list[embedding_service_pb2.EmbedTextsRequest] = field(default_factory=list)
    counts: list[text_service_pb2.CountTokensRequest] = field(default_factory=list)
    books: Books = field(default_factory=Books)
    refusal: MoaError | None = None
    """Raised by admission instead of a reservation."""
    stores: bool = False
    """Whether accounts have their responses stored."""
    responses: PlayedResponses = field(default_factory=PlayedResponses)

    def reset(self) -> None:
        """Forget everything."""
        responses = self.responses
        self.__init__()  # type: ignore[misc]
        self.responses = responses
        responses.reset()

    # Admission.

    def verified(self, key: str) -> VerifiedKey | None:
        return VerifiedKey(ACCOUNTS[key], stores_responses=self.stores) if key in ACCOUNTS else None

    async def identify(self, key: str) -> VerifiedKey:
        if (known := self.verified(key)) is None:
            raise Unauthenticated("the API key is not valid")
        return known

    arrive = identify

    async def reserve(self, key: str, *, need: Amount, **_: Any) -> Reservation:
        verified_key = await self.identify(key)
        if self.refusal is not None:
            raise self.refusal
        if verified_key.account_id != "acc1":
            raise PermissionDenied("this key may not use this model", param="model")
        return Reservation(verified_key, need.tokens, self.books)

    # Whoever answers.

    def ask(
        self, operation: Any, request: Any, *_: Any, prompt_bound: int | None = None, books: bool = True
    ) -> MessageStream:
        kept = type(request)()
        kept.CopyFrom(request)
        script, self.script = self.script, []
        if operation.name == "text":
            self.texts.append(kept)
            return MessageStream(script or [text(said("Hel")), text(said("lo"), said(" 안녕")), ended()])
        if operation.name == "embedding":
            self.embedded.append(kept)
            return MessageStream(script or [Whole(vectors_of(kept))])
        self.pictures.append(kept)
        return MessageStream(script or self.images(request))

    @staticmethod
    def images(request: image_service_pb2.GenerateImageRequest) -> list[Any]:
        """Return the messages of an answer."""
        width, height = request.width or 16, request.height or 12
        messages = [image_service_pb2.GenerateImageResponse(events=[image_pb2.ImageEvent(queued=image_pb2.Queued())])]
        if request.preview_every:
            for step in range(request.preview_every, 13, request.preview_every):
                progress = image_pb2.Progress(step=step, steps=12, preview=_image(4, 4, "gray"))
                event = image_pb2.ImageEvent(progress=progress)
                messages.append(image_service_pb2.GenerateImageResponse(events=[event]))
        made = [
            image_pb2.ImageEvent(index=n, image=image_pb2.Image(image=_image(width, height, ("red", "blue")[n % 2])))
            for n in range(request.count)
        ]
        usage = usage_pb2.Usage(prompt_tokens=3, images=request.count)
        last = image_pb2.ImageEvent(finished=image_pb2.ImageFinished(usage=usage))
        return [*messages, image_service_pb2.GenerateImageResponse(events=[*made, last])]

    def end(self) -> None:
        """Nothing is under way that must be ended."""

    async def states(self) -> dict[str, Any]:
        return {}

    async def count_tokens(self, request: text_service_pb2.CountTokensRequest, *_: Any) -> int:
        self.counts.append(request)
        return 42


class Rig:
    """The router's server, as it is put together for every process, in a thread of this one.

    Args:
        folder: Where its objects lie.
        public_url: Where callers reach the edge in front of it.
        allow: A host that links of callers may name.
    """

    def __init__(self, folder: Path, *, public_url: str, allow: str = "") -> None:
        self._config = RouterSettings(
            service_token=SecretStr("a-token-of-the-rig"),
            listen="127.0.0.1:0",
            store_dir=folder,
            public_url=public_url,
            egress_allow=allow,
            drain_s=0,
        )
        self._folder = folder
        self.played = Played()
        self.store = FolderStore(folder)
        self.links = links_of(self._config)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rig")
        self._running = AsyncExitStack()

    def run(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(TIMEOUT_S)

    @contextmanager
    def storage_broken(self) -> Iterator[None]:
        """Have a file where the folder of objects was, so that none can be stored."""
        away = self._folder.with_name("away")
        self._folder.rename(away)
        self._folder.touch()
        yield
        self._folder.unlink()
        away.rename(self._folder)

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start)
        return self

    async def _start(self) -> None:
        self.egress = await self._running.enter_async_context(aclosing(Egress([self._config.egress_allow])))
        around = Around(
            catalogue=lambda: CATALOGUE,
            refused=str,
            facts_refused=str,
            admission=self.played,
            claims=None,
            responses=self.played.responses,
            backends=self.played,
            states=self.played.states,
            store=self.store,
            links=self.links,
            egress=self.egress,
            patience=Patience(pause=_at_once),
        )
        self.port = await self._running.enter_async_context(serving(self._config, around))

    def __exit__(self, *_: object) -> None:
        self.run(self._running.aclose)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
