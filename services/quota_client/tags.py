"""What callers call their requests: the header `moa-tags`, read here alone, for routers and tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from services.catalogue import LONGEST_TAG_BYTES
from services.common.errors import InvalidField

TAGS_KEY: Final = "moa-tags"
"""Tags, parted by commas: virtual models have conditions on them (docs/routing.md)."""
MOST: Final = 8
_NONE: Final[frozenset[str]] = frozenset()


def tags_of(metadata: Iterable[tuple[str, str | bytes]]) -> frozenset[str]:
    """Return a request's tags, of all headers of the name. Raises InvalidField for too many, or too long ones."""
    found: list[str] = []
    for name, value in metadata:
        if name == TAGS_KEY:
            found.append(value if isinstance(value, str) else value.decode(errors="replace"))
    if not found:
        return _NONE
    tags = frozenset(tag for text in found for part in text.split(",") if (tag := part.strip()))
    if len(tags) > MOST:
        raise InvalidField(f"{TAGS_KEY} holds at most {MOST} tags, not {len(tags)}", param=TAGS_KEY)
    if any(len(tag.encode()) > LONGEST_TAG_BYTES for tag in tags):
        raise InvalidField(f"a tag of {TAGS_KEY} has at most {LONGEST_TAG_BYTES} bytes", param=TAGS_KEY)
    return tags
