"""Make the images of one request: ask the provider as often as that takes, side by side, and give what comes.

Leaving the block closes the provider's sockets at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Final, Self

from yarl import URL

from moa.common.v1.rates_pb2 import UpstreamRates
from moa.common.v1.usage_pb2 import Usage
from moa.image.v1.image_pb2 import ImageEvent, ImageFinished
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model
from services.common import estimate
from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.errors import ContentPolicy, UpstreamBroken, UpstreamFailed
from services.common.helper_process import HelperProcess
from services.common.hosts import agrees, destination_of
from services.common.images import digest
from services.common.reencode import converted
from services.image import prepare
from services.image.targets import Target
from services.providers import counts
from services.providers.http.classify import words_of
from services.providers.http.client import Outgoing, Pool, proxy_for
from services.providers.http.deadline import Deadline
from services.providers.http.exchange import Upload
from services.providers.image import capable
from services.providers.image.base import Call, Link
from services.providers.image.picture import Picture
from services.providers.image.reading import Out, image_event

SIDE_BY_SIDE: Final = 4
"""How many calls of one request run at once."""


class Generation:
    """The images of one request. Use it as `async with Generation(…) as generation`, then `next` until it gives None.

    `next` raises MoaError when a call fails; the images given before were delivered all the same (`usage`). Text is
    given with the first image at the earliest: an answer without one raises ContentPolicy, with what the model said.

    Args:
        request: Nobody else may hold it: it is let go once the provider's calls are made of it.
        helper: Where that is done for large pictures; None: here.
    """

    def __init__(
        self, request: GenerateImageRequest, model: Model, target: Target, helper: HelperProcess | None = None
    ) -> None:
        self._taken = [request]
        self._format = capable.FORMATS.get(request.output_format, "")
        self._converting = asyncio.Lock()
        self._helper = helper
        self._model = model
        self._target = target
        self._events: asyncio.Queue[ImageEvent | Picture | BaseException | None] = asyncio.Queue()
        self._turns = asyncio.Semaphore(SIDE_BY_SIDE)
        self._tasks: list[asyncio.Task[None]] = []
        self._came = 0
        """How many images have come from the provider."""
        self._uploads: dict[Upload, int] = {}
        """The calls that run, each with how many of its images have not come yet."""
        self._running = 0
        self._out = False
        """Whether an event was given out, and not known to be written yet."""
        self._next_index = 0
        """The index of the next image beyond those that were asked for."""
        self._links: Pool | None = None
        self._withheld: deque[ImageEvent] = deque()
        """Text that came before any image."""
        self._due: deque[ImageEvent | Picture] = deque()
        """The first image, behind the text that came before it: given out next."""
        self.usage = Usage(exact=True)
        """What was consumed so far."""
        self.upstream_request_id = ""
        """The provider's id of the latest answer, for the log."""
        self._rates: UpstreamRates | None = None

    @property
    def owed(self) -> int:
        """How many images a caller who leaves now owes: those that came, and those that may be in the making."""
        return self._came + sum(count for upload, count in self._uploads.items() if upload.begun)

    async def __aenter__(self) -> Self:
        calls = await prepare.provider_calls(self._taken, self._model, self._target, self._helper)
        first = 0
        for call in calls:
            self._tasks.append(asyncio.create_task(self._run(call, range(first, first + call.count))))
            first += call.count
        self._next_index = first
        self._running = len(calls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancel_and_wait(*self._tasks, again_s=CLEANING_S)
        if self._links is not None:
            await self._links.close()

    async def next(self) -> ImageEvent | Picture | None:
        """Return the next event; None after `finished`. Whoever asks has written the one before."""
        if self._out:
            self._out = False
            self._events.task_done()
        while self._running and not self._due:
            event = await self._events.get()
            if isinstance(event, BaseException):
                raise event
            if event is not None:
                self._take(event)
                continue
            self._events.task_done()
            self._running -= 1
            if not self._running:
                return self._finished()
        if not self._due:
            return None
        event = self._due.popleft()
        # Text that was held back is out of the queue already; what came last is done once it is written.
        self._out = not self._due
        return event

    def _take(self, event: ImageEvent | Picture) -> None:
        """Let an event be given out next, behind the text that waited for an image; text waits for the first one."""
        shown = event.event if isinstance(event, Picture) else event
        if shown.HasField("text") and not self.usage.images:
            self._withheld.append(shown)
            self._events.task_done()
            return
        if shown.HasField("image"):
            self.usage.images += 1
            self._due.extend(self._withheld)
            self._withheld.clear()
        self._due.append(event)

    def _finished(self) -> ImageEvent:
        """Return the last event. Raises ContentPolicy where there is no image."""
        if not self.usage.images:
            text = words_of("".join(event.text.text for event in self._withheld))
            words = f" and said: {text}" if text else ""
            raise ContentPolicy(f"the model made no image{words}", param="prompt")
        return ImageEvent(finished=ImageFinished(usage=self.usage, rates=self._rates))

    async def _run(self, call: Call, places: range) -> None:
        """Make one call; its events go to the queue, with the indices of its places, then None."""
        upload = Upload()
        self._uploads[upload] = call.count
        try:
            async with self._turns:
                with Deadline() as deadline:
                    await self._answered(call, places, deadline, upload)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            del self._uploads[upload]
            self._events.put_nowait(error)
        else:
            del self._uploads[upload]
            self._events.put_nowait(None)

    async def _answered(self, call: Call, places: range, deadline: Deadline, upload: Upload) -> None:
        timeouts = self._target.pool.timeouts
        deadline.within(timeouts.connect_s + timeouts.first_token_s, "begin to answer")
        reply = await self._target.ask(call.outgoing, upload)
        try:
            self.upstream_request_id = reply.headers.get(self._target.adapter.request_id_header, "")
            self._rates = self._target.rates(reply)
            reader = self._target.adapter.reader(call, self._model, reply.headers)
            while data := await reply.read_some():
                await self._give(reader.feed(data), places, deadline, upload)
                if reader.failure is not None:
                    raise self._target.judged(reader.failure, 200)
                deadline.within(timeouts.idle_s, "go on")
            await self._give(reader.end(), places, deadline, upload)
            if reader.failure is not None:
                raise self._target.judged(reader.failure, 200)
        finally:
            reply.close()
        self._add(reader.reported)

    def _add(self, reported: estimate.ReportedUsage | None) -> None:
        """Add what a call consumed."""
        if reported is None:
            return
        counts.note(self._target.provider.id, reported)
        more, usage = reported.usage(), self.usage
        usage.prompt_tokens = min(usage.prompt_tokens + more.prompt_tokens, estimate.MOST)
        usage.completion_tokens = min(usage.completion_tokens + more.completion_tokens, estimate.MOST)
        usage.reasoning_tokens = min(usage.reasoning_tokens + more.reasoning_tokens, estimate.MOST)
        usage.cached_tokens = min(usage.cached_tokens + more.cached_tokens, estimate.MOST)
        usage.prompt_image_tokens = min(usage.prompt_image_tokens + more.prompt_image_tokens, estimate.MOST)
        images = usage.completion_image_tokens + more.completion_image_tokens
        usage.completion_image_tokens = min(images, estimate.MOST)
        usage.exact = usage.exact and more.exact

    async def _give(self, events: list[Out], places: range, deadline: Deadline, upload: Upload) -> None:
        for event in events:
            made = await self._fetched(event, deadline) if isinstance(event, Link) else event
            shown = made.event if isinstance(made, Picture) else made
            self._place(shown, places)
            if shown.HasField("image"):
                self._came += 1
                self._uploads[upload] = max(0, self._uploads[upload] - 1)
                # Neither the conversion nor the wait for it is the provider's.
                deadline.rest()
                await self._convert(made)
                if isinstance(made, Picture) and shown.image.HasField("receipt"):
                    shown.image.receipt.sha256 = await digest(made.data)
            self._events.put_nowait(made)
            del made, shown
            # Nothing more is read before this has been written to the caller, however long that takes: pictures
            # would pile up. The wait is not the provider's.
            deadline.rest()
            await self._events.join()

    def _place(self, shown: ImageEvent, places: range) -> None:
        """Turn an index within a call into one of the whole request, which no other call gives."""
        if shown.index < len(places):
            shown.index = places[shown.index]
            return
        shown.candidate = places[-1]
        shown.index = self._next_index
        self._next_index += 1

    async def _convert(self, made: ImageEvent | Picture) -> None:
        """Bring an image into the format that was asked for, one at a time: decoded, it takes many times its size."""
        image = (made.event if isinstance(made, Picture) else made).image
        if not self._format or image.image.mime_type == f"image/{self._format}" or not isinstance(made, Picture):
            return
        async with self._converting:
            made.data, (image.image.width, image.image.height) = await asyncio.to_thread(
                converted, made.data, self._format
            )
        image.image.mime_type = f"image/{self._format}"

    def _linked(self, link: str) -> URL:
        """Return where a link of the provider leads: to the provider itself, or to a public place by https."""
        try:
            url, place = URL(link), destination_of(link)
            own = url.origin() == URL(self._target.provider.base_url).origin()
        except ValueError:
            raise UpstreamBroken("the provider's link to the image is not a valid URL") from None
        if not own and (place.scheme != "https" or place.is_inside or not agrees(url, place)):
            raise UpstreamBroken("the provider's link to the image leads to a host that is not allowed")
        return url

    async def _fetched(self, link: Link, deadline: Deadline) -> Picture:
        """Fetch an image that the answer links to, without credentials."""
        url = self._linked(link.url)
        timeouts = self._target.pool.timeouts
        if self._links is None:
            self._links = Pool(timeouts, proxy=proxy_for(link.url))
        deadline.within(timeouts.connect_s + timeouts.first_token_s, "give its image")
        reply = await self._links.send(
            Outgoing(url, b"", {}, "GET"), {"User-Agent": "moa", "Accept-Encoding": "identity"}
        )
        try:
            if reply.status != 200:
                raise UpstreamFailed("the provider's image cannot be fetched")
            data = await reply.read_all()
        finally:
            reply.close()
        return image_event(link.index, data, revised_prompt=link.revised_prompt, seed=link.seed)
