"""From the contracts' events to Google's `GenerateContentResponse`, whole or in pieces."""

from __future__ import annotations

import base64
import json
from typing import Any

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import error_of
from services.router.operations.image import ImageAnswer
from services.router.operations.text import TextAnswer

Json = dict[str, Any]

_FINISH = {
    text_pb2.FINISH_REASON_STOP: "STOP",
    text_pb2.FINISH_REASON_LENGTH: "MAX_TOKENS",
    text_pb2.FINISH_REASON_TOOL_CALLS: "STOP",
    text_pb2.FINISH_REASON_CONTENT_FILTER: "SAFETY",
}


def usage_of(usage: usage_pb2.Usage) -> Json:
    """Return the usage as Google writes it: thoughts are counted beside the candidates, not among them."""
    results: Json = {
        "promptTokenCount": usage.prompt_tokens,
        "candidatesTokenCount": usage.completion_tokens - usage.reasoning_tokens,
        "totalTokenCount": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.reasoning_tokens:
        results["thoughtsTokenCount"] = usage.reasoning_tokens
    if usage.cached_tokens:
        results["cachedContentTokenCount"] = usage.cached_tokens
    return results


class _Candidate:
    """What has come of one candidate and was not rendered yet."""

    def __init__(self) -> None:
        self.parts: list[Json] = []
        self.finish = ""
        self._call_index = -1
        self._call = text_pb2.ToolCall()
        self._broken = False
        self._chosen: list[Json] = []
        self._top: list[Json] = []

    def take(self, event: text_pb2.TextEvent, kind: str, *, thoughts: bool) -> None:
        if kind == "tool_call":
            self._piece(event.tool_call)
            return
        self._flush()
        if kind == "text":
            self._text(event.text.text)
            for token in event.text.logprobs:
                self._chosen.append({"token": token.token, "logProbability": token.logprob})
                self._top.append({"candidates": [{"token": t.token, "logProbability": t.logprob} for t in token.top]})
        elif kind == "reasoning":
            self._reasoning(event.reasoning, thoughts)
        elif kind == "candidate_finished":
            self.finish = "MALFORMED_FUNCTION_CALL" if self._broken else _FINISH[event.candidate_finished.reason]
            if event.candidate_finished.refusal:
                self.parts.append({"text": event.candidate_finished.refusal})

    def _text(self, text: str) -> None:
        last = self.parts[-1] if self.parts else None
        if last is not None and set(last) == {"text"}:
            last["text"] += text
        elif text:
            self.parts.append({"text": text})

    def _reasoning(self, piece: text_pb2.ReasoningDelta, thoughts: bool) -> None:
        part: Json = {}
        if piece.text and thoughts:
            last = self.parts[-1] if self.parts else None
            if last is not None and set(last) == {"text", "thought"} and not piece.signature:
                last["text"] += piece.text
                return
            part = {"text": piece.text, "thought": True}
        elif piece.signature:
            part = {"text": ""}
        if piece.signature:
            part["thoughtSignature"] = _base64(piece.signature)
        if part:
            self.parts.append(part)

    def _piece(self, piece: text_pb2.ToolCallDelta) -> None:
        """Gather a call: Google's form gives it whole, its arguments as an object."""
        if piece.call_index != self._call_index:
            self._flush()
            self._call_index = piece.call_index
        self._call.id += piece.id
        self._call.name += piece.name
        self._call.arguments_json += piece.arguments_json
        self._call.signature += piece.signature

    def _flush(self) -> None:
        if self._call_index < 0:
            return
        call, self._call, self._call_index = self._call, text_pb2.ToolCall(), -1
        try:
            args = json.loads(call.arguments_json or "{}")
        except ValueError:
            args = None
        if not isinstance(args, dict):
            self._broken = True
            return
        part: Json = {"functionCall": {"id": call.id, "name": call.name, "args": args}}
        if call.signature:
            part["thoughtSignature"] = _base64(call.signature)
        self.parts.append(part)

    def render(self, index: int) -> Json:
        """Return what is in hand, and forget it."""
        results: Json = {"content": {"parts": self.parts, "role": "model"}, "index": index}
        if self.finish:
            results["finishReason"] = self.finish
        if self._chosen:
            results["logprobsResult"] = {"chosenCandidates": self._chosen, "topCandidates": self._top}
            results["avgLogprobs"] = sum(token["logProbability"] for token in self._chosen) / len(self._chosen)
        self.parts, self.finish, self._chosen, self._top = [], "", [], []
        return results

    @property
    def shows(self) -> bool:
        """Whether there is anything to render."""
        return bool(self.parts or self.finish or self._chosen)


class TextReply:
    """Turns a text answer's messages into responses."""

    def __init__(self, answer: TextAnswer, response_id: str, *, thoughts: bool) -> None:
        self.answer = answer
        self._common = {"modelVersion": answer.model.id, "responseId": response_id}
        self._thoughts = thoughts
        self._candidates: dict[int, _Candidate] = {}

    async def advance(self) -> bool:
        """Take the answer's next message in; tell whether there may be more. Raises MoaError for an error event."""
        message = await self.answer.next()
        return message is not None and not self._take(message)

    def delivered(self) -> None:
        """Note that what was rendered reached the caller."""

    def _take(self, message: text_service_pb2.GenerateTextResponse) -> bool:
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "error":
                raise error_of(event.error)
            if kind == "finished":
                return True
            if kind == "started":
                # Another model goes on.
                self._common["modelVersion"] = event.started.model
            if kind in ("text", "reasoning", "tool_call", "candidate_finished"):
                candidate = self._candidates.setdefault(event.candidate, _Candidate())
                candidate.take(event, kind, thoughts=self._thoughts)
        return False

    def render(self, *, last: bool) -> Json | None:
        """Return what came since the last time as one response; None when nothing shows. The last has the usage."""
        candidates = [self._candidates[i].render(i) for i in sorted(self._candidates) if self._candidates[i].shows]
        if last:
            return {"candidates": candidates, "usageMetadata": usage_of(self.answer.usage), **self._common}
        return {"candidates": candidates, **self._common} if candidates else None


class ImageReply:
    """Turns an image answer's messages into responses: each image of the request is a candidate."""

    def __init__(self, answer: ImageAnswer, response_id: str) -> None:
        self.answer = answer
        self._common = {"modelVersion": answer.model.id, "responseId": response_id}
        self._parts: dict[int, list[Json]] = {}
        self._seen: set[int] = set()
        self.images = 0
        """Images taken in and not delivered yet."""

    async def advance(self) -> bool:
        """As `TextReply.advance`."""
        message = await self.answer.next()
        return message is not None and not self._take(message)

    def delivered(self) -> None:
        """Note that the images rendered since the last time reached the caller."""
        self.answer.delivered(self.images)
        self.images = 0

    def _take(self, message: image_service_pb2.GenerateImageResponse) -> bool:
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "error":
                raise error_of(event.error)
            if kind == "finished":
                return True
            if kind == "started":
                # Another model goes on.
                self._common["modelVersion"] = event.started.model
            if kind == "text":
                self._parts.setdefault(event.index, []).append({"text": event.text.text})
            elif kind == "image":
                image = event.image.image
                blob = {"mimeType": image.mime_type, "data": image.data}
                self._parts.setdefault(event.index, []).append({"inlineData": blob})
                self.images += 1
        return False

    def render(self, *, last: bool) -> Json | None:
        """As `TextReply.render`."""
        parts, self._parts = self._parts, {}
        self._seen |= set(parts)
        shown = sorted(self._seen) if last else sorted(parts)
        candidates = []
        for index in shown:
            candidate: Json = {"content": {"parts": parts.get(index, []), "role": "model"}, "index": index}
            if last:
                candidate["finishReason"] = "STOP"
            candidates.append(candidate)
        if last:
            return {"candidates": candidates, "usageMetadata": usage_of(self.answer.usage), **self._common}
        return {"candidates": candidates, **self._common} if candidates else None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
