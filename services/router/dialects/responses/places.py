"""Where in a caller's body each part of the contract's messages stands: several items become one message."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from services.common.errors import MoaError

Places = Sequence[Sequence[str]]
"""Of each message, the caller's path of each of its parts."""

_PART: Final = re.compile(r"messages\[(\d+)\](?:\.parts\[(\d+)\])?[^:\s]*")


@contextmanager
def as_the_caller_wrote(places: Places) -> Iterator[None]:
    """Let errors name items in place of the contract's messages."""
    try:
        yield
    except MoaError as error:
        found = _PART.match(error.param)
        if found is None:
            raise
        name = _name(places, int(found[1]), int(found[2] or 0))
        error.message = error.message.replace(found[0], name)
        error.param = name
        raise


def _name(places: Places, message: int, part: int) -> str:
    if message >= len(places) or not places[message]:
        return "input"
    parts = places[message]
    return parts[min(part, len(parts) - 1)]
