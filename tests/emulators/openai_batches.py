"""OpenAI's Batch API over its files, as strict as the real one (platform.openai.com/docs/api-reference/batch)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.emulators.openai import Refused, check_chat, invalid

_ENDPOINTS: Final = frozenset(("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions"))
_FIELDS: Final = frozenset(("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"))


@dataclass
class Batch:
    """A batch."""

    id: str
    endpoint: str
    input_file_id: str
    metadata: dict[str, str]
    created_at: int
    lines: list[dict[str, Any]]
    status: str = "in_progress"
    output_file_id: str | None = None
    error_file_id: str | None = None

    def shown(self) -> dict[str, Any]:
        """Return it as the API has it."""
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": None,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "metadata": self.metadata,
            "request_counts": {"total": len(self.lines), "completed": 0, "failed": 0},
        }


@dataclass
class Batches:
    """The files and batches of an emulator.

    Args:
        check_key: Raises Refused for a request without a good key.
        answered: Makes the answer to a body.
    """

    check_key: Callable[[web.Request], None]
    answered: Callable[[dict[str, Any]], dict[str, Any]]
    made: list[Batch] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    played: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Lines of the files of results without `custom_id`, in the place of answers, by the request's place."""
    ends_at_once: bool = True
    lost_answer: bool = False
    """Whether the next creation is not answered, though it is made."""
    refuses: bool = False
    """Whether it makes none."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/v1/files", self._guarded(self._upload)),
            web.get("/v1/files/{id}/content", self._guarded(self._content)),
            web.post("/v1/batches", self._guarded(self._create)),
            web.get("/v1/batches", self._guarded(self._list)),
            web.get("/v1/batches/{id}", self._guarded(self._get)),
            web.post("/v1/batches/{id}/cancel", self._guarded(self._cancel)),
        ]

    def _guarded(self, handler: Any) -> Any:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                self.check_key(request)
                result: web.StreamResponse = await handler(request)
                return result
            except Refused as refused:
                return web.json_response({"error": refused.error}, status=refused.status)

        return guarded

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file = form.get("file")
        if form.get("purpose") != "batch" or not isinstance(file, web.FileField):
            raise invalid("Invalid value for purpose.", "purpose")
        if not file.filename.endswith(".jsonl"):
            raise invalid("Invalid file format for Batch API. Must be .jsonl", "file")
        return self._stored("file-in", file.file.read())

    def _stored(self, prefix: str, data: bytes) -> web.Response:
        name = f"{prefix}{len(self.files)}"
        self.files[name] = data
        return web.json_response({"id": name, "object": "file", "bytes": len(data), "purpose": "batch"})

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        if self.refuses:
            raise invalid("No batches of this project.", None)
        if unknown := body.keys() - _FIELDS:
            raise invalid(f"Unknown parameter: '{min(unknown)}'.", min(unknown), "unknown_parameter")
        if body["endpoint"] not in _ENDPOINTS or body["completion_window"] != "24h":
            raise invalid("Invalid endpoint or completion_window.", "endpoint")
        if any(len(name) > 64 or len(value) > 512 for name, value in body.get("metadata", {}).items()):
            raise invalid("Invalid 'metadata'.", "metadata")
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        for line in lines:
            if line.keys() != {"custom_id", "method", "url", "body"} or line["method"] != "POST":
                raise invalid("Missing required parameter in line.", None)
            if line["url"] != body["endpoint"]:
                raise invalid("The URL provided for this request does not match the batch endpoint.", "url")
            check_chat(line["body"])
        if (
            len({line["custom_id"] for line in lines}) < len(lines)
            or len({line["body"]["model"] for line in lines}) > 1
        ):
            raise invalid("custom_id not unique, or more models than one.", None)
        made = Batch(
            f"batch_{len(self.made)}",
            body["endpoint"],
            body["input_file_id"],
            body.get("metadata", {}),
            int(time.time()),
            lines,
        )
        self.made.append(made)
        if self.lost_answer:
            self.lost_answer = False
            assert request.transport is not None
            request.transport.close()
        return web.json_response(made.shown())

    def end(self, batch: Batch, status: str = "completed") -> None:
        """End a batch."""
        answers: list[str] = []
        errors: list[str] = []
        for place, line in enumerate(batch.lines):
            played = self.played.get(place)
            if played is None and status == "completed":
                response = {"status_code": 200, "request_id": "r", "body": self.answered(line["body"])}
                played = {"response": response, "error": None}
            if played is None:
                played = {"response": None, "error": {"code": f"batch_{status}", "message": "not begun"}}
            written = json.dumps({"id": f"batch_req_{place}", "custom_id": line["custom_id"], **played}) + "\n"
            (errors if played["error"] or played["response"]["status_code"] != 200 else answers).append(written)
        for name, found in (("output_file_id", answers), ("error_file_id", errors)):
            if found:
                setattr(batch, name, f"file-{name}-{batch.id}")
                self.files[f"file-{name}-{batch.id}"] = "".join(found).encode()
        batch.status = status

    def _named(self, request: web.Request) -> Batch:
        found = next((each for each in self.made if each.id == request.match_info["id"]), None)
        if found is None:
            raise Refused(404, "No batch found.", kind="invalid_request_error")
        return found

    async def _list(self, request: web.Request) -> web.StreamResponse:
        newest = self.made[::-1]
        if after := request.query.get("after"):
            newest = newest[[each.id for each in newest].index(after) + 1 :]
        page = [each.shown() for each in newest[:1]]  # whatever `limit` says, so that there are pages
        return web.json_response({"object": "list", "data": page, "has_more": len(newest) > 1})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        batch = self._named(request)
        if batch.status == "cancelling":
            self.end(batch, "cancelled")
        elif batch.status == "in_progress" and self.ends_at_once:
            self.end(batch)
        return web.json_response(batch.shown())

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        batch = self._named(request)
        if batch.status != "in_progress":
            raise Refused(409, "Cannot cancel a batch that has ended.", kind="invalid_request_error")
        batch.status = "cancelling"
        return web.json_response(batch.shown())

    async def _content(self, request: web.Request) -> web.StreamResponse:
        data = self.files.get(request.match_info["id"])
        if data is None:
            raise Refused(404, "No such File object.", kind="invalid_request_error")
        return web.Response(body=data, content_type="application/octet-stream")
