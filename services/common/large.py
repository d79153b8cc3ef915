"""What counts as a large request: it is read and made apart, by helper processes and by routers of its own."""

from typing import Final

LARGE_BYTES: Final = 256 * 1024
"""A request of more bytes is worked on there."""
