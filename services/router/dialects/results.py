"""Images and files in a tool's result: shown in a turn of the caller's behind the results, which every model takes.

Results are text in the contract, as they are in OpenAI's API. Vendors that take images in a result read the same from
the turn that follows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.errors import MoaError

_MESSAGE: Final = re.compile(r"messages\[(\d+)\]")


def of_result(call: str) -> str:
    """Return the words that say of which call's result the parts behind them are."""
    return f"Of the result of {call}:"


class Shown:
    """Gathers what results of tools hold beside text, and shows it in turns that no caller wrote."""

    __slots__ = ("parts", "places")

    def __init__(self) -> None:
        self.parts: list[text_pb2.Part] = []
        """What is not shown yet."""
        self.places: list[int] = []
        """Where among the messages the turns stand."""

    def put(self, request: GenerateTextRequest) -> None:
        """Add a turn with what the results before it hold, if they hold anything."""
        if self.parts:
            self.places.append(len(request.messages))
            request.messages.add(role=text_pb2.ROLE_USER, parts=self.parts)
            self.parts.clear()


def count_as_the_caller(error: MoaError, places: Sequence[int]) -> None:
    """Let an error count messages without the turns at `places`; what is wrong in one is named by the result before."""
    found = _MESSAGE.match(error.param) if places else None
    if found is None:
        return
    index = int(found[1])
    name = f"messages[{index - sum(place <= index for place in places)}]"
    if error.message.startswith(found[0]):
        error.message = name + error.message.removeprefix(found[0])
    error.param = name + error.param.removeprefix(found[0])
