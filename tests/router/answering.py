"""A text answer under way, without the operations before it."""

from __future__ import annotations

from typing import Any

from services.common.catalogue import Model
from services.common.estimate import Meter
from services.router.domain.answer import TextAnswer
from services.router.domain.attempts import Attempts, Begun, Patience, Terms


def text_answer(
    booking: Any, source: Any, first: Any, *, model: Any = None, meter: Meter | None = None, request_id: str = "r"
) -> TextAnswer:
    """Give the answer that `source` goes on with after the message `first`."""
    asked: Any = model or Model(id="m", provider="p")
    terms = Terms(booking=booking, request_id=request_id, patience=Patience())
    return TextAnswer(
        begun=Begun(asked, source, first),
        attempts=Attempts(asked, list, terms=terms),
        request_id=request_id,
        meter=meter or Meter(7),
    )
