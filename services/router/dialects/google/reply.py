"""From the contracts' events to Google's `GenerateContentResponse`, whole or in pieces."""

from __future__ import annotations

import json
from typing import Any

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import vendor_fields
from services.common.errors import error_of
from services.router.dialects.google import carried, signatures
from services.router.operations.image import ImageAnswer
from services.router.operations.text import TextAnswer

Json = dict[str, Any]

_FINISH = {
    text_pb2.FINISH_REASON_STOP: "STOP",
    text_pb2.FINISH_REASON_LENGTH: "MAX_TOKENS",
    text_pb2.FINISH_REASON_TOOL_CALLS: "STOP",
    text_pb2.FINISH_REASON_CONTENT_FILTER: "SAFETY",
}
_GOOD = ("STOP", "MAX_TOKENS")


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


def _by_kind(usage: usage_pb2.Usage) -> Json:
    """Return the tokens of images and of text, where the provider told them apart."""
    results: Json = {}
    words = usage.completion_tokens - usage.reasoning_tokens
    for name, total, images in (
        ("promptTokensDetails", usage.prompt_tokens, usage.prompt_image_tokens),
        ("candidatesTokensDetails", words, usage.completion_image_tokens),
    ):
        if images:
            kinds = (("TEXT", max(0, total - images)), ("IMAGE", images))
            results[name] = [{"modality": kind, "tokenCount": count} for kind, count in kinds if count]
    return results


class _Candidate:
    """What has come of one candidate and was not rendered yet."""

    def __init__(self) -> None:
        self.parts: list[Json] = []
        self.finish = ""
        self._shown = False
        """Whether parts of it were rendered."""
        self.fields: Json = {}
        """Of Google's own, beside its content."""
        self._calls: dict[int, text_pb2.ToolCall] = {}
        """Calls that have begun, by their index; their pieces may interleave."""
        self._given: set[int] = set()
        self._call_fields: dict[int, Json] = {}
        self._broken = ""
        """A call that is none in Google's form, as the model wrote it."""
        self._chosen: list[Json] = []
        self._top: list[Json] = []

    def take(self, event: text_pb2.TextEvent, kind: str | None, fields: Json, *, thoughts: bool) -> None:
        beside: Json = fields.get("part", {})
        vendor_fields.go_on(self.fields, fields.get("candidate", {}))
        if kind == "tool_call":
            self._piece(event.tool_call, beside)
            return
        if kind is not None or beside:
            self._flush()
        if kind == "text":
            self._text(event.text.text, beside)
            for token in event.text.logprobs:
                self._chosen.append({"token": token.token, "logProbability": token.logprob})
                self._top.append({"candidates": [{"token": t.token, "logProbability": t.logprob} for t in token.top]})
        elif kind == "reasoning":
            self._reasoning(event.reasoning, thoughts, beside)
        elif kind == "candidate_finished":
            self._flush(last=True)
            self.finish = _FINISH[event.candidate_finished.reason]
            if self._broken:
                self.finish = "MALFORMED_FUNCTION_CALL"
                self.fields.pop("finishReason", None)
                self.fields["finishMessage"] = f"Malformed function call: {self._broken}"
            if event.candidate_finished.refusal and "finishMessage" not in self.fields:
                self.parts.append({"text": event.candidate_finished.refusal})
        elif beside:
            self.parts.append(beside)

    def _text(self, text: str, beside: Json) -> None:
        last = self.parts[-1] if self.parts else None
        if beside:
            self.parts.append({"text": text, **beside})
        elif last is not None and set(last) == {"text"}:
            last["text"] += text
        elif text:
            self.parts.append({"text": text})

    def _reasoning(self, piece: text_pb2.ReasoningDelta, thoughts: bool, beside: Json) -> None:
        part: Json = {}
        last = self.parts[-1] if self.parts else None
        foreign = piece.signature and piece.signer not in ("", signatures.SIGNER)
        goes_on = last is not None and set(last) == {"text", "thought"} and not beside
        if last is not None and goes_on and thoughts and (foreign or not piece.signature):
            last["text"] += piece.text
            if foreign:
                last["thoughtSignature"] = signatures.written(piece.signature, piece.signer)
            return
        if piece.text and thoughts:
            part = {"text": piece.text, "thought": True}
        elif foreign:
            part = {"text": "", "thought": True}
        elif piece.signature:
            part = {"text": ""}
        if piece.signature:
            part["thoughtSignature"] = signatures.written(piece.signature, piece.signer)
        if part:
            self.parts.append({**part, **beside})

    def _piece(self, piece: text_pb2.ToolCallDelta, beside: Json) -> None:
        """Gather a call: Google's form gives it whole, its arguments as an object."""
        index = piece.call_index
        if index in self._given:
            if piece.arguments_json.strip():
                self._broken += piece.arguments_json
            return  # Blanks after the arguments.
        if index not in self._calls:
            self._flush()
        call = self._calls.setdefault(index, text_pb2.ToolCall())
        call.id += piece.id
        call.name += piece.name
        call.arguments_json += piece.arguments_json
        call.signature += piece.signature
        call.signer = call.signer or piece.signer
        if beside:
            self._call_fields[index] = beside

    def _flush(self, *, last: bool = False) -> None:
        """Write the calls whose arguments are whole; at the last, all."""
        for index, call in list(self._calls.items()):
            args = _object_of(call.arguments_json or ("{}" if last else ""))
            if args is None and not last:
                continue
            del self._calls[index]
            self._given.add(index)
            if args is None:
                self._broken += f"{call.name}({call.arguments_json})"
                continue
            part: Json = {"functionCall": {"id": call.id, "name": call.name, "args": args}}
            if call.signature:
                part["thoughtSignature"] = signatures.written(call.signature, call.signer)
            vendor_fields.merge(part, self._call_fields.pop(index, {}))
            self.parts.append(part)

    def render(self, index: int, *, last: bool) -> Json:
        """Return what is in hand, and forget it.

        How it ended is told in the last response alone: clients read a candidate in each, also in that with the usage.
        """
        ended = last and bool(self.finish)
        # Google's chats forget an answer of which one response has no part. Of a refused one they shall.
        empty = ended and not (self._shown and self.finish in _GOOD)
        parts = self.parts or ([] if empty else [{"text": ""}])
        self._shown = bool(parts)
        results: Json = {"content": {"parts": parts, "role": "model"}, "index": index}
        kept: Json = {}
        if ended:
            results["finishReason"] = self.fields.pop("finishReason", "") or self.finish
        else:
            # Some models put one on every piece: it is told once, with the end.
            kept = {name: self.fields.pop(name) for name in ("finishReason", "finishMessage") if name in self.fields}
        if self._chosen:
            results["logprobsResult"] = {"chosenCandidates": self._chosen, "topCandidates": self._top}
            average = sum(token["logProbability"] for token in self._chosen) / len(self._chosen)
            results["avgLogprobs"] = self.fields.pop("avgLogprobs", average)
        vendor_fields.merge(results, self.fields)
        self.fields = kept
        self.parts, self._chosen, self._top = [], [], []
        if ended:
            self.finish = ""
        return results

    def shows(self, *, last: bool) -> bool:
        """Return whether there is anything to render."""
        if last and self.finish:
            return True
        return bool(self.parts or self._chosen or self.fields.keys() - {"finishReason", "finishMessage"})


