"""Fetch an operator's document of facts for another process: `python -m services.catalogue.fetching CATALOGUE KEPT`.

The address stands in `MOA_FACTS_URL`. The document is kept if it is right as a whole and the catalogue holds together
with it.
"""

from __future__ import annotations

import http.client
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from pathlib import Path
from typing import IO, Any, Final

from services.catalogue._compact import REFUSED
from services.catalogue._error import CatalogueError
from services.catalogue._facts import MOST_FACTS_BYTES, Book, checked_document, shipped_facts
from services.catalogue._kept import Origin, keep, origin_of
from services.catalogue._load import checked
from services.catalogue._refresh import SAME
from services.common import low_priority

FETCH_S: Final = 30.0
"""How long an answer may take, all of it."""
_SILENCE_S: Final = 10.0
_PIECE: Final = 64 * 1024
_MOST_ETAG: Final = 1000


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Follow none: the operator named one address."""


def fetched(url: str, etag: str) -> tuple[bytes, str] | None:
    """Return the document at an address and its ETag; None where it is still `etag`. Raises CatalogueError."""
    where = f"facts of {urllib.parse.urlsplit(url).hostname}"
    headers = {"Accept": "application/json", "User-Agent": "moa", **({"If-None-Match": etag} if etag else {})}
    opener = urllib.request.build_opener(_NoRedirects)
    deadline = time.monotonic() + FETCH_S
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=_SILENCE_S) as answer:  # noqa: S310
            return _read(answer, where, deadline), str(answer.headers.get("ETag", ""))[:_MOST_ETAG]
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            if error.code == 304 and etag:
                return None
            raise CatalogueError(f"{where}: HTTP {error.code}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise CatalogueError(f"{where}: {type(reason).__name__}: {reason}") from None


def _read(answer: Any, where: str, deadline: float) -> bytes:
    pieces, size = [], 0
    while piece := answer.read1(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > MOST_FACTS_BYTES:
            raise CatalogueError(f"{where}: more than the {MOST_FACTS_BYTES} bytes that facts may have")
        if time.monotonic() > deadline:
            raise CatalogueError(f"{where}: it took longer than {FETCH_S:g} s")
    return b"".join(pieces)


def refresh(url: str, catalogue: Path, kept: Path) -> bool:
    """Keep what an address has, if it is right; return whether that is something new. Raises CatalogueError."""
    origin = origin_of(kept)
    found = fetched(url, origin.etag if origin is not None and origin.url == url else "")
    if found is None:
        return False
    text, etag = found
    checked_document(text, f"facts of {urllib.parse.urlsplit(url).hostname}", known=Book(shipped_facts()))
    checked(catalogue, Book(shipped_facts(), text))
    keep(kept, Origin(url=url, etag=etag), text)
    return True


def main() -> None:
    """Refresh, and say by the exit status what came of it; why a document is refused goes to standard output."""
    low_priority.yield_to_others(5)
    try:
        new = refresh(os.environ["MOA_FACTS_URL"], Path(sys.argv[1]), Path(sys.argv[2]))
    except CatalogueError as error:
        sys.stdout.buffer.write(str(error).encode())
        raise SystemExit(REFUSED) from None
    raise SystemExit(0 if new else SAME)


if __name__ == "__main__":
    main()
