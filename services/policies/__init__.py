"""Policies, by which an operator has requests and answers judged: what a hook is written against.

A package offers one by an entry point in the group `moa.policies`: a callable that takes the row's `settings` and
returns a `Hook`. `docs/policies.md` tells the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whose request a hook is shown."""

    request_id: str
    account_id: str
    operation: str
    """`text`, `image` or `embedding`."""


class Change(NamedTuple):
    """Go on with this request in the place of the one that was shown."""

    request: Any
    """A message of the same type."""


class Refuse(NamedTuple):
    """Refuse the request."""

    reason: str
    """One sentence for the caller."""


class Replace(NamedTuple):
    """Go on with these events in the place of the one that was shown; of a text, with events of text."""

    events: Sequence[Any]


class Stop(NamedTuple):
    """End the answer before the event that was shown."""

    reason: str
    """What callers are told of images; an answer of text ends by its finish reason."""
    events: Sequence[Any] = ()
    """What goes on all the same, before the end."""


class Watch:
    """What looks at one answer. It need not remember anything: the pieces of a text are joined for it."""

    async def after(self, event: Any) -> Replace | Stop | None:
        """Judge an event (`moa.text.v1.TextEvent`, `moa.image.v1.ImageEvent`) that is on its way to the caller.

        None lets it pass. The event must not be changed in place.
        """
        return None

    def close(self) -> None:
        """Let go of what is held for the answer."""


class Hook:
    """One policy. What a subclass does not override is never called."""

    holds: int = 0
    """How many characters of a text are held back, so that what spans two pieces of it is seen whole."""

    async def before(self, asked: Asked, request: Any) -> Change | Refuse | None:
        """Judge a request (`GenerateTextRequest`, `GenerateImageRequest`, `EmbedTextsRequest`) before anything is done.

        None allows it. The request must not be changed in place.
        """
        return None

    def watch(self, asked: Asked, request: Any) -> Watch | None:
        """Return what looks at the answer's events; None where nobody has to."""
        return None
