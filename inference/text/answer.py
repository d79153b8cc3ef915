"""Turn generated tokens into the pieces that a caller sees.

Three machines in a row, each of which holds back what it cannot yet judge: bytes that are no whole character, tags
that part reasoning from the answer, and strings that end the answer. No piece ever has to be taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inference.text.calls import CallPiece, CallSplitter

OPEN, CLOSE = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Score:
    """The natural-log probability of one token, as the model gave it before sampling."""

    token: str
    raw: bytes
    logprob: float
    top: tuple[Score, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is safe to show, with the scores of the tokens that it came from."""

    text: str
    reasoning: bool = False
    scores: tuple[Score, ...] = ()


class Detokenizer:
    """Returns a token's text as soon as its characters are whole.

    A token's text depends on its neighbours (spaces, multi-byte characters over several tokens), so the text of a
    window is decoded twice, without and with the new token, and the difference is given.

    Args:
        decode: Token ids to text; bytes that are no UTF-8 become U+FFFD.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._given = 0  # tokens of the window whose text was given

    def feed(self, token: int) -> str:
        """Take a token; give the text that is whole now, possibly none."""
        self._window.append(token)
        before = self._decode(self._window[: self._given]) if self._given else ""
        after = self._decode(self._window)
        unfinished = after.endswith("\ufffd") or len(after) <= len(before)
        if unfinished and len(self._window) - self._given < 8:  # more bytes than that are no character any more
            return ""
        self._window = self._window[self._given :]
        self._given = len(self._window)
        return after[len(before) :]

    def rest(self) -> str:
        """Return what was held back, without the bytes that never became a character."""
        before = self._decode(self._window[: self._given]) if self._given else ""
        return self._decode(self._window).rstrip("\ufffd")[len(before) :]


class Splitter:
    """Parts reasoning from the answer at `<think>` and `</think>`.

    Args:
        inside: Whether the prompt already opened the reasoning.
    """

    def __init__(self, *, inside: bool) -> None:
        self.inside = inside
        self._closed = False
        self._fresh = True
        self._held = ""

    def feed(self, text: str, *, last: bool = False) -> list[tuple[str, bool]]:
        """Take text; give (text, is reasoning) runs. `last` gives what was held back."""
        self._held += text
        runs: list[tuple[str, bool]] = []
        while self._held:
            tag = CLOSE if self.inside else OPEN
            if self._closed:  # a model reasons once, before its answer
                runs.append((self._held, False))
                self._held = ""
                break
            at = self._held.find(tag)
            if at >= 0:
                runs.append((self._held[:at], self.inside))
                self._held = self._held[at + len(tag) :].lstrip("\n") if self.inside else self._held[at + len(tag) :]
                self._fresh = self.inside
                self._closed = self.inside
                self.inside = not self.inside
                continue
            keep = 0 if last else overlap(self._held, (tag,))
            runs.append((self._held[: len(self._held) - keep], self.inside))
            self._held = self._held[len(self._held) - keep :]
            break
        return [run for run in self._trimmed(runs) if run[0]]

    def _trimmed(self, runs: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
        """Drop the line breaks that templates put after a closing tag."""
        if not (self._closed and self._fresh):
            return runs
        trimmed = []
        for text, reasoning in runs:
            if not reasoning and self._fresh:
                text = text.lstrip("\n")
                self._fresh = not text
            trimmed.append((text, reasoning))
        return trimmed


class Stopper:
    """Ends the answer before the first stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.met: str | None = None

    def feed(self, text: str, *, last: bool = False) -> str:
        """Take text; give what can be shown. `met` names the stop string once one was seen whole."""
        if not self._stops:
            return text
        self._held += text
        places = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:
            # The earliest wins; of several at one place, the longest.
            at, self.met = min(places, key=lambda place: (place[0], -len(place[1])))
            shown, self._held = self._held[:at], ""
            return shown
        keep = 0 if last else overlap(self._held, self._stops)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown


def overlap(text: str, words: Sequence[str]) -> int:
    """Return the length of the longest end of `text` that begins one of `words`."""
    longest = 0
    for word in words:
        for size in range(min(len(text), len(word) - 1), longest, -1):
            if word.startswith(text[-size:]):
                longest = size
                break
    return longest


class CandidateText:
    """One candidate's tokens on their way to pieces.

    Args:
        decode: Token ids to text.
        stops: Strings that end the answer's text; in calls they mean nothing.
        inside: Whether the prompt already opened the reasoning.
        calls: Whether calls of tools are read.
    """

    def __init__(
        self, decode: Callable[[list[int]], str], *, stops: Sequence[str], inside: bool, calls: bool = False
    ) -> None:
        self._detokenizer = Detokenizer(decode)
        self._splitter = Splitter(inside=inside)
        self._splits_calls = CallSplitter() if calls else None
        self._stopper = Stopper(stops)
        self._scores: list[Score] = []
        self.tokens = 0
        self.reasoning_tokens = 0

    @property
    def inside(self) -> bool:
        """Whether reasoning goes on."""
        return self._splitter.inside

    @property
    def calls(self) -> int:
        """Calls of tools that were begun."""
        return self._splits_calls.calls if self._splits_calls is not None else 0

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended the answer."""
        return self._stopper.met

    def feed(self, token: int, score: Score | None) -> list[Piece | CallPiece]:
        """Take a token; give the pieces that can be shown."""
        self.tokens += 1
        self.reasoning_tokens += self._splitter.inside
        if score is not None:
            self._scores.append(score)
        return self._pieces(self._splitter.feed(self._detokenizer.feed(token)), last=False)

    def end(self, token: int | None = None) -> list[Piece | CallPiece]:
        """Take the token that ended it, if one did; give what was held back."""
        self.tokens += token is not None
        return self._pieces(self._splitter.feed(self._detokenizer.rest(), last=True), last=True)

    def _pieces(self, runs: list[tuple[str, bool]], *, last: bool) -> list[Piece | CallPiece]:
        pieces: list[Piece | CallPiece] = []
        for run, reasoning in self._parted(runs, last=last):
            if self._stopper.met is not None:
                break
            if isinstance(run, CallPiece):
                if rest := self._stopper.feed("", last=True):  # no stop string goes on beyond a call's beginning
                    pieces.append(self._scored(rest, reasoning=False))
                pieces.append(run)
                continue
            shown = run if reasoning else self._stopper.feed(run)
            if shown:
                pieces.append(self._scored(shown, reasoning))
        if last and self._stopper.met is None and (rest := self._stopper.feed("", last=True)):
            pieces.append(self._scored(rest, reasoning=False))
        return pieces

    def _parted(self, runs: list[tuple[str, bool]], *, last: bool) -> list[tuple[str | CallPiece, bool]]:
        """Part calls from the answer's text."""
        if self._splits_calls is None:
            return [*runs]
        out: list[tuple[str | CallPiece, bool]] = []
        for text, reasoning in runs:
            out += [(text, True)] if reasoning else [(run, False) for run in self._splits_calls.feed(text)]
        return out + [(run, False) for run in self._splits_calls.feed("", last=True)] if last else out

    def _scored(self, text: str, reasoning: bool) -> Piece:
        scores, self._scores = tuple(self._scores), []
        return Piece(text, reasoning, scores)
