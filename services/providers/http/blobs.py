"""Take the long base64 strings out of a JSON answer while it arrives, so that an image is never held as text.

What remains is a small JSON document in which each such string is replaced by a name (`take`).
"""

from __future__ import annotations

import binascii
import io
import re
from typing import Final

from services.common.errors import UpstreamBroken

_LEAST: Final = 2048
"""Strings shorter than this stay where they are; of longer ones so much decides whether they are base64."""
MAX_SKELETON_BYTES: Final = 16 * 1024 * 1024
"""Longest rest of an answer."""
MAX_BLOB_BYTES: Final = 64 * 1024 * 1024
"""Longest decoded blob."""

_STOPS: Final = re.compile(rb'["\\]')
_BASE64: Final = re.compile(rb"(?:data:[a-z0-9/+.\\-]+;base64,)?((?:[A-Za-z0-9+/=]|\\/)*)")
_NAME: Final = "moa-blob-{}-of-this-answer"


class BlobLifter:
    """Reads one JSON answer in any pieces. Give it everything by `feed`, then read `skeleton` and `take`.

    Args:
        lines: Read a stream of documents, each in a line of its own, as server-sent events are. A line that is
            damaged takes nothing from the next one.
    """

    def __init__(self, *, lines: bool = False) -> None:
        self.skeleton = bytearray()
        """The JSON document without its blobs."""
        self._lines = lines
        self._blobs: dict[str, io.BytesIO] = {}
        """What was taken out, by what stands for it. Their bytes can be had without a copy."""
        self._begun = 0
        self._blob = io.BytesIO()
        """The blob that is being read."""
        self._string: bytearray | None = None
        """The string that is being read, while it is not known to be a blob."""
        self._plain = False
        """Whether that string is known to be none."""
        self._lifting = False
        self._rest = b""
        """Characters of a blob that do not make a whole group of four yet."""
        self._escaped = False

    def feed(self, data: bytes) -> None:
        """Take the next piece. Raises UpstreamBroken when the answer is too long or a blob is no base64."""
        if not self._lines:
            self._feed(data)
            return
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._feed(data[start:end])
            self._end_line()
            start = end + 1
        self._feed(data[start:])

    def _end_line(self) -> None:
        if self._string is not None:
            self.skeleton += self._string
        self._string = None
        self._lifting = self._escaped = False
        self._rest = b""
        self.skeleton += b"\n"

    def _feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._lifting:
                at = self._lift(data, at)
            elif self._string is None:
                quote = data.find(b'"', at)
                end = len(data) if quote < 0 else quote + 1
                self.skeleton += data[at:end]
                at = end
                if quote >= 0:
                    self._string = bytearray()
                    self._plain = False
            else:
                at = self._read_string(data, at)
        if len(self.skeleton) > MAX_SKELETON_BYTES:
            raise UpstreamBroken("the provider's answer is too long")

    def take(self, text: str) -> bytes | None:
        """Return the blob that stands for `text` in the skeleton, once, or None when it is an ordinary string."""
        blob = self._blobs.pop(text, None)
        return None if blob is None else blob.getvalue()

    def _read_string(self, data: bytes, at: int) -> int:
        string = self._string
        assert string is not None
        if self._escaped:
            string += data[at : at + 1]
            self._escaped = False
            return at + 1
        result = _STOPS.search(data, at)
        end = result.start() if result else len(data)
        if not self._plain and len(string) + end - at >= _LEAST:
            # Its beginning decides, whatever pieces it comes in.
            end = at + max(0, _LEAST - len(string))
            string += data[at:end]
            match = _BASE64.fullmatch(bytes(string))
            if match:
                self._blob = io.BytesIO()
                self._string = None
                self._lifting = True
                self._decode(match[1])
            else:
                self._plain = True
            return end
        string += data[at:end]
        if result is None:
            return len(data)
        if result[0] == b"\\":
            string += b"\\"
            self._escaped = True
        else:
            self.skeleton += string
            self.skeleton += b'"'
            self._string = None
        return result.end()

    def _lift(self, data: bytes, at: int) -> int:
        quote = data.find(b'"', at)
        end = len(data) if quote < 0 else quote
        self._decode(data[at:end])
        if quote < 0:
            return end
        if self._rest:
            raise UpstreamBroken("the provider's image cannot be read")
        name = _NAME.format(self._begun)
        self._begun += 1
        self._blobs[name] = self._blob
        self._blob = io.BytesIO()
        self.skeleton += name.encode() + b'"'
        self._lifting = False
        return quote + 1

    def _decode(self, text: bytes) -> None:
        # Some writers escape the slash; the two may come apart.
        text = (self._rest + text).replace(b"\\/", b"/")
        whole = len(text) - text.endswith(b"\\")
        whole -= whole % 4
        self._rest = text[whole:]
        try:
            self._blob.write(binascii.a2b_base64(text[:whole], strict_mode=True))
        except binascii.Error:
            raise UpstreamBroken("the provider's image cannot be read") from None
        if self._blob.tell() > MAX_BLOB_BYTES:
            raise UpstreamBroken("the provider's image is too large")
