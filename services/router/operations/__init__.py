"""What callers may ask for: one operation a module. A new one is a contract, its module here, and its adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.router.domain.operation import Call, Operation
from services.router.operations.embedding import EmbeddingCall
from services.router.operations.image import ImageCall
from services.router.operations.text import TextCall

CALLS: Final[tuple[type[Call[Any, Any]], ...]] = (TextCall, ImageCall, EmbeddingCall)
"""Every operation's requests."""
OPERATIONS: Final[Mapping[str, Operation[Any, Any]]] = {call.operation.name: call.operation for call in CALLS}
"""Every operation, by the name that catalogue rows write as `makes`."""
