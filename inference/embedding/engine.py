"""An encoder at work: texts of all requests in calls by tokens, the fairest account's first."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import ClassVar

from inference import engine, metrics
from inference.embedding.model import Encoder
from inference.embedding.queue import Embedded, Queue, Request, Text
from inference.fair import NAMELESS, Flow
from inference.tokenizing import tokenized
from services.common import logs
from services.common.errors import ContextTooLong, Internal

_log = logs.get("embedding")


class EmbeddingEngine(engine.Engine[Request, Text, Sequence[list[float]]]):
    """Embeds the texts of many requests together.

    Args:
        name: The model's catalogue id, for logs and metrics.
        encoder: The loaded model.
        batch_tokens: Tokens of one call, padding included.
        max_waiting: Texts of one flow that may wait.
    """

    makes: ClassVar[str] = "embedding"

    def __init__(self, name: str, encoder: Encoder, *, batch_tokens: int = 4096, max_waiting: int = 4096) -> None:
        self.encoder = encoder
        self.queue = Queue(name, batch_tokens=batch_tokens, max_waiting=max_waiting)
        """What waits and runs, to be looked at; it changes from one tick to the next."""
        super().__init__(name, self.queue, size_bytes=encoder.size_bytes)

    def read(self, texts: Sequence[str], *, truncate: bool) -> Generator[None, None, list[list[int]]]:
        """Return the tokens of texts; yield between slices. Raises ContextTooLong unless texts may be cut."""
        out = []
        for at, text in enumerate(texts):
            tokens = self.encoder.enclosed((yield from tokenized(text, self.encoder.tokens)))
            if len(tokens) > self.encoder.longest:
                if not truncate:
                    message = f"the text has {len(tokens)} tokens; the model reads {self.encoder.longest}"
                    raise ContextTooLong(message, param=f"texts[{at}]")
                tokens = self.encoder.cut(tokens)
            out.append(tokens)
            yield
        return out

    @staticmethod
    def request(texts: Sequence[list[int]], flow: Flow = NAMELESS) -> Request:
        """Return the job of embedding texts."""
        request = Request(flow=flow, left=len(texts))
        request.texts = [Text(request, tokens) for tokens in texts]
        return request

    async def embed(self, request: Request) -> list[list[float]]:
        """Return the vectors. Texts of a call that is cancelled are not embedded. Raises QueueFull."""
        embedded: Embedded = await self.result(request)
        return embedded.vectors

    def _admit(self, entering: list[Request]) -> None:
        """Do nothing: texts are embedded in one step."""

    def _step(self, batch: list[Text]) -> Sequence[list[float]]:
        """Return the texts' vectors; none, with their requests failed, when the call fails."""
        try:
            return self.encoder.embed([text.tokens for text in batch])
        except Exception:
            _log.exception("embedding.failed", model=self.name)
            for text in batch:
                self._fail(text.request, Internal("the texts could not be embedded"))
            return ()

    def _finish(self, batch: list[Text], output: Sequence[list[float]]) -> None:
        for text, vector in zip(batch, output, strict=False):
            metrics.WORK.labels(self.name, text.request.flow.priority).inc(len(text.tokens))
            text.vector = vector
            text.request.left -= 1
            if not text.request.left:
                self._end(text.request, Embedded([done.vector for done in text.request.texts]))
