"""What the router has for the servicers of its dialects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.common.store import Links, Store
from services.router.adapters.stored import ResponseStore
from services.router.dialects.reading import Reading
from services.router.domain.caller import Caller
from services.router.domain.listing import Listing
from services.router.domain.operations import Operations
from services.router.domain.ports import RememberingAdmission


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a dialect's servicer is made of."""

    operations: Operations
    listing: Listing
    begin: Callable[[Any], Caller]
    """Returns the caller of a call whose key may be a provider's."""
    reading: Reading
    store: Store
    links: Links
    admission: RememberingAdmission
    responses: ResponseStore
    """Keeps responses for accounts that have them stored."""
    background: Any
    """Makes responses in the background; `dialects.responses.background.BackgroundResponses` is one."""
