"""Where what is wrong with a request stands in the caller's body: turns are split and added on the way from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from services.common.errors import MoaError

_PLACE: Final = re.compile(r"messages\[(\d+)\](?:\.parts\[(\d+)\])?")


class Place(NamedTuple):
    """Where the contract's message comes from."""

    message: int
    """The index of the caller's; below 0: the system's."""
    blocks: Sequence[int]
    """The index of each part's block."""


@contextmanager
def as_the_caller_counts(places: Sequence[Place]) -> Iterator[None]:
    """Let errors count messages and their parts as the body does."""
    try:
        yield
    except MoaError as error:
        found = _PLACE.match(error.param)
        if found is None or int(found[1]) >= len(places):
            raise
        name = _name(places[int(found[1])], found[2])
        if error.message.startswith(found[0]):
            error.message = name + error.message.removeprefix(found[0])
        error.param = name + error.param.removeprefix(found[0])
        raise


def _name(place: Place, part: str | None) -> str:
    if place.message < 0:
        return "system"
    name = f"messages[{place.message}]"
    if part is None or int(part) >= len(place.blocks):
        return name
    return f"{name}.parts[{place.blocks[int(part)]}]"
