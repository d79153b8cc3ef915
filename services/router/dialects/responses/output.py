"""The items of an answer as they grow, and what is told of each: shared by the stream and the whole answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, Protocol

from moa.text.v1 import text_pb2
from services.common import vendor_fields
from services.router.dialects.responses.sealed import sealed
from services.router.dialects.tools import GOOGLE, signed_id

Json = dict[str, Any]


class Tell(Protocol):
    """Takes one event: its type, and its fields but for the sequence number."""

    def __call__(self, kind: str, /, **fields: Any) -> None:
        """Take it."""


class Item(ABC):
    """An item under way: told when it begins, and when it is over.

    Args:
        index: Its place in the answer.
        tell: Takes its events.
    """

    prefix: str

    def __init__(self, index: int, answer_id: str, tell: Tell) -> None:
        self.index = index
        self.id = f"{self.prefix}_{answer_id}_{index}"
        self.tell = tell
        self.beside: Json = {}
        """Of the vendor's own."""

    def at(self, kind: str, **fields: Any) -> None:
        """Tell of something inside the item."""
        self.tell(kind, item_id=self.id, output_index=self.index, **fields)

    def begin(self) -> None:
        """Tell that it begins."""
        self.tell("response.output_item.added", output_index=self.index, item=self.shown("in_progress"))

    def end(self, status: str) -> Json:
        """Tell that it is over; return it."""
        whole = self.shown(status)
        vendor_fields.merge(whole, self.beside)
        self.tell("response.output_item.done", output_index=self.index, item=whole)
        return whole

    @abstractmethod
    def shown(self, status: str) -> Json:
        """Return the item as far as it is."""


class Reasoning(Item):
    """What the model thought, as a summary or as it is."""

    prefix = "rs"

    def __init__(self, index: int, answer_id: str, tell: Tell, *, is_summary: bool) -> None:
        super().__init__(index, answer_id, tell)
        self._is_summary = is_summary
        self._text: list[str] = []
        self._signature = b""
        self._signer = ""

    def add(self, text: str) -> None:
        """Add a piece of text."""
        place = {"summary_index": 0} if self._is_summary else {"content_index": 0}
        if not self._text:
            if self._is_summary:
                self.at("response.reasoning_summary_part.added", part=self._part(""), **place)
            else:
                self.at("response.content_part.added", part=self._part(""), **place)
        self._text.append(text)
        self.at(f"response.reasoning_{'summary_' * self._is_summary}text.delta", delta=text, **place)

    def sign(self, signature: bytes, signer: str) -> None:
        """Take in what proves it, or stands for it."""
        self._signature += signature
        self._signer = signer

    def end(self, status: str) -> Json:
        """As `Item.end`."""
        text = "".join(self._text)
        if self._text and self._is_summary:
            self.at("response.reasoning_summary_text.done", text=text, summary_index=0)
            self.at("response.reasoning_summary_part.done", part=self._part(text), summary_index=0)
        elif self._text:
            self.at("response.reasoning_text.done", text=text, content_index=0)
            self.at("response.content_part.done", part=self._part(text), content_index=0)
        return super().end(status)

    def _part(self, text: str) -> Json:
        return {"type": "summary_text" if self._is_summary else "reasoning_text", "text": text}

    def shown(self, status: str) -> Json:
        """As `Item.shown`."""
        text = "".join(self._text)
        parts = [self._part(text)] if text and status != "in_progress" else []
        made: Json = {"id": self.id, "type": "reasoning", "summary": parts if self._is_summary else []}
        if parts and not self._is_summary:
            made["content"] = parts
        made["encrypted_content"] = sealed(text, self._signature, self._signer) if self._signature else None
        return made | {"status": status}


