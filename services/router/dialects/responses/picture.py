"""A picture that the model had made, as an item of an answer."""

from __future__ import annotations

from typing import Final

from moa.common.v1 import usage_pb2
from services.common.dialects import RESPONSES
from services.common.errors import MoaError
from services.router.dialects.openai.image_reply import usage_of
from services.router.dialects.responses.output import Item, Json

_EVENT: Final = "response.image_generation_call."


class Picture(Item):
    """A call of the tool `image_generation`."""

    prefix = "ig"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._fields: Json = {}

    def begin(self) -> None:
        """As `Item.begin`."""
        super().begin()
        self.at(_EVENT + "in_progress")

    def generating(self) -> None:
        """Tell that it is being made."""
        self.at(_EVENT + "generating")

    def partial(self, fields: Json) -> None:
        """Show what there is of it."""
        self.at(_EVENT + "partial_image", **fields)

    def made(self, fields: Json) -> Json:
        """Tell that it is made; return the item."""
        self._fields = fields
        self.at(_EVENT + "completed")
        return self.end("completed")

    def failed(self, error: MoaError) -> Json:
        """Tell that it could not be made; return the item."""
        self._fields = {"error": RESPONSES.render(error)["error"]}
        return self.end("failed")

    def shown(self, status: str) -> Json:
        """As `Item.shown`."""
        return {"id": self.id, "type": "image_generation_call", "status": status, "result": None} | self._fields


def tool_usage(usage: usage_pb2.Usage) -> Json:
    """Return what pictures consumed, as a response tells it beside its own usage."""
    return {"image_gen": usage_of(usage), "web_search": {"num_requests": 0}}
