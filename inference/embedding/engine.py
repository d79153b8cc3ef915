"""An encoder at work: texts of all requests in batches by tokens, the fairest account's first."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from inference import metrics
from inference.embedding.model import Encoder
from inference.fair import NAMELESS, Flow, Shares, crowded
from inference.tokenizing import tokenized
from services.common import logs
from services.common.errors import ContextTooLong, Internal, MoaError, QueueFull, Unavailable

_log = logs.get("embedding")


@dataclass(slots=True, eq=False)
class _Text:
    tokens: list[int]
    flow: Flow
    number: int
    done: asyncio.Future[list[float]] = field(repr=False)


class EmbeddingEngine:
    """Embeds the texts of many requests together.

    Args:
        name: The model's catalogue id, for logs and metrics.
        encoder: The loaded model.
        batch_tokens: Tokens of one call, padding included.
        max_waiting: Texts of one flow that may wait.
    """

    def __init__(self, name: str, encoder: Encoder, *, batch_tokens: int = 4096, max_waiting: int = 4096) -> None:
        self.name = name
        self.encoder = encoder
        self.calls = 0
        self._batch_tokens = batch_tokens
        self._max_waiting = max_waiting
        self._waiting: dict[Flow, list[_Text]] = {}
        self._shares = Shares()
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopping = False
        self._text_s = 0.01
        self._thread = threading.Thread(target=self._loop, name=f"embedding-{name}", daemon=True)

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights."""
        return self.encoder.size_bytes

    def start(self) -> None:
        """Start the loop's thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the loop; what waits fails as unavailable."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def read(self, texts: Sequence[str], *, truncate: bool) -> Generator[None, None, list[list[int]]]:
        """Return the tokens of texts; yield between slices. Raises ContextTooLong unless texts may be cut."""
        out = []
        for at, text in enumerate(texts):
            tokens = self.encoder.enclosed((yield from tokenized(text, self.encoder.tokens)))
            if len(tokens) > self.encoder.longest:
                if not truncate:
                    told = f"the text has {len(tokens)} tokens; the model reads {self.encoder.longest}"
                    raise ContextTooLong(told, param=f"texts[{at}]")
                tokens = self.encoder.cut(tokens)
            out.append(tokens)
            yield
        return out

    async def embed(self, texts: Sequence[list[int]], flow: Flow = NAMELESS) -> list[list[float]]:
        """Return the vectors. Texts of a call that is cancelled are not embedded. Raises QueueFull."""
        loop = asyncio.get_running_loop()
        mine = [_Text(tokens, flow, next(self._numbers), loop.create_future()) for tokens in texts]
        with self._changed:
            if self._stopping:
                raise Unavailable("the model is being unloaded; try again", retry_after_s=1)
            own = len(self._waiting.get(flow, ())) + len(mine)
            everyone = sum(map(len, self._waiting.values())) + len(mine)
            if crowded(own, everyone, self._max_waiting):
                raise QueueFull(
                    f"the queue of model {self.name} is full", retry_after_s=max(1.0, own * self._text_s / 2)
                )
            self._shares.enter(flow, set(self._waiting), self._batch_tokens)
            self._waiting.setdefault(flow, []).extend(mine)
            self._changed.notify()
        try:
            return list(await asyncio.gather(*(text.done for text in mine)))
        finally:
            self._drop(mine, flow)

    def _drop(self, texts: Sequence[_Text], flow: Flow) -> None:
        """Forget what of these texts still waits."""
        gone = set(map(id, texts))
        with self._changed:
            if flow in self._waiting:
                self._keep(flow, [text for text in self._waiting[flow] if id(text) not in gone])

    def _keep(self, flow: Flow, texts: list[_Text]) -> None:
        if texts:
            self._waiting[flow] = texts
        else:
            self._waiting.pop(flow, None)

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and not self._waiting:
                    self._changed.wait()
                if self._stopping:
                    break
                batch = self._next()
            self._run(batch)
        with self._changed:
            lost = [text for texts in self._waiting.values() for text in texts]
            self._waiting.clear()
        self._settle(lost, Unavailable("the model was unloaded; try again", retry_after_s=1))

    def _next(self) -> list[_Text]:
        """Take a batch: what waits longest of the flow that is furthest behind, and texts as long from all flows."""
        first = min(self._waiting, key=lambda flow: (self._shares.clock(flow), self._waiting[flow][0].number))
        head = self._waiting[first][0]
        others = [text for texts in self._waiting.values() for text in texts if text is not head]
        # Texts of about one length waste no padding; of these the fairest first.
        others.sort(
            key=lambda text: (abs(len(text.tokens) - len(head.tokens)), self._shares.clock(text.flow), text.number)
        )
        batch, width = [head], len(head.tokens)
        for text in others:
            wider = max(width, len(text.tokens))
            if wider * (len(batch) + 1) > self._batch_tokens:
                break
            batch.append(text)
            width = wider
        taken = set(map(id, batch))
        for flow in {text.flow for text in batch}:
            self._shares.charge(flow, sum(len(text.tokens) for text in batch if text.flow == flow))
            self._keep(flow, [text for text in self._waiting[flow] if id(text) not in taken])
        return batch

    def _run(self, batch: list[_Text]) -> None:
        began = time.perf_counter()
        try:
            vectors = self.encoder.embed([text.tokens for text in batch])
        except Exception:
            _log.exception("embedding.failed", model=self.name)
            self._settle(batch, Internal("the texts could not be embedded"))
            return
        took = time.perf_counter() - began
        self.calls += 1
        self._text_s += 0.1 * (took / len(batch) - self._text_s)
        metrics.TICKS.labels(self.name).inc()
        metrics.ROWS.labels(self.name).inc(len(batch))
        metrics.TICK_SECONDS.labels(self.name).observe(took)
        for text in batch:
            metrics.WORK.labels(self.name, text.flow.priority).inc(len(text.tokens))
        self._settle(batch, vectors)

    @staticmethod
    def _settle(texts: Sequence[_Text], outcome: Sequence[list[float]] | MoaError) -> None:
        """Hand vectors, or one error, to the tasks that wait."""

        def hand(text: _Text, at: int) -> None:
            if text.done.done():
                return
            if isinstance(outcome, MoaError):
                text.done.set_exception(outcome)
            else:
                text.done.set_result(outcome[at])

        for at, text in enumerate(texts):
            loop = text.done.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(hand, text, at)
