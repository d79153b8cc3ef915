"""Try a catalogue that is no file yet, as the file of a process would be read."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from services.catalogue._error import CatalogueError
from services.catalogue._load import Check, reload
from services.catalogue._snapshot import Catalogue

NAME: Final = "catalogue.yaml"
"""What faults call the file."""


async def tried(text: str, environment: Mapping[str, str], check: Check) -> Catalogue:
    """Return the snapshot of a catalogue's text; another process reads it. Raises CatalogueError with the place.

    Sources of models that are written relative to the file's folder stay as they are written.
    """
    with tempfile.TemporaryDirectory(prefix="moa-catalogue-") as folder:
        path = Path(folder) / NAME
        path.write_text(text, encoding="utf-8", errors="replace")
        try:
            return await reload(path, environment, check)
        except CatalogueError as error:
            raise CatalogueError(str(error).replace(str(path), NAME)) from None
