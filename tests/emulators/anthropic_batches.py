"""Anthropic's Message Batches API, as strict as the real one.

platform.claude.com/docs/en/api/creating-message-batches and its neighbours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web

from tests.emulators.anthropic_requests import Refused, check_batched, check_headers

_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FORBIDDEN: Final = ("stream",)


@dataclass
class Batch:
    """A batch."""

    id: str
    requests: list[dict[str, Any]]
    betas: str
    created: datetime
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: bool = False
    cancelled: bool = False

    def shown(self, url: str) -> dict[str, Any]:
        """Return it as the API has it: counts are of `processing` until it has ended."""
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if self.ended:
            for result in self.results.values():
                counts[result["type"]] += 1
        else:
            counts["processing"] = len(self.requests)
        status = "ended" if self.ended else "canceling" if self.cancelled else "in_progress"
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": counts,
            "created_at": self.created.isoformat(),
            "expires_at": (self.created + timedelta(hours=24)).isoformat(),
            "ended_at": datetime.now(UTC).isoformat() if self.ended else None,
            "cancel_initiated_at": None,
            "archived_at": None,
            "results_url": f"{url}/v1/messages/batches/{self.id}/results" if self.ended else None,
        }


class Batches:
    """The batches of an emulator.

    Args:
        url: Returns where it is.
        answered: Makes the message that answers a body.
    """

    def __init__(self, url: Callable[[], str], answered: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._url = url
        self._answered = answered
        self.made: list[Batch] = []
        self.ends_at_once = True
        """Whether a batch has ended when it is asked for the next time."""
        self.played: dict[int, dict[str, Any]] = {}
        """Results in the place of messages, by the request's place."""
        self.lost_answer = False
        """Whether the next creation is not answered, though it is made."""
        self.refuses = False
        """Whether it makes none."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the routes."""
        path = "/v1/messages/batches"
        return [
            web.post(path, self._guarded(self._create)),
            web.get(path, self._guarded(self._list)),
            web.get(path + "/{id}", self._guarded(self._get)),
            web.post(path + "/{id}/cancel", self._guarded(self._cancel)),
            web.get(path + "/{id}/results", self._guarded(self._results)),
        ]

    def end(self, batch: Batch) -> None:
        """End a batch: each request has a result."""
        for place, request in enumerate(batch.requests):
            result = self.played.get(place)
            if result is None:
                message = self._answered(request["params"])
                result = {"type": "canceled"} if batch.cancelled else {"type": "succeeded", "message": message}
            batch.results[request["custom_id"]] = result
        batch.ended = True

    def _guarded(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                check_headers(request)
                return await handler(request)
            except Refused as refused:
                return refused.response()

        return guarded

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        if self.refuses:
            raise Refused(400, "invalid_request_error", "no batches of this workspace")
        if body.keys() != {"requests"} or not isinstance(body["requests"], list) or not body["requests"]:
            raise Refused(400, "invalid_request_error", "requests: Field required")
        seen: set[str] = set()
        for place, each in enumerate(body["requests"]):
            if each.keys() != {"custom_id", "params"} or not _ID.fullmatch(each["custom_id"]):
                raise Refused(400, "invalid_request_error", f"requests.{place}.custom_id: String should match pattern")
            if each["custom_id"] in seen:
                raise Refused(400, "invalid_request_error", f"requests.{place}.custom_id: not unique")
            seen.add(each["custom_id"])
            if any(name in each["params"] for name in _FORBIDDEN):
                raise Refused(400, "invalid_request_error", f"requests.{place}.params.stream: not supported")
            check_batched(each["params"], request.headers.get("anthropic-beta", ""))
        batch = Batch(
            f"msgbatch_{len(self.made):024d}",
            body["requests"],
            request.headers.get("anthropic-beta", ""),
            datetime.now(UTC),
        )
        self.made.append(batch)
        if self.lost_answer:
            self.lost_answer = False
            assert request.transport is not None
            request.transport.close()
        return web.json_response(batch.shown(self._url()))

    def _named(self, request: web.Request) -> Batch:
        found = next((each for each in self.made if each.id == request.match_info["id"]), None)
        if found is None:
            raise Refused(404, "not_found_error", "Message batch not found")
        return found

    async def _list(self, request: web.Request) -> web.StreamResponse:
        limit = int(request.query.get("limit", "20"))
        if not 1 <= limit <= 1000:
            raise Refused(400, "invalid_request_error", "limit: Input should be less than or equal to 1000")
        newest = self.made[::-1]
        if after := request.query.get("after_id"):
            newest = newest[[each.id for each in newest].index(after) + 1 :]
        page = newest[:2]  # whatever `limit` says, so that there are pages
        made = {"data": [each.shown(self._url()) for each in page], "has_more": len(newest) > len(page)}
        ends = {"first_id": page[0].id, "last_id": page[-1].id} if page else {"first_id": None, "last_id": None}
        return web.json_response({**made, **ends})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        batch = self._named(request)
        if not batch.ended and (self.ends_at_once or batch.cancelled):
            self.end(batch)
        return web.json_response(batch.shown(self._url()))

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        batch = self._named(request)
        if batch.ended:
            raise Refused(400, "invalid_request_error", "Batch has already ended")
        batch.cancelled = True
        return web.json_response(batch.shown(self._url()))

    async def _results(self, request: web.Request) -> web.StreamResponse:
        batch = self._named(request)
        if not batch.ended:
            raise Refused(404, "not_found_error", "results are not available")
        # In any order.
        lines = [
            json.dumps({"custom_id": name, "result": result}) + "\n" for name, result in reversed(batch.results.items())
        ]
        return web.Response(text="".join(lines), content_type="application/x-jsonl")
