"""Show what newer data would change of the catalogue's models: `python -m deploy.facts [--update] [--url URL]`.

The newest data are the packages' newest versions, or an operator's address. `--update` moves the pins to them and
writes the document that ships; `--locked` makes it anew from the packages that are pinned.
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from deploy.facts import changes, document, packages
from services.catalogue import (
    SHIPPED_FACTS,
    Book,
    Catalogue,
    CatalogueError,
    Document,
    checked_document,
    fetching,
    load,
    today,
)

CATALOGUE = packages.REPOSITORY / "gateway" / "catalogue.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 0 whether there is something new or not, 1 where nothing could be had."""
    parser = argparse.ArgumentParser(prog="make models", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--update", action="store_true", help="move the pins and write the document that ships")
    what.add_argument("--locked", action="store_true", help="write the document that ships from the pinned packages")
    what.add_argument("--url", help="compare with the document of this address instead")
    parser.add_argument("--catalogue", type=Path, default=CATALOGUE)
    asked = parser.parse_args(arguments)
    before = checked_document(SHIPPED_FACTS.read_bytes(), str(SHIPPED_FACTS))
    catalogue = load(asked.catalogue, {})
    try:
        text = _document_at(asked.url) if asked.url else _made(before, newest=not asked.locked)
        new = checked_document(text, "the newest data")
    except (packages.Unreachable, CatalogueError) as error:
        print(f"The newest data cannot be had, nothing was compared: {error}")
        _tell_ends(catalogue)
        return 1
    versions = ", ".join(f"{source.name} {source.version}" for source in new.sources)
    print(f"kept data of {before.taken}; newest: {versions or asked.url}")
    found = list(changes.lines(catalogue, Book(text), today()))
    print("\n".join(found) if found else "nothing changes")
    _tell_ends(catalogue)
    if asked.update or asked.locked:
        packages.LOCK.write_text(packages.lock_text(new.sources))
        SHIPPED_FACTS.write_bytes(text)
        print(f"\nwritten: {SHIPPED_FACTS.name}, {packages.LOCK.name}")
    return 0


def _tell_ends(catalogue: Catalogue) -> None:
    if ending := list(changes.ends(catalogue, today())):
        print("\nwhat ends:\n" + "\n".join(ending))


def _made(before: Document, *, newest: bool) -> bytes:
    read = packages.fetched(newest=newest)
    taken = dt.datetime.now(dt.UTC).date()
    made = document.written(document.joined(read.prices, read.table, read.sources, taken, before))
    checked_document(made, "the document that the packages make")
    return made


def _document_at(url: str) -> bytes:
    found = fetching.fetched(url, "")
    return found[0] if found is not None else b""


if __name__ == "__main__":
    raise SystemExit(main())
