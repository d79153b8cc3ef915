"""What a text answer consumed, from its events: the rules of `docs/charging.md`, once for whoever may have to book it.

The service that speaks to the provider or the engine meters the events that it sends, and the router the same events as
they come: either may have to book when the other died, and both come to the same amounts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from moa.common.v1.usage_pb2 import Usage
from services.common.estimate import ReportedUsage, tokens_of

_PIECE_CHARS: Final = 8
"""Shorter pieces of a stream are mostly one token."""


_NONE: Final[frozenset[int]] = frozenset()


def nobody() -> None:
    """Tell nobody."""


def prompt_owed(bound: int, counted: int | None) -> int:
    """Return a prompt's tokens where nobody reported them: as they were counted, if they were; at most its bound."""
    return bound if counted is None else min(bound, counted)


class TextMeter:
    """Meters the events of one answer.

    Args:
        prompt: The prompt's tokens, as `estimate.prompt_tokens` guesses them; or what guesses them where they are
            needed, which for a long one takes a while.
    """

    __slots__ = (
        "_pieces",
        "_prompt",
        "_reasoning",
        "_unshown",
        "_unshown_reasoning",
        "at_mark",
        "ended",
        "mark",
        "reported",
        "tokens",
        "usage",
    )

    pieces: Collection[str] = frozenset(("text", "reasoning", "tool_call"))
    """Kinds of events that may be metered later, several at once: none has more tokens than bytes."""

    def __init__(self, prompt: int | Callable[[], int]) -> None:
        self._prompt = prompt
        self._pieces = 0
        self.tokens = 0
        """Tokens of the completion that was shown, as they are estimated."""
        self._reasoning = 0
        self._unshown = self._unshown_reasoning = 0
        self.usage = Usage()
        """As an event told it last."""
        self.ended: frozenset[int] = _NONE
        """Candidates that have ended."""
        self.reported: ReportedUsage | None = None
        """The provider's latest count, for whoever reads its answer; it is the truth, as far as it can be read."""
        self.mark = math.inf
        """From so many tokens of completion on, `at_mark` is called at each event that goes to the caller."""
        self.at_mark: Callable[[], None] = nobody

    def saw(self, event: Any, kind: str | None) -> None:
        """Note an event that goes to the caller."""
        if kind == "text":
            # Nearly all events: written out.
            text = event.text.text
            self._pieces += 1
            self.tokens += 1 if len(text) < _PIECE_CHARS else tokens_of(text)
            if self.tokens >= self.mark:
                self.at_mark()
            return
        if kind == "tool_call":
            text = event.tool_call.arguments_json
        elif kind == "reasoning" and event.reasoning.text:  # without, it is a signature
            text = event.reasoning.text
        else:
            if kind == "usage":
                self.usage = event.usage
                if self.usage.completion_tokens >= self.mark:
                    self.at_mark()
            elif kind == "finished":
                self.usage = event.finished.usage
            elif kind == "candidate_finished":
                self.ended = self.ended | {event.candidate}
            return
        self.saw_piece(text, reasoning=kind == "reasoning")

    def saw_messages(self, messages: Iterable[Any]) -> None:
        """Do as `saw` for the events of several messages; none behind an error counts."""
        texts: list[str] = []
        for message in messages:
            for event in message.events:
                kind = event.WhichOneof("event")
                if kind == "text":
                    texts.append(event.text.text)
                elif kind == "error":
                    break
                else:
                    self.saw(event, kind)
        if texts:
            self.saw_pieces(texts)

    def saw_piece(self, text: str, *, reasoning: bool = False) -> None:
        """Do as `saw`, for whoever has the words of the event: of the answer, of a call's arguments or of reasoning."""
        tokens = 1 if len(text) < _PIECE_CHARS else tokens_of(text)
        self._pieces += 1
        self.tokens += tokens
        if reasoning:
            self._reasoning += tokens
        if self.tokens >= self.mark:
            self.at_mark()

    def saw_pieces(self, texts: Collection[str]) -> None:
        """Do as `saw_piece` for several pieces of the answer: their sum is the same, whenever it is made."""
        self._pieces += len(texts)
        self.tokens += sum([1 if len(text) < _PIECE_CHARS else tokens_of(text) for text in texts])
        if self.tokens >= self.mark:
            self.at_mark()

    def saw_unshown(self, text: str, *, reasoning: bool = False) -> None:
        """Note a piece of the provider's that the caller is not shown: it belongs to a whole answer's consumption."""
        tokens = 1 if len(text) < _PIECE_CHARS else tokens_of(text)
        self._unshown += tokens
        if reasoning:
            self._unshown_reasoning += tokens

    def so_far(self) -> Usage:
        """Return what the provider consumed: as it counts, else the estimate, marked as such."""
        reported = self.reported
        made = self.tokens + self._unshown
        # Nothing at all is no count of an answer with words: some servers send zeros before they count.
        if reported is not None and not (made and reported.prompt == reported.completion == 0):
            return reported.usage(0 if reported.prompt is not None else self.prompt_guess(), made)
        return Usage(
            prompt_tokens=self.prompt_guess(),
            completion_tokens=made,
            reasoning_tokens=self._reasoning + self._unshown_reasoning,
        )

    def consumed(self, *, ended: bool) -> Usage | None:
        """Return what is to be charged of the events that went to the caller; None where nothing was told or shown.

        By what the provider reported; where an answer broke, by what was delivered.
        """
        usage = self.usage
        if usage.prompt_tokens or usage.completion_tokens:
            # A provider that reports as it goes may have delivered more since.
            # No provider sends a piece that holds no token.
            if not ended and usage.completion_tokens < self._pieces:
                usage.completion_tokens = self._pieces
            return usage
        return self.so_far() if self._pieces else None

    def owed(self, *, delivers: bool = True) -> Usage:
        """Return what a caller owes who left before the end; without the prompt's tokens where nobody reported them.

        The completion is as far as it was reported or delivered. `delivers`: whether it was delivered piece by piece.
        """
        if self.usage.prompt_tokens:
            return (self.consumed(ended=False) if delivers else None) or self.usage
        return Usage(completion_tokens=self.tokens, reasoning_tokens=self._reasoning) if delivers else Usage()

    @property
    def made(self) -> int:
        """Tokens of the completion so far, as they are estimated."""
        return self.tokens + self._unshown

    @property
    def completion_so_far(self) -> int:
        """Tokens of the completion so far: what was reported, or the estimate, where that is more."""
        return max(self.made, self.usage.completion_tokens)

    @property
    def shown(self) -> bool:
        """Whether a piece of the answer went to the caller."""
        return self._pieces > 0

    def prompt_guess(self) -> int:
        """Return the prompt's tokens as they are guessed."""
        if not isinstance(self._prompt, int):
            self._prompt = self._prompt()
        return self._prompt
