"""Make the document of facts that ships from the locked packages: `python -m deploy.facts`."""

from __future__ import annotations

import datetime as dt

from deploy.facts import document, packages
from services.catalogue import SHIPPED_FACTS, checked_document


def main() -> None:
    before = checked_document(SHIPPED_FACTS.read_bytes(), str(SHIPPED_FACTS)) if SHIPPED_FACTS.exists() else None
    read = packages.fetched(newest=False)
    made = document.joined(read.prices, read.table, read.sources, dt.datetime.now(dt.UTC).date(), before)
    text = document.written(made)
    checked_document(text, str(SHIPPED_FACTS))
    SHIPPED_FACTS.write_bytes(text)


if __name__ == "__main__":
    main()
