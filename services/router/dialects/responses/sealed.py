"""`encrypted_content`: what a vendor gave with its model's reasoning, for any vendor.

OpenAI's own passes to the letter. Of others it holds the text too: a signature proves it, and clients of this API keep
what is sealed more faithfully than what is shown.
"""

from __future__ import annotations

import base64
from typing import Final

import msgspec

from moa.text.v1 import text_pb2

OPENAI: Final = "openai"
_MARK: Final = "moa1."
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[str, str, bytes]).decode


def sealed(text: str, signature: bytes, signer: str) -> str:
    """Return what a reasoning item is given back with."""
    if signer == OPENAI:
        return signature.decode("ascii", "replace")
    return _MARK + base64.urlsafe_b64encode(_encode((signer, text, signature))).decode()


def opened(content: str, shown: str) -> text_pb2.ReasoningPart:
    """Return the reasoning that an item's sealed content holds, `shown` being the text beside it.

    What cannot be read proves nothing: the text alone is left.
    """
    if not content.startswith(_MARK):
        return text_pb2.ReasoningPart(text=shown, signature=content.encode(), signer=OPENAI if content else "")
    try:
        signer, text, signature = _decode(base64.urlsafe_b64decode(content.removeprefix(_MARK)))
    except (ValueError, msgspec.MsgspecError):
        return text_pb2.ReasoningPart(text=shown)
    return text_pb2.ReasoningPart(text=text, signature=signature, signer=signer)
