"""Read a `multipart/form-data` body."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, parse_options_header

from services.common import images
from services.common.body import refuse_compressed
from services.common.errors import InvalidField, Malformed, TooLarge, UnsupportedMedia

MAX_PARTS = 64
MAX_FIELD_BYTES = 128 * 1024
"""Largest value that is not a file."""
_PIECE_BYTES: Final = 256 * 1024


@dataclass(slots=True)
class Form:
    """A form's fields and files. The suffix `[]`, with which clients mark lists, is taken off the names."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[bytes]] = field(default_factory=dict)
    filenames: dict[str, list[str]] = field(default_factory=dict)
    """What the senders of `files` call them; empty where they do not say."""


def is_form(content_type: str) -> bool:
    """Return whether a body of this type is a form."""
    return content_type.strip().lower().startswith("multipart/form-data")


def parse(data: bytes | memoryview, content_type: str) -> Form:
    """Read the form. A part with a file name, or with a media type that is no text, is a file.

    A bytearray is empty afterwards: of a large body nothing is kept beside what was read of it.
    Raises Malformed, TooLarge, UnsupportedMedia or InvalidField.
    """
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data":
        raise UnsupportedMedia("a multipart/form-data body is expected")
    if not options.get("boundary"):
        raise Malformed("the Content-Type of a form must name its boundary")
    form = Form()
    try:
        with PushMultipartParser(
            options["boundary"], max_segment_count=MAX_PARTS, max_segment_size=images.MAX_BYTES + 1, strict=True
        ) as parser:
            _read(parser, data, form)
    except ParserLimitReached:
        raise TooLarge(f"a form may have {MAX_PARTS} parts of at most {images.MAX_BYTES >> 20} MB each") from None
    except MultipartError:
        refuse_compressed(data)
        raise Malformed("the body is not a valid multipart/form-data body") from None
    if isinstance(data, bytearray):
        data.clear()
    return form


def _read(parser: PushMultipartParser, data: bytes | memoryview, form: Form) -> None:
    segment: MultipartSegment | None = None
    content = io.BytesIO()
    for event in chain.from_iterable(parser.parse(piece) for piece in _pieces(data)):
        if isinstance(event, MultipartSegment):
            segment, content = event, io.BytesIO()
        elif event is None:
            assert segment is not None
            _keep(form, segment, content.getvalue())
            content = io.BytesIO()
        else:
            content.write(event)


def _pieces(data: bytes | memoryview) -> Iterator[bytes]:
    """Yield a body piece by piece, and nothing at its end: the parser copies what it is given."""
    for start in range(0, len(data), _PIECE_BYTES):
        yield bytes(data[start : start + _PIECE_BYTES])
    yield b""


def _keep(form: Form, segment: MultipartSegment, content: bytes) -> None:
    name = (segment.name or "").removesuffix("[]")
    if not name:
        raise Malformed("a part of the form has no name; give each a name in its Content-Disposition")
    if segment.filename is not None or not (segment.content_type or "text/plain").startswith(
        ("text/", "application/json")
    ):
        form.files.setdefault(name, []).append(content)
        form.filenames.setdefault(name, []).append(segment.filename or "")
        return
    if len(content) > MAX_FIELD_BYTES:
        raise TooLarge(f"{name} is too long", param=name)
    try:
        form.fields.setdefault(name, []).append(content.decode())
    except UnicodeDecodeError:
        raise InvalidField(f"{name} is not UTF-8 text", param=name) from None
