"""Images and files in a tool's result: shown in a turn of the caller's behind the results, which every model takes.

Results are text in the contract, as they are in OpenAI's API. Vendors that take images in a result read the same from
the turn that follows it.
"""

from __future__ import annotations

from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest


def of_result(call: str) -> str:
    """Return the words that say of which call's result the parts behind them are."""
    return f"Of the result of {call}:"


def show_results(request: GenerateTextRequest, shown: list[text_pb2.Part]) -> None:
    """Add a turn with what the results of the tools before it hold beside text, and forget it."""
    if shown:
        request.messages.add(role=text_pb2.ROLE_USER, parts=shown)
        shown.clear()
