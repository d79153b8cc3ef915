"""The text engine: one thread, one loop, all running answers a token further in each tick.

`schedule` frees the slots of callers who left, fills free ones and reads a chunk of one prompt (`Queue` chooses whose),
`run` decodes one token for every slot, `finish` hands text out and frees the slots of answers that ended.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence

from inference import metrics
from inference.fair import NAMELESS, Flow
from inference.text.answer import Answer
from inference.text.ask import TextAsk
from inference.text.calls import CallPiece
from inference.text.constraint import Constraint, Grammars
from inference.text.events import Called, CandidateEnded, Ended, Event, Failed, Shown
from inference.text.language import LanguageModel, Logits
from inference.text.prefixes import Prefixes
from inference.text.queue import Queue
from inference.text.sampling import Sampler
from inference.text.tools import Tool
from inference.text.turns import Turn
from inference.text.work import Candidate, Work
from inference.tokenizing import counted, tokenized
from services.common import logs
from services.common.errors import ContextTooLong, Internal, MoaError, Unavailable

_log = logs.get("text")


class TextEngine:
    """Generates for many requests at once with one model.

    Args:
        name: The model's catalogue id, for logs and metrics.
        model: The loaded model.
        rows: Answers that are decoded together.
        max_waiting: Answers of one flow that may wait for a slot.
    """

    def __init__(self, name: str, model: LanguageModel, *, rows: int = 8, max_waiting: int = 256) -> None:
        self.name = name
        self.model = model
        self.ticks = 0
        self.beats = 0
        """Chunks of prompts that were read, and ticks: what shows that the engine works."""
        self._decoder = model.decoder(rows)
        self._prefixes = Prefixes(rows)
        self._queue = Queue(name, rows=rows, max_waiting=max_waiting, chunk=self._decoder.chunk, place=self._place)
        self._changed = threading.Condition()
        self._stopping = False
        self._idle = threading.Event()
        self._making_grammars = threading.Lock()
        self._made_grammars: Grammars | None = None
        self._thread = threading.Thread(target=self._loop, name=f"text-{name}", daemon=True)

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights."""
        return self.model.size_bytes

    def start(self) -> None:
        """Start the loop's thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the loop; whatever is still running fails as unavailable."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
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
        return Work(ask, prompt, inside, min(ask.max_tokens, room), self._constraint(ask), flow)

    def _constraint(self, ask: TextAsk) -> Constraint | None:
        """Compile what an answer is held to, if anything."""
        if ask.tools is not None:
            several = self.model.takes_tools if ask.tools.parallel is None else ask.tools.parallel
            return self.grammars().calling(dataclasses.replace(ask.tools, parallel=several), ask.schema)
        return None if ask.schema is None else self.grammars().compiled(ask.schema)

    def grammars(self) -> Grammars:
        """Return the schema compiler; made on first use, for it takes a while."""
        with self._making_grammars:
            if self._made_grammars is None:
                self._made_grammars = self.model.grammars()
            return self._made_grammars

    def submit(self, work: Work, emit: Callable[[Event], None]) -> None:
        """Queue the work; its events go to `emit`, from the engine's thread. Raises QueueFull."""
        work.emit = emit
        work.left = work.ask.candidates
        work.candidates = [
            Candidate(
                work,
                index,
                Answer(self.model.decode, stops=work.ask.stop, inside=work.inside, calls=work.ask.tools is not None),
                Sampler(work.ask, index, self.model.token_text),
                None if work.constraint is None else work.constraint.copy(),
            )
            for index in range(work.ask.candidates)
        ]
        with self._changed:
            if self._stopping:
                raise Unavailable("the model is being unloaded; try again", retry_after_s=1)
            self._queue.add(work)
            self._idle.clear()
            self._changed.notify()

    def cancel(self, work: Work) -> None:
        """Stop the work within one token; nothing more is emitted. No effect once it ended."""
        with self._changed:
            work.cancelled = True
            self._queue.drop(work)
            self._changed.notify()

    @property
    def queue(self) -> Queue:
        """What waits and runs, to be looked at; it changes from one tick to the next."""
        return self._queue

    @property
    def busy(self) -> bool:
        """Return whether anything runs or waits."""
        return self._queue.busy

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing runs or waits; tell whether that came true in time."""
        return self._idle.wait(timeout_s)

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and not self._queue.busy:
                    self._idle.set()
                    self._changed.wait()
                self._idle.clear()
                if self._stopping:
                    break
            try:
                self.tick()
            except Exception:
                _log.exception("text.tick_failed", model=self.name)
                self._fail(Internal("the model failed while it generated"))
        self._fail(Unavailable("the model was unloaded; try again", retry_after_s=1))

    def tick(self) -> None:
        """Go one token further with every running answer."""
        self._schedule()
        ready = [c for c in self._queue.running if c is not None and c.last >= 0]
        if ready:
            self._finish(ready, self._run(ready))

    def _schedule(self) -> None:
        """Free the slots of callers who left, fill free slots, and read a chunk of one prompt."""
        with self._changed:
            for candidate in self._queue.running:
                if candidate is not None and candidate.work.cancelled:
                    self._release(candidate, "cancelled")
            self._queue.admit()
            reading = self._queue.reading()
        if reading is not None:
            self._read(*reading)

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

    def _read(self, candidate: Candidate, end: int) -> None:
        """Put a prompt up to a token into the cache; after its last one, choose the first token."""
        work = candidate.work
        logits = self._decoder.read(candidate.slot, work.prompt[candidate.read : end], candidate.read)
        self.beats += 1
        candidate.read = end
        self._prefixes.set(candidate.slot, work.flow.tenant, work.prompt[:end])
        if end == len(work.prompt):
            work.emit(work.counted())
            self._accept(candidate, logits)

    def _run(self, ready: list[Candidate]) -> Mapping[int, Logits]:
        """Decode one token for every running answer; give the logits by slot."""
        started = time.perf_counter()
        logits = self._decoder.decode({candidate.slot: candidate.last for candidate in ready})
        self.ticks += 1
        self.beats += 1
        took = time.perf_counter() - started
        self._queue.took(took)
        metrics.TICKS.labels(self.name).inc()
        metrics.ROWS.labels(self.name).inc(len(ready))
        metrics.TICK_SECONDS.labels(self.name).observe(took)
        return logits

    def _finish(self, ready: list[Candidate], logits: Mapping[int, Logits]) -> None:
        for candidate in ready:
            self._accept(candidate, logits[candidate.slot])

    def _accept(self, candidate: Candidate, logits: Logits) -> None:
        """Choose a candidate's next token, show its text, and end the candidate where it ends."""
        work = candidate.work
        if work.cancelled:
            return
        # Reasoning is free; the answer after it is held to its schema.
        constraint = None if candidate.answer.inside else candidate.constraint
        try:
            allowed = None if constraint is None else constraint.allowed()
        except MoaError as error:
            self._give_up(work, error)
            return
        token, score = candidate.sampler.pick(logits, allowed)
        if constraint is not None:
            constraint.accept(token)
        metrics.TOKENS.labels(self.name).inc()
        answer = candidate.answer
        ended = token in self.model.ends
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
            self._end(candidate, at_bound)
        elif answer.tokens % 32 == 0:
            work.emit(work.counted())

    def _end(self, candidate: Candidate, at_bound: bool) -> None:
        work = candidate.work
        with self._changed:
            self._release(candidate, "finished")
        work.left -= 1
        called = candidate.answer.calls > 0
        work.emit(CandidateEnded(candidate.index, at_bound, candidate.answer.stopped_by or "", called))
        if not work.left:
            work.emit(Ended(work.counted()))

    def _give_up(self, work: Work, error: MoaError) -> None:
        """End one request with an error."""
        with self._changed:
            self._queue.drop(work)
            for candidate in self._queue.running:
                if candidate is not None and candidate.work is work:
                    self._release(candidate, "failed")
        if not work.cancelled:
            work.cancelled = True
            work.emit(Failed(error))

    def _release(self, candidate: Candidate, how: str) -> None:
        self._queue.release(candidate, how)

    def _fail(self, error: MoaError) -> None:
        """End everything with an error."""
        with self._changed:
            lost = self._queue.clear()
            self._prefixes.clear()
        for work in lost:
            if not work.cancelled:
                work.emit(Failed(error))
