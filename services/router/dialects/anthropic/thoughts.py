"""Signatures of reasoning, as `thinking` and `redacted_thinking` blocks hold them.

Anthropic's own stand there as they are. Others name who made them, so that a conversation may go on at any vendor's
model: a vendor is shown its own. Reasoning that nobody signed has a signature too, for clients give back signed blocks
alone.
"""

from __future__ import annotations

import base64
from typing import Final

from moa.text.v1 import text_pb2

SIGNER: Final = "anthropic"
OMITTED: Final = b"omitted:"
"""Stands before the signature of a thought whose text was left out (`services/providers/anthropic/thinking.py`)."""
_OTHERS: Final = "moa:"
_MOST_NAME: Final = 32


def written(signature: bytes, signer: str, omitted: str = "") -> str:
    """Return what a block shows of a signature, of none too; with the thought itself where its text is left out."""
    if omitted:
        coded = base64.b64encode(omitted.encode()).decode()
        return f"{_OTHERS}{signer}:{base64.b64encode(signature).decode()}:{coded}"
    if signer == SIGNER and signature:
        own = signature.removeprefix(OMITTED)
        try:
            return own.decode("ascii")
        except UnicodeDecodeError:
            return base64.b64encode(own).decode()
    return f"{_OTHERS}{signer}:{base64.b64encode(signature).decode()}"


def part_from(text: str, shown: str, *, redacted: bool = False) -> text_pb2.ReasoningPart:
    """Return a block of an earlier turn: `shown` is its signature, or the data of one that is `redacted`."""
    made = text_pb2.ReasoningPart(text=text)
    if shown.startswith(_OTHERS):
        signer, _, coded = shown.removeprefix(_OTHERS).partition(":")
        coded, _, omitted = coded.partition(":")
        try:
            made.signature = base64.b64decode(coded, validate=True)
            made.text = text or base64.b64decode(omitted, validate=True).decode()
        except ValueError:
            return text_pb2.ReasoningPart(text=text)
        made.signer = signer if signer.isalnum() and len(signer) <= _MOST_NAME else ""
    elif shown:
        own = shown.encode()
        made.signature = own if text or redacted else OMITTED + own
        made.signer = SIGNER
    return made
