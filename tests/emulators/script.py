"""What an emulated provider shall answer, in words that every protocol can say, and how it shall misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

_TURN_S: Final = 0.005
_TURNS: Final = 40


@dataclass(frozen=True)
class Call:
    """A tool call; its arguments come in these pieces."""

    id: str
    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Counts:
    """What the answer consumed. `prompt` includes `cached` and `written` (to a cache), `completion` `reasoning`."""

    prompt: int = 7
    completion: int = 5
    reasoning: int = 0
    cached: int = 0
    written: int = 0


@dataclass(kw_only=True)
class Script:
    """One answer. Pieces are counted over reasoning, then text, then calls."""

    text: tuple[str, ...] = ("Hel", "lo ", "안녕", " 🌍", "!")
    reasoning: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    mark: str = ""
    """What is put behind the signature of thoughts, for tests that tell one answer's from another's."""
    refusal: str = ""
    finish: str = "stop"
    """`stop`, `length`, `tool_calls` or `content_filter`."""
    counts: Counts | None = field(default_factory=Counts)
    """None: the provider says nothing about usage."""

    refuse: str = ""
    """Refuse with what the protocol has for this reason, named as in `errors.word` (`upstream_auth`)."""
    retry_after_s: int | None = None
    """What a refusal says about retrying."""
    fail_at: int | None = None
    """Report a failure of the server inside the stream in place of this piece."""
    malformed_at: int | None = None
    """Send a piece that cannot be read before this one."""
    cut_at: int | None = None
    """Break the connection in place of this piece."""
    clip_at: int | None = None
    """End the stream properly, but in place of this piece."""
    hold_at: int | None = None
    """Wait at this piece for `gate`; -1: before the answer's headers."""
    together: bool = False
    """Send what comes before `hold_at` in one write: no pause amid it is taken for the silence that follows."""
    end_mark: bool = True
    """Whether the protocol's end mark is sent."""
    linger: bool = False
    """Keep the connection open after the last piece, until the client leaves or `gate` opens."""
    write_bytes: int = 0
    """Write in pieces of so many bytes; 0: each event at once."""

    delivered: int = 0
    """The invoice: pieces that were streamed."""
    reported: bool = False
    """The invoice: whether the closing words, with the counts, were streamed."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the emulator waits at `hold_at`."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client hung up before the end."""

    async def hung_up(self, turn: Callable[[], Awaitable[object]] | None = None) -> None:
        """Wait until the client hung up, and fail when that takes longer than forty turns.

        `turn` goes the way that the news does, behind it: a call to the service where a caller left, whose news passes
        threads. Without it a turn is one of the loop, of five milliseconds: emulator and service run in one loop, so
        that another process that takes the CPU stretches the allowance as it stretches the work.
        """
        for _ in range(_TURNS):
            if self.left.is_set():
                return
            await (turn() if turn is not None else asyncio.sleep(_TURN_S))
        assert self.left.is_set(), f"the client did not hang up within {_TURNS} turns"

    @property
    def reason(self) -> str:
        """The finish reason, which calls decide unless another was set."""
        return "tool_calls" if self.calls and self.finish == "stop" else self.finish
