"""What a text answer consumes and its caller owes, in the router: metered by the rules of every process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from services.catalogue import Model
from services.common.metering import TextMeter
from services.router.domain.operation import Metering, Owed


async def _unknown(_: Model) -> int:
    """Count nothing: the request is gone."""
    raise AssertionError


class TextMetering(TextMeter, Metering):
    """Meters an answer as whoever answers does, and counts the prompt where nobody reported it.

    Args:
        guess: The prompt's tokens, guessed, or what guesses them.
        prompt: Returns the prompt's tokens as a model counts them, else their bound.
    """

    def __init__(self, guess: int | Callable[[], int], prompt: Callable[[Model], Awaitable[int]]) -> None:
        super().__init__(guess)
        self._count = prompt

    def abandoned(self, *, ended: bool) -> Owed:
        """As `Metering.abandoned`."""
        usage = self.owed()
        if usage.prompt_tokens:
            return Owed(usage, known=True)
        if not self.shown:
            return Owed(usage)
        usage.prompt_tokens = self.prompt_guess()
        return Owed(usage, prompt=self._count)

    def broke(self) -> None:
        """As `Metering.broke`: what more than one target said is counted from outside."""
        self.usage.exact = False

    def let_go(self) -> None:
        """As `Metering.let_go`."""
        self._count = _unknown
        self._prompt = 0
