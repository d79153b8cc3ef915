"""Read and check a catalogue's file for another process: `python -m services.catalogue.reading FILE [KEPT URL]`.

`KEPT` is where an operator's document of facts is kept that came from `URL`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from services.catalogue import prepared
from services.catalogue._compact import REFUSED, encoded
from services.catalogue._error import CatalogueError
from services.catalogue._load import checked, read_with_facts
from services.common import low_priority


def main() -> None:
    """Write the rows, or why the file is bad, to standard output."""
    low_priority.yield_to_others(5)  # nobody waits for it: whoever serves goes on with what it has
    kept = (Path(sys.argv[2]), sys.argv[3]) if len(sys.argv) > 3 else None
    try:
        out = encoded(*read_with_facts(Path(sys.argv[1]), kept))
    except CatalogueError as error:
        sys.stdout.buffer.write(str(error).encode())
        raise SystemExit(REFUSED) from None
    sys.stdout.buffer.write(out)


def read(path: Path) -> bytes:
    """Return what `prepared.keep` takes, without an operator's facts; empty for a bad file: who needs it says so."""
    try:
        text = path.read_bytes()
        return prepared.reading_of(text, encoded(checked(path, text=text)))
    except (OSError, CatalogueError):
        return b""


if __name__ == "__main__":
    main()
