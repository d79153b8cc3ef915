"""Google's Gemini Batch API with inline requests, as strict as the real one (ai.google.dev/api/batch-api)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.emulators.gemini import MODELS, Refused, check, invalid, json_of

_TYPE: Final = "type.googleapis.com/google.ai.generativelanguage.v1main."
_MOST_BYTES: Final = 20_000_000
_CANCELLED: Final = {"code": 1, "message": "The operation was cancelled."}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Inlined(_Strict):
    request: dict[str, Any]
    metadata: dict[str, Any] | None = None


class _Requests(_Strict):
    requests: list[_Inlined] = Field(min_length=1)


class _Input(_Strict):
    requests: _Requests


class _Batch(_Strict):
    displayName: str = Field(min_length=1)  # noqa: N815  # the wire's name
    inputConfig: _Input  # noqa: N815
    priority: str | None = None


class _Body(_Strict):
    batch: _Batch


@dataclass
class Batch:
    """A batch."""

    name: str
    model: str
    display_name: str
    requests: list[_Inlined]
    created: datetime
    state: str = "BATCH_STATE_PENDING"
    responses: list[dict[str, Any]] | None = None

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.state not in ("BATCH_STATE_PENDING", "BATCH_STATE_RUNNING")

    def shown(self) -> dict[str, Any]:
        """Return the operation; `done` is left out until it is so, and counts are text, as protobuf's JSON has them."""
        count = str(len(self.requests))
        described: dict[str, Any] = {
            "@type": _TYPE + "GenerateContentBatch",
            "model": f"models/{self.model}",
            "displayName": self.display_name,
            "createTime": self.created.isoformat().replace("+00:00", "Z"),
            "batchStats": {"requestCount": count, **({} if self.ended else {"pendingRequestCount": count})},
            "state": self.state,
            "name": self.name,
        }
        made: dict[str, Any] = {"name": self.name, "metadata": described}
        if self.ended:
            made["done"] = True
        if self.responses is not None:
            output = {"inlinedResponses": {"inlinedResponses": self.responses}}
            described["output"] = output
            made["response"] = {"@type": _TYPE + "GenerateContentBatch", **output}
        elif self.ended:
            made["error"] = _CANCELLED
        return made


@dataclass
class Batches:
    """The batches of an emulator.

    Args:
        check_key: Raises Refused for a request without a good key.
        refusal: Makes the answer of a refusal.
        answered: Makes the answer to a body.
    """

    check_key: Callable[[web.Request], None]
    refusal: Callable[[Refused], web.Response]
    answered: Callable[[dict[str, Any]], dict[str, Any]]
    made: list[Batch] = field(default_factory=list)
    played: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Results without `metadata`, in the place of answers, by the request's place."""
    ends_at_once: bool = True
    lost_answer: bool = False
    """Whether the next creation is not answered, though it is made."""
    refuses: bool = False
    """Whether it makes none."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/v1beta/models/{model}:batchGenerateContent", self._guarded(self._create)),
            web.get("/v1beta/batches", self._guarded(self._list)),
            web.get("/v1beta/batches/{id}", self._guarded(self._get)),
            web.post("/v1beta/batches/{id}:cancel", self._guarded(self._cancel)),
        ]

    def end(self, batch: Batch, state: str = "BATCH_STATE_SUCCEEDED") -> None:
        """End a batch. One that was cancelled has answered nothing."""
        batch.state = state
        if state == "BATCH_STATE_SUCCEEDED":
            batch.responses = [
                {**(self.played.get(place) or {"response": self.answered(each.request)}), "metadata": each.metadata}
                for place, each in enumerate(batch.requests)
            ]

    def _guarded(self, handler: Any) -> Any:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                self.check_key(request)
                result: web.StreamResponse = await handler(request)
                return result
            except Refused as refused:
                return self.refusal(refused)

        return guarded

    async def _create(self, request: web.Request) -> web.StreamResponse:
        model = request.match_info["model"]
        if len(await request.read()) > _MOST_BYTES:
            raise invalid("Request payload size exceeds the limit: 20000000 bytes.")
        try:
            given = _Body.model_validate(await json_of(request)).batch
        except ValidationError as wrong:
            raise invalid(f"Invalid JSON payload received. {wrong}") from None
        if model not in MODELS or self.refuses:
            raise Refused(404, "NOT_FOUND", f"models/{model} is not supported for batchGenerateContent.")
        for each in given.inputConfig.requests.requests:
            check(each.request, model)
        now = datetime.now(UTC)
        requests = given.inputConfig.requests.requests
        batch = Batch(f"batches/b{len(self.made)}", model, given.displayName, requests, now)
        self.made.append(batch)
        if self.lost_answer:
            self.lost_answer = False
            assert request.transport is not None
            request.transport.close()
        return web.json_response(batch.shown())

    def _named(self, request: web.Request) -> Batch:
        found = next((each for each in self.made if each.name == f"batches/{request.match_info['id']}"), None)
        if found is None:
            raise Refused(404, "NOT_FOUND", "Requested entity was not found.")
        return found

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if not 1 <= int(request.query.get("pageSize", "50")) <= 1000:
            raise invalid("pageSize is out of range.")
        at = int(request.query.get("pageToken") or 0)
        page: dict[str, Any] = {"operations": [each.shown() for each in self.made[at : at + 1]]}  # there are pages
        if at + 1 < len(self.made):
            page["nextPageToken"] = str(at + 1)
        return web.Response(body=json.dumps(page, indent=2).encode(), content_type="application/json")

    async def _get(self, request: web.Request) -> web.StreamResponse:
        batch = self._named(request)
        if not batch.ended and self.ends_at_once:
            self.end(batch)
        shown = batch.shown()
        if fields := request.query.get("fields"):
            wanted = fields.split(",")
            if unknown := set(wanted) - {"name", "metadata", "done", "error", "response"}:
                raise invalid(f"Invalid field selection {min(unknown)}")
            shown = {name: value for name, value in shown.items() if name in wanted}
        return web.Response(body=json.dumps(shown, indent=2).encode(), content_type="application/json")

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        batch = self._named(request)
        if batch.ended:
            raise Refused(400, "FAILED_PRECONDITION", "The batch has ended.")
        self.end(batch, "BATCH_STATE_CANCELLED")
        return web.json_response({})
