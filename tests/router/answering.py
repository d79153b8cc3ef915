"""A text answer under way, without the operations before it."""

from __future__ import annotations

from typing import Any

from moa.common.v1 import usage_pb2
from services.catalogue import Model
from services.router.background import Background
from services.router.domain.attempts import Attempts
from services.router.domain.terms import Begun, Patience, Terms
from services.router.domain.text_metering import TextMetering
from services.router.operations.text import TextAnswer


def text_metering(guess: int = 7) -> TextMetering:
    """Return what meters an answer to a prompt of nine tokens."""

    async def bound(_: Model) -> int:
        return 9

    return TextMetering(guess, bound)


def text_answer(
    reservation: Any,
    stream: Any,
    first: Any,
    *,
    model: Any = None,
    guess: int = 7,
    request_id: str = "r",
    background: Background | None = None,
    metering: TextMetering | None = None,
) -> TextAnswer:
    """Return the answer that `stream` goes on with after the message `first`."""
    asked: Any = model or Model(id="m", provider="p")
    terms = Terms(reservation=reservation, request_id=request_id, patience=Patience())
    return TextAnswer(
        begun=Begun(asked, stream, first),
        attempts=Attempts(asked, list, terms=terms, stake=usage_pb2.Usage),
        request_id=request_id,
        metering=metering or text_metering(guess),
        background=background or Background(),
    )
