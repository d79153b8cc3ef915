"""From the contract's events to the events of Anthropic's content blocks, which a whole message is made of too.

Blocks come one after another: one ends before the next begins. Where a provider mixes the pieces of several calls,
those of a later call wait until the one before is whole.
"""

from __future__ import annotations

import json
from typing import Any, Final

from moa.text.v1 import text_pb2
from services.common import vendor_fields
from services.common.errors import UpstreamBroken
from services.router.dialects.anthropic import thoughts
from services.router.dialects.tools import GOOGLE, signed_id

Json = dict[str, Any]

_TEXT: Final = "text"
_THINKING: Final = "thinking"
_CALL: Final = "tool_use"


class Blocks:
    """Turns an answer's events into those of blocks, as the wire has them.

    Args:
        omits: Whether the text of reasoning is left out.
    """

    __slots__ = ("_call", "_calls", "_held", "_omits", "_omitted", "_open", "_signed", "arguments", "index")

    def __init__(self, *, omits: bool = False) -> None:
        self._omits = omits
        self._open = ""
        """The type of the block that has begun and not ended; empty: none has."""
        self.index = -1
        """Of the latest block."""
        self._signed = False
        """Whether the open thought has its signature."""
        self._omitted: list[str] = []
        """The open thought, where its text is left out."""
        self._call = -1
        """Which call is or was open."""
        self._calls: set[int] = set()
        """Those that have begun."""
        self.arguments: list[str] = []
        """Of that call, so far."""
        self._held: list[tuple[text_pb2.ToolCallDelta, Json]] = []
        """Pieces of later calls."""

    @property
    def takes_text(self) -> bool:
        """Whether text goes on in the block that is open."""
        return self._open == _TEXT

    def take(self, event: text_pb2.TextEvent, kind: str | None, fields: Json) -> list[Json]:
        """Return the events of a piece. `fields` are what the vendor says of it beside that. Raises UpstreamBroken."""
        if kind == "text":
            out = [] if self.takes_text else self._begin({"type": _TEXT, "text": ""})
            if event.text.text:
                out.append(self._delta({"type": "text_delta", "text": event.text.text}))
        elif kind == "reasoning":
            out = self._reasoning(event.reasoning)
        elif kind == "tool_call":
            out = self._take_call(event.tool_call, fields.get("call", {}))
        else:
            out = []
        of_text = fields.get("text", {})
        if of_text.get("begins"):
            out += self._begin({"type": _TEXT, "text": ""})
        if "block" in fields:
            out += self._begin(fields["block"])
        if "delta" in fields:
            if not self._open:
                raise UpstreamBroken("the provider went on with a block that had not begun")
            out.append(self._delta(fields["delta"]))
        for citation in of_text.get("citations", ()):
            out += [] if self.takes_text else self._begin({"type": _TEXT, "text": ""})
            out.append(self._delta({"type": "citations_delta", "citation": citation}))
        return out

    def end(self) -> list[Json]:
        """Return what ends the last block, and the calls that waited for its end."""
        out: list[Json] = []
        while self._held:
            out += self._release()
        return out + self._close()

    def _begin(self, block: Json) -> list[Json]:
        out = self._close()
        self.index += 1
        self._open = block["type"] or "unknown"
        self._signed = False
        return [*out, {"type": "content_block_start", "index": self.index, "content_block": block}]

    def _delta(self, delta: Json) -> Json:
        return {"type": "content_block_delta", "index": self.index, "delta": delta}

    def _close(self) -> list[Json]:
        if not self._open:
            return []
        out = []
        if self._open == _THINKING and not self._signed:
            # Clients give back signed thoughts alone.
            out.append(self._delta({"type": "signature_delta", "signature": self._signature(b"", "")}))
        self._open = ""
        return [*out, {"type": "content_block_stop", "index": self.index}]

    def _reasoning(self, piece: text_pb2.ReasoningDelta) -> list[Json]:
        out: list[Json] = []
        if piece.text:
            out += [] if self._open == _THINKING else self._begin({"type": _THINKING, "thinking": "", "signature": ""})
            if self._omits:
                self._omitted.append(piece.text)
            else:
                out.append(self._delta({"type": "thinking_delta", "thinking": piece.text}))
        if not piece.signature:
            return out
        shown = self._signature(piece.signature, piece.signer)
        if self._open != _THINKING and not piece.signature.startswith(thoughts.OMITTED):
            # A thought without a text is one that only its vendor can read.
            return [*out, *self._begin({"type": "redacted_thinking", "data": shown}), *self._close()]
        out += [] if self._open == _THINKING else self._begin({"type": _THINKING, "thinking": "", "signature": ""})
        self._signed = True
        return [*out, self._delta({"type": "signature_delta", "signature": shown}), *self._close()]

    def _signature(self, signature: bytes, signer: str) -> str:
        omitted = "".join(self._omitted)
        self._omitted.clear()
        return thoughts.written(signature, signer, omitted)

    def _take_call(self, piece: text_pb2.ToolCallDelta, beside: Json) -> list[Json]:
        if piece.call_index in self._calls:
            if self._open != _CALL or piece.call_index != self._call:
                if piece.arguments_json.strip():
                    raise UpstreamBroken("the provider went on with a call that was whole")
                return []
            out = self._arguments(piece)
            while self._held and self._is_whole:
                out += self._release()
            return out
        if self._held or (self._open == _CALL and not self._is_whole):
            self._held.append((piece, beside))
            return []
        return self._begin_call(piece, beside)

    @property
    def _is_whole(self) -> bool:
        """Whether the open call's arguments are."""
        try:
            json.loads("".join(self.arguments) or "{}")
        except (ValueError, RecursionError):
            return False
        return True

    def _release(self) -> list[Json]:
        """Return the events of the next call that waits, as far as it has come."""
        index = self._held[0][0].call_index
        mine = [held for held in self._held if held[0].call_index == index]
        self._held = [held for held in self._held if held[0].call_index != index]
        out = self._begin_call(*mine[0])
        for piece, _ in mine[1:]:
            out += self._arguments(piece)
        return out

    def _begin_call(self, piece: text_pb2.ToolCallDelta, beside: Json) -> list[Json]:
        is_signed = piece.signature and piece.signer == GOOGLE
        call_id = signed_id(piece.id, piece.signature) if is_signed else piece.id
        block: Json = {"type": _CALL, "id": call_id, "name": piece.name, "input": {}}
        vendor_fields.merge(block, beside)
        self._call = piece.call_index
        self._calls.add(piece.call_index)
        self.arguments = []
        return self._begin(block) + self._arguments(piece)

    def _arguments(self, piece: text_pb2.ToolCallDelta) -> list[Json]:
        if not piece.arguments_json:
            return []
        self.arguments.append(piece.arguments_json)
        return [self._delta({"type": "input_json_delta", "partial_json": piece.arguments_json})]
