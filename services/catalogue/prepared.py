"""A catalogue's file as it was read for all processes that are forked from this one.

Parsing YAML leaves 6 MB in the memory of who does it, beside the rows, and takes 0.1 s of CPU: a gateway's processes
would each do it alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from services.catalogue._compact import Compact, compact_from


class Reading(Struct, frozen=True, array_like=True):
    """What a file had, and its checked rows, encoded; without an operator's document of facts."""

    text: bytes
    rows: bytes


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Reading)
READINGS: Final[dict[Path, Reading]] = {}
"""What was kept in this process."""


def reading_of(text: bytes, rows: bytes) -> bytes:
    """Return what `keep` takes."""
    return _ENCODER.encode(Reading(text, rows))


def keep(path: Path, reading: bytes) -> None:
    """Have `load` use what `reading_of` gave, for as long as the file says the same."""
    READINGS[path] = _DECODER.decode(reading)


def rows_of(path: Path, facts: Path | None) -> Compact | None:
    """Return a file's rows where they were kept, and are those of the file as it is now.

    Args:
        path: The file.
        facts: Where an operator's document of facts is kept; rows that it would fill in are not here.
    """
    reading = READINGS.get(path)
    if reading is None or (facts is not None and facts.exists()):
        return None
    try:
        return compact_from(reading.rows) if path.read_bytes() == reading.text else None
    except OSError:
        return None
