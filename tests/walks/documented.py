"""What docs/decisions/0013-layout.md says of walks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_PAGE: Final = Path(__file__).parents[2] / "docs" / "decisions" / "0013-layout.md"


def walk(name: str) -> set[str]:
    """Return the modules that the page's table of walks names for one, relative to `services`, without their ending."""
    (row,) = re.findall(rf"^\| {re.escape(name)} \|.*\|$", _PAGE.read_text(), re.MULTILINE)
    return set(re.findall(r"`([\w/]+)`", row))
