"""What keeps responses in memory, for tests of the dialect; how they are kept is tested at the auth service."""

from __future__ import annotations

import json
from typing import Any

from moa.response.v1 import response_store_service_pb2 as pb
from services.common.errors import MoaError, NotFound


class PlayedResponses:
    """Keeps responses. `calls` are the names of what was asked; `refusal` is raised by the next `store`."""

    conversations: Any = None
    """None are kept here."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], pb.StoredResponse] = {}
        self.calls: list[str] = []
        self.refusal: MoaError | None = None

    def reset(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]

    def _found(self, account_id: str, response_id: str) -> pb.StoredResponse:
        found = self.kept.get((account_id, response_id))
        if found is None:
            raise NotFound(f"there is no response {response_id!r}", param="response_id")
        return found

    async def prepare(
        self, account_id: str, previous_id: str, *, stores: bool, conversation_id: str = ""
    ) -> pb.PrepareResponse:
        self.calls.append("prepare")
        if not previous_id:
            return pb.PrepareResponse()
        before = await self.input_of(account_id, previous_id)
        return pb.PrepareResponse(items=[*before, *_output(self._found(account_id, previous_id))])

    async def store(self, response: pb.StoredResponse) -> None:
        self.calls.append("store")
        if self.refusal is not None:
            raise self.refusal
        self.kept[response.account_id, response.response_id] = response

    async def read(self, account_id: str, response_id: str) -> pb.ReadResponse:
        found = self._found(account_id, response_id)
        return pb.ReadResponse(body=found.body, state=found.state)

    async def input_of(self, account_id: str, response_id: str) -> list[bytes]:
        found = self._found(account_id, response_id)
        before = []
        if found.previous_response_id:
            previous = self._found(account_id, found.previous_response_id)
            before = [*await self.input_of(account_id, previous.response_id), *_output(previous)]
        return [*before, *found.input]

    async def events(self, account_id: str, response_id: str, after: int) -> pb.ReadEventsResponse:
        found = self._found(account_id, response_id)
        return pb.ReadEventsResponse(
            events=found.events[max(0, after + 1) :],
            state=found.state,
            streamed=bool(found.events),
            last_sequence=len(found.events) - 1,
        )

    async def claim(self) -> pb.ClaimResponse:
        return pb.ClaimResponse()

    async def delete(self, account_id: str, response_id: str) -> None:
        self._found(account_id, response_id)
        del self.kept[account_id, response_id]


def _output(response: pb.StoredResponse) -> list[bytes]:
    items: list[Any] = json.loads(response.body)["output"]
    return [json.dumps(item).encode() for item in items]
