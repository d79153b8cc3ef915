"""An operator's document of facts as it was last found right: one file, with where it came from."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from services.catalogue._error import CatalogueError
from services.catalogue._facts import MOST_FACTS_BYTES, Book, checked_document, shipped_facts

NAME: Final = "facts.kept"
_MOST_HEAD_BYTES: Final = 8192


class Origin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a kept document came from."""

    url: str
    etag: str = ""
    """What its server calls this version; empty: nothing."""


_HEAD: Final = msgspec.json.Decoder(Origin)


def origin_of(file: Path) -> Origin | None:
    """Return where a kept document came from; None where none is kept, or the file is broken."""
    try:
        with file.open("rb") as opened:
            return _HEAD.decode(opened.readline(_MOST_HEAD_BYTES))
    except (OSError, msgspec.DecodeError):
        return None


def document_in(file: Path, url: str) -> bytes:
    """Return the document that is kept of an address, empty where none is. Raises CatalogueError for a bad one."""
    try:
        with file.open("rb") as opened:
            head, text = opened.readline(_MOST_HEAD_BYTES), opened.read(MOST_FACTS_BYTES + 1)
    except OSError:
        return b""
    try:
        if _HEAD.decode(head).url != url:
            return b""
    except msgspec.DecodeError:
        raise CatalogueError(f"{file}: it has no head") from None
    checked_document(text, str(file), known=Book(shipped_facts()))
    return text


def keep(file: Path, origin: Origin, text: bytes) -> None:
    """Put a document in the place of the one that is kept, whole or not at all."""
    handle, name = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(msgspec.json.encode(origin) + b"\n" + text)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