class Message(Item):
    """What the model said: text, or a refusal."""

    prefix = "msg"

    def __init__(self, index: int, answer_id: str, tell: Tell) -> None:
        super().__init__(index, answer_id, tell)
        self.text: list[str] = []
        self._logprobs: list[Json] = []
        self._annotations: list[Json] = []
        self._parts: list[Json] = []
        self._speaks = False
        """Whether its text has begun."""

    def add(self, text: str, logprobs: Any) -> None:
        """Add a piece of text."""
        if not self._speaks:
            self._speaks = True
            self.at("response.content_part.added", content_index=0, part=self._text_part(""))
        tokens = [_logprob(token) for token in logprobs]
        self._logprobs += tokens
        self.text.append(text)
        self.at("response.output_text.delta", content_index=0, delta=text, logprobs=tokens)

    def annotate(self, given: Any) -> None:
        """Add what a vendor says of the sources of its text."""
        for each in given if isinstance(given, list) else ():
            if not isinstance(each, dict):
                continue
            inner = each.get(str(each.get("type")))
            made = {"type": each.get("type"), **inner} if isinstance(inner, dict) else each
            if not self._speaks:
                self.add("", ())
            number = len(self._annotations)
            self._annotations.append(made)
            self.at("response.output_text.annotation.added", content_index=0, annotation_index=number, annotation=made)

    def refuse(self, words: str) -> None:
        """Add the model's refusal."""
        self._end_text()
        part, number = {"type": "refusal", "refusal": words}, len(self._parts)
        self.at("response.content_part.added", content_index=number, part={"type": "refusal", "refusal": ""})
        self.at("response.refusal.delta", content_index=number, delta=words)
        self.at("response.refusal.done", content_index=number, refusal=words)
        self.at("response.content_part.done", content_index=number, part=part)
        self._parts.append(part)

    def end(self, status: str) -> Json:
        """As `Item.end`."""
        self._end_text()
        return super().end(status)

    def _end_text(self) -> None:
        if not self._speaks:
            return
        self._speaks = False
        text = "".join(self.text)
        part = self._text_part(text)
        self.at("response.output_text.done", content_index=0, text=text, logprobs=self._logprobs)
        self.at("response.content_part.done", content_index=0, part=part)
        self._parts.append(part)

    def _text_part(self, text: str) -> Json:
        known: Json = {"annotations": self._annotations, "logprobs": self._logprobs} if text else {}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []} | known

    def shown(self, status: str) -> Json:
        """As `Item.shown`."""
        parts = [] if status == "in_progress" else self._parts
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": parts}


class Call(Item):
    """A call of a function, or of a custom tool.

    Args:
        first: Its first piece.
        spaced: Its namespace, and its name there; None: it is in none.
    """

    prefix = "fc"

    def __init__(
        self,
        index: int,
        answer_id: str,
        tell: Tell,
        first: text_pb2.ToolCallDelta,
        spaced: tuple[str, str] | None = None,
    ) -> None:
        self.prefix = "ctc" if first.custom else "fc"
        super().__init__(index, answer_id, tell)
        self._custom = first.custom
        self._space, self._name = spaced or ("", first.name)
        signed = first.signature and first.signer == GOOGLE
        self._call_id = signed_id(first.id, first.signature) if signed else first.id
        self._words: list[str] = []

    def add(self, words: str) -> None:
        """Add a piece of its arguments, or of its free text."""
        if words:
            self._words.append(words)
            kind = "custom_tool_call_input" if self._custom else "function_call_arguments"
            self.at(f"response.{kind}.delta", delta=words)

    def end(self, status: str) -> Json:
        """As `Item.end`."""
        words = "".join(self._words)
        if self._custom:
            self.at("response.custom_tool_call_input.done", input=words)
        else:
            self.at("response.function_call_arguments.done", name=self._name, arguments=words)
        return super().end(status)

    def shown(self, status: str) -> Json:
        """As `Item.shown`."""
        words = "" if status == "in_progress" else "".join(self._words)
        kind, field = ("custom_tool_call", "input") if self._custom else ("function_call", "arguments")
        made: Json = {"id": self.id, "type": kind, "call_id": self._call_id, "name": self._name, field: words}
        return made | ({"namespace": self._space} if self._space else {}) | {"status": status}


_TOP: Final = ("token", "logprob", "bytes")


def _logprob(token: text_pb2.TokenLogprob) -> Json:
    return {**_token(token), "top_logprobs": [_token(top) for top in token.top]}


def _token(token: text_pb2.TokenLogprob) -> Json:
    return dict(zip(_TOP, (token.token, token.logprob, list(token.raw)), strict=True))
