"""What a file that the catalogue is read from is refused with."""

from __future__ import annotations


class CatalogueError(Exception):
    """The file cannot be read, or contradicts itself. The message says where."""
