"""Reasoning that is given back: `reasoning_details`, as OpenRouter and its clients write it.

A part of type `reasoning.text` holds text and, where the vendor signs its reasoning, the signature; one of type
`reasoning.encrypted` holds what only the vendor can read. `format` says whose it is. For clients that keep reasoning
as text alone (`reasoning_content`), the id of the first call after it holds the signature of Claude's.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

from moa.text.v1 import text_pb2
from services.router.dialects.tools import proof_in, proved_id

_CLAUDE: Final = "anthropic"
_FORMATS: Final = {_CLAUDE: "anthropic-claude-v1", "google": "google-gemini-v1"}
_SIGNERS: Final = {form: signer for signer, form in _FORMATS.items()}
_TEXT: Final = "reasoning.text"
_ENCRYPTED: Final = "reasoning.encrypted"


class Details:
    """Gathers the pieces of a candidate's reasoning that are worth giving back: those that are signed."""

    def __init__(self) -> None:
        self._parts: list[dict[str, Any]] = []
        self._text: list[str] = []
        self._has_shown = False
        """Whether an id holds the signature."""

    def __bool__(self) -> bool:
        return bool(self._parts)

    def take(self, delta: text_pb2.ReasoningDelta) -> dict[str, Any] | None:
        """Take a piece in. Return the part that it completes: a signature proves the text before it."""
        if delta.text:
            self._text.append(delta.text)
        if not delta.signature:
            return None
        part: dict[str, Any] = {
            "format": _FORMATS.get(delta.signer, delta.signer or "unknown"),
            "index": len(self._parts),
        }
        if self._text and delta.signer == _CLAUDE:
            part |= {
                "type": _TEXT,
                "text": "".join(self._text),
                "signature": delta.signature.decode("ascii", "replace"),
            }
        else:
            part |= {"type": _ENCRYPTED, "data": base64.b64encode(delta.signature).decode()}
        self._text = []
        self._parts.append(part)
        return part

    def call_id(self, call_id: str) -> str:
        """Return the id of a call; that of the first holds the signature of what was thought before, if it is one."""
        if self._has_shown or not call_id:
            return call_id
        self._has_shown = True
        if [part["type"] for part in self._parts] != [_TEXT] or self._text:
            return call_id
        (part,) = self._parts
        return proved_id(call_id, part["signature"].encode(), part["text"])

    def whole(self) -> list[dict[str, Any]]:
        """Return the parts, in order."""
        return self._parts


def parts_from(details: Any, text: str, call_ids: Sequence[str]) -> list[text_pb2.ReasoningPart]:
    """Return an earlier turn's reasoning; what cannot be read is left out.

    It comes from its details, else from its plain text, with the signature that the id of one of its calls holds.
    """
    made: list[text_pb2.ReasoningPart] = []
    for each in details if isinstance(details, list) else ():
        if isinstance(each, dict):
            part = _part_from(each)
            if part is not None:
                made.append(part)
    if not made and text:
        proof = proof_in(call_ids, text)
        made.append(text_pb2.ReasoningPart(text=text, signature=proof, signer=_CLAUDE if proof else ""))
    return made


def _part_from(each: dict[str, Any]) -> text_pb2.ReasoningPart | None:
    form, kind = each.get("format"), each.get("type")
    signer = _SIGNERS.get(form, form) if isinstance(form, str) else ""
    if kind == _TEXT:
        thought, signature = each.get("text"), each.get("signature")
        if not isinstance(thought, str) or not isinstance(signature, str) or not (thought and signature):
            return None
        return text_pb2.ReasoningPart(text=thought, signature=signature.encode(), signer=signer)
    data = each.get("data")
    if kind == _ENCRYPTED and isinstance(data, str):
        try:
            return text_pb2.ReasoningPart(signature=base64.b64decode(data), signer=signer)
        except ValueError:
            return None
    return None