def _object_of(arguments: str) -> Json | None:
    """Return arguments as an object; None while they are none."""
    try:
        args = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    return args if isinstance(args, dict) else None


class TextReply:
    """Turns a text answer's messages into responses."""

    def __init__(self, answer: TextAnswer, response_id: str, *, thoughts: bool) -> None:
        self.answer = answer
        self._common = {"modelVersion": answer.model.id, "responseId": response_id}
        self._thoughts = thoughts
        self._candidates: dict[int, _Candidate] = {}
        self._beside: Json = {}
        """Of Google's own, beside the candidates, and not rendered yet."""
        self._usage: Json = {}

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
            fields = self._fields_of(event) if event.HasField("vendor") else {}
            if fields or kind in ("text", "reasoning", "tool_call", "candidate_finished"):
                candidate = self._candidates.setdefault(event.candidate, _Candidate())
                candidate.take(event, kind, fields, thoughts=self._thoughts)
        return False

    def _fields_of(self, event: text_pb2.TextEvent) -> Json:
        """Take in what is of the whole answer, and return what is of a candidate."""
        fields = carried.fields_of(event)
        beside: Json = fields.pop("answer", {})
        vendor_fields.go_on(self._usage, beside.pop("usageMetadata", {}))
        if "modelVersion" in beside:
            self._common["modelVersion"] = beside.pop("modelVersion")
        vendor_fields.go_on(self._beside, beside)
        return fields

    def render(self, *, last: bool) -> Json | None:
        """Return what came since the last time as one response; None when nothing shows. The last has the usage."""
        shown = [(i, each) for i, each in sorted(self._candidates.items()) if each.shows(last=last)]
        candidates = [each.render(i, last=last) for i, each in shown]
        beside, self._beside = self._beside, {}
        if not last:
            return {"candidates": candidates, **self._common, **beside} if candidates or beside else None
        usage = usage_of(self.answer.usage)
        of_tools = self._usage.get("toolUsePromptTokenCount")
        if isinstance(of_tools, int) and 0 < of_tools <= usage["promptTokenCount"]:
            # Google counts the prompts of its tools beside the prompt, the contract among it.
            usage["promptTokenCount"] -= of_tools
        vendor_fields.merge(usage, self._usage)
        results: Json = {"usageMetadata": usage, **self._common, **beside}
        # A prompt that was refused has no candidates.
        return results if "promptFeedback" in beside and not candidates else {"candidates": candidates, **results}


class ImageReply:
    """Turns an image answer's messages into responses: each image that was asked for is a candidate."""

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
            place = event.candidate if event.HasField("candidate") else event.index
            if kind == "text":
                self._parts.setdefault(place, []).append({"text": event.text.text})
            elif kind == "image":
                image = event.image.image
                blob = {"mimeType": image.mime_type, "data": image.data}
                self._parts.setdefault(place, []).append({"inlineData": blob})
                self.images += 1
        return False

    def render(self, *, last: bool) -> Json | None:
        """As `TextReply.render`."""
        parts, self._parts = self._parts, {}
        self._seen |= set(parts)
        shown = sorted(self._seen) if last else sorted(parts)
        candidates = []
        for index in shown:
            # As in `_Candidate.render`.
            content = {"parts": parts.get(index) or [{"text": ""}], "role": "model"}
            candidate: Json = {"content": content, "index": index}
            if last:
                candidate["finishReason"] = "STOP"
            candidates.append(candidate)
        if last:
            usage = usage_of(self.answer.usage) | _by_kind(self.answer.usage)
            return {"candidates": candidates, "usageMetadata": usage, **self._common}
        return {"candidates": candidates, **self._common} if candidates else None
