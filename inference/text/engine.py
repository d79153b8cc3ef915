"""The text engine: all running answers a token further in each tick, and a chunk of one prompt read beside them.

Answers join as slots of the cache become free, and leave them as they end (`inference.engine`); whose prompt is read
next is the queue's choice.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from inference import engine, metrics
from inference.fair import NAMELESS, Flow
from inference.text.answer import CandidateText
from inference.text.ask import TextAsk
from inference.text.calls import CallPiece
from inference.text.constraint import Constraint, Grammars
from inference.text.events import Called, CandidateEnded, Ended, Shown
from inference.text.language import LanguageModel, Logits
from inference.text.prefixes import Prefixes
from inference.text.queue import Queue
from inference.text.sampling import Sampler
from inference.text.tools import Tool
from inference.text.turns import Turn
from inference.text.work import Candidate, Work
from inference.tokenizing import counted, tokenized
from services.common.errors import ContextTooLong


class TextEngine(engine.Engine[Work, Candidate, Mapping[int, Logits]]):
    """Generates for many requests at once with one model.

    Args:
        name: The model's catalogue id, for logs and metrics.
        model: The loaded model.
        rows: Answers that are decoded together.
        max_waiting: Answers of one flow that may wait for a slot.
    """

    makes: ClassVar[str] = "answer"

    def __init__(self, name: str, model: LanguageModel, *, rows: int = 8, max_waiting: int = 256) -> None:
        self.model = model
        self._decoder = model.decoder(rows)
        self._prefixes = Prefixes(rows)
        self.queue = Queue(name, rows=rows, max_waiting=max_waiting, chunk=self._decoder.chunk, place=self._place)
        """What waits and runs, to be looked at; it changes from one tick to the next."""
        super().__init__(name, self.queue, size_bytes=model.size_bytes)
        self._making_grammars = threading.Lock()
        self._made_grammars: Grammars | None = None

    def _reset(self) -> None:
        with self._changed:
            self._prefixes.clear()

    def _close(self) -> None:
        self._decoder.close()

    def prepare(self, ask: TextAsk, *, flow: Flow = NAMELESS) -> Work:
        """Return the work of a request, at once; for callers who hold nobody up. Raises as `read` and `work`."""
        reading = self.read(ask)
        while True:
            try:
                next(reading)
            except StopIteration as end:
                prompt, inside = end.value
                return self.work(ask, prompt, inside, flow=flow)

    def read(self, ask: TextAsk) -> Generator[None, None, tuple[list[int], bool]]:
        """Return a request's prompt in tokens, and whether it already opened the reasoning; yield between slices.

        Raises ContextTooLong.
        """
        offered = ask.tools.offered if ask.tools else ()
        text, inside = self._written(ask.turns, offered, think=ask.think, goes_on=ask.goes_on)
        return (yield from tokenized(text, self.model.tokens)), inside

    def count(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> Generator[None, None, int]:
        """Count a prompt's tokens, the template's included; yield between slices. Raises ContextTooLong."""
        text, _ = self._written(turns, tools, think=True)
        return (yield from counted(text, self.model.tokens))

    def _written(
        self, turns: Sequence[Turn], tools: Sequence[Tool], *, think: bool, goes_on: bool = False
    ) -> tuple[str, bool]:
        """Return a prompt as text. Raises ContextTooLong for one that is too long however it is tokenized."""
        text, inside = self.model.write(turns, tools, think=think, goes_on=goes_on)
        if (fewest := self.model.fewest_tokens(text)) > self.model.context:
            raise ContextTooLong(
                f"the prompt has {fewest} tokens at least; the model's context is {self.model.context}",
                param="messages",
            )
        return text, inside

    def work(self, ask: TextAsk, prompt: list[int], inside: bool, *, flow: Flow = NAMELESS) -> Work:
        """Return the work of a request that was read. Compiles its schema, which may take a while.

        Raises ContextTooLong, and InvalidField for a schema that cannot be used.
        """
        room = self.model.context - len(prompt)
        if room < 1:
            raise ContextTooLong(
                f"the prompt has {len(prompt)} tokens; the model's context is {self.model.context}", param="messages"
            )
        work = Work(ask, prompt, inside, min(ask.max_tokens, room), self._constraint(ask), flow=flow)
        work.left = ask.candidates
        work.candidates = [
            Candidate(
                work,
                index,
                CandidateText(self.model.decode, stops=ask.stop, inside=inside, calls=ask.tools is not None),
                Sampler(ask, index, self.model.token_text),
                None if work.constraint is None else work.constraint.copy(),
            )
            for index in range(ask.candidates)
        ]
        return work

    def _constraint(self, ask: TextAsk) -> Constraint | None:
        """Compile what an answer is held to, if anything."""
        if ask.tools is not None:
            several = self.model.takes_tools if ask.tools.parallel is None else ask.tools.parallel
            return self.grammars().calling(dataclasses.replace(ask.tools, parallel=several), ask.schema, ask.choices)
        if ask.choices:
            return self.grammars().choosing(ask.choices)
        return None if ask.schema is None else self.grammars().compiled(ask.schema)

    def grammars(self) -> Grammars:
        """Return the schema compiler; made on first use, for it takes a while."""
        with self._making_grammars:
            if self._made_grammars is None:
                self._made_grammars = self.model.grammars()
            return self._made_grammars

    def _place(self, candidate: Candidate, free: Sequence[int]) -> int:
        """Choose a slot for a candidate, with as much of its prompt as some slot still holds."""
        work = candidate.work
        choice = self._prefixes.choose(work.flow.tenant, work.prompt, free)
        # At least one token is left to be read, for its logits.
        kept = min(choice.tokens, len(work.prompt) - 1) // self._decoder.chunk * self._decoder.chunk
        if choice.source != choice.slot and kept:
            self._decoder.copy(choice.source, choice.slot, kept)
        else:
            self._decoder.keep(choice.slot, kept)
        self._prefixes.set(choice.slot, work.flow.tenant, work.prompt[:kept])
        candidate.read = candidate.kept = kept
        return choice.slot

    def _admit(self, entering: list[Work]) -> None:
        """Read a chunk of one prompt."""
        with self._changed:
            chosen = self.queue.reading()
        if chosen is not None:
            self._read(*chosen)

    def _read(self, candidate: Candidate, end: int) -> None:
        """Put a prompt up to a token into the cache; after its last one, choose the first token."""
        work = candidate.work
        logits = self._decoder.read(candidate.slot, work.prompt[candidate.read : end], candidate.read)
        self.progress += 1
        candidate.read = end
        self._prefixes.set(candidate.slot, work.flow.tenant, work.prompt[:end])
        if end == len(work.prompt) and work.live:
            work.emit(work.counted())
            with self._blaming(work, "choose the first token"):
                self._accept(candidate, logits)

    def _step(self, batch: list[Candidate]) -> Mapping[int, Logits]:
        """Decode one token for every running answer; return the logits by slot."""
        return self._decoder.decode({candidate.slot: candidate.last for candidate in batch})

    def _finish(self, batch: list[Candidate], output: Mapping[int, Logits]) -> None:
        for candidate in batch:
            if candidate.work.live:
                with self._blaming(candidate.work, "choose a token"):
                    self._accept(candidate, output[candidate.slot])

    def _accept(self, candidate: Candidate, logits: Logits) -> None:
        """Choose a candidate's next token, show its text, and end the candidate where it ends."""
        work, answer = candidate.work, candidate.answer
        # Reasoning is free, but for its end where an answer must follow, which is held to its schema.
        constraint = None if answer.inside else candidate.constraint
        allowed: NDArray[np.bool_] | None = None
        if constraint is not None:
            allowed = constraint.allowed()
        elif answer.inside and work.ask.must_answer:
            allowed = _all_but(self.model.ends, len(logits))
        token, score = candidate.sampler.pick(logits, allowed)
        if constraint is not None:
            constraint.accept(token)
        metrics.TOKENS.labels(self.name).inc()
        ended = token in self.model.ends or token in work.ask.stop_token_ids
        pieces = answer.end(token) if ended else answer.feed(token, score)
        at_bound = not ended and answer.stopped_by is None and answer.tokens >= work.bound
        if at_bound:
            pieces += answer.end()
        for piece in pieces:
            if isinstance(piece, CallPiece):
                work.emit(Called(candidate.index, piece))
            elif not piece.reasoning or work.ask.include_reasoning:
                work.emit(Shown(candidate.index, piece))
        candidate.last = token
        if ended or at_bound or answer.stopped_by is not None:
            self._end_candidate(candidate, at_bound)
        elif answer.tokens % 32 == 0:
            work.emit(work.counted())

    def _end_candidate(self, candidate: Candidate, at_bound: bool) -> None:
        work, answer = candidate.work, candidate.answer
        with self._changed:
            self.queue.release(candidate, finished=True)
        work.left -= 1
        work.emit(CandidateEnded(candidate.index, at_bound, answer.stopped_by or "", answer.calls > 0))
        if not work.left:
            self._end(work, Ended(work.counted()))


def _all_but(tokens: Collection[int], size: int) -> NDArray[np.bool_]:
    """Return a mask of a vocabulary without some tokens."""
    mask = np.ones(size, dtype=np.bool_)
    mask[list(tokens)] = False
    return mask
