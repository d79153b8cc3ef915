"""Requests of Anthropic's dialect as they are read, and its replies to played answers, held to the published types."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

from moa.common.v1 import usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.router.dialects.anthropic import message_reply, message_request
from tests.dialects import anthropic
from tests.router.anthropic_events import check_message, check_stream
from tests.router.rig import text

HI: Final = [{"role": "user", "content": "hi"}]


def read(**body: Any) -> text_service_pb2.GenerateTextRequest:
    data = json.dumps({"model": "m", "messages": HI, **body}).encode()
    return message_request.read(data, betas=body.pop("betas", ()))[0].request


class Told:
    """An answer of these messages."""

    def __init__(self, messages: Sequence[text_service_pb2.GenerateTextResponse]) -> None:
        self.model = SimpleNamespace(id="m")
        self.usage = usage_pb2.Usage()
        self._left = list(messages)

    async def next(self) -> text_service_pb2.GenerateTextResponse | None:
        if not self._left:
            return None
        message = self._left.pop(0)
        for event in message.events:
            if event.HasField("finished"):
                self.usage = event.finished.usage
        return message


def whole(messages: Sequence[Any], **how: Any) -> Any:
    answer: Any = Told(messages)
    made = asyncio.run(message_reply.whole(answer, "r", **how))
    check_message(made)
    return made


def streamed(messages: Sequence[Any], **how: Any) -> list[Any]:
    answer: Any = Told(messages)
    events = message_reply.Events(answer, "r", **how)
    made = anthropic.events(b"".join(events.of(message) for message in messages).decode())
    check_stream(made)
    return made


def gathered(events: Sequence[Any]) -> list[Any]:
    """Return the content that a client gathers of a stream."""
    content: list[Any] = []
    for event in events:
        if event["type"] == "content_block_start":
            content.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            block, delta = content[event["index"]], event["delta"]
            name = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}.get(
                delta["type"], "raw"
            )
            block[name] = block.get(name, "") + delta.get(name, delta.get("partial_json", ""))
    for block in content:
        if raw := block.pop("raw", ""):
            block["input"] = json.loads(raw)
    return content


def thought(piece: str = "", signature: bytes = b"", signer: str = "") -> text_pb2.TextEvent:
    return text_pb2.TextEvent(reasoning=text_pb2.ReasoningDelta(text=piece, signature=signature, signer=signer))


USAGE: Final = usage_pb2.Usage(
    prompt_tokens=10, completion_tokens=5, cached_tokens=3, cache_write_tokens=2, reasoning_tokens=1, exact=True
)


def finished(reason: Any = text_pb2.FINISH_REASON_STOP, **how: Any) -> Any:
    end = text_pb2.TextEvent(candidate_finished=text_pb2.CandidateFinished(reason=reason, **how))
    return text(end, text_pb2.TextEvent(finished=text_pb2.Finished(usage=USAGE)))


def gathered_raw(events: Sequence[Any]) -> list[Any]:
    """As `gathered`, without reading arguments, which may be none."""
    return gathered([event for event in events if event.get("delta", {}).get("type") != "input_json_delta"])
