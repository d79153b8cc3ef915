"""Tools and parts that only one vendor's API knows, in the words of a refusal."""

from __future__ import annotations

from moa.text.v1.text_pb2 import Part, Tool


def owner_of(given: Tool | Part) -> str:
    """Return whose a tool or a part is, and of what kind where that is told."""
    kind = f" ({given.vendor.names[0]})" if given.vendor.names else ""
    return (given.vendor.vendor or "a vendor") + kind
