"""What a caller notes of a response or a conversation: `metadata`, by keys of their own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final

import msgspec
from msgspec import Struct

from services.common.errors import InvalidField
from services.common.helper_process import Data
from services.router.dialects.body import field_error
from services.router.dialects.responses.bodies import Metadata
from services.router.dialects.unknown import printable

_NAME: Final = "metadata"
_UNNAMED: Final = f"{_NAME}[...]"
"""What the reader of bodies says of a value, whatever its key."""

_LOOKED_AT: Final = 64
"""How many keys of a refused body are looked at."""


class _Noted(Struct):
    metadata: dict[str, msgspec.Raw] = {}


_NOTED: Final = msgspec.json.Decoder(_Noted)


def naming_key(error: InvalidField, data: Data) -> InvalidField:
    """Return the refusal of a body; where it is of one key of its metadata, with that key's name."""
    return (_refused(data) if error.param in (_NAME, _UNNAMED) else None) or error


def check(metadata: Mapping[str, str]) -> None:
    """Raise InvalidField for what no text of a database may hold."""
    for key, value in metadata.items():
        if "\0" in key or "\0" in value:
            where = _place(key)
            raise InvalidField(f"{where}: a text holds the character NUL; leave it out", param=where)


def _refused(data: Data) -> InvalidField | None:
    """Return the refusal of the first key or value that is none; None where it is of no single one."""
    try:
        given = _NOTED.decode(bytes(data)).metadata
        for key, value in islice(given.items(), _LOOKED_AT):
            try:
                msgspec.convert({key: msgspec.json.decode(value)}, Metadata)
            except msgspec.ValidationError as error:
                where = _place(key)
                refusal = field_error(str(error)).message.removeprefix("[...]: ")
                return InvalidField(f"{where}: {refusal}", param=where)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return None


def _place(key: str) -> str:
    return f"{_NAME}.{printable(key[:64])}"
