"""What a body says of what is stored: what it goes on from, and whether its answer is to be stored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from services.common.errors import InvalidField, Malformed, MoaError, NotFound
from services.common.helper_process import Data
from services.router.dialects.body import leniently
from services.router.dialects.reply import encode

Json = dict[str, Any]

_REFERENCE: Final = "item_reference"
_OF_RESPONSE: Final = re.compile(r"[a-z]+_([0-9a-f]{32})(?:_[0-9]+)?_(?:in)?[0-9]+")
"""The id of an item of a stored response."""
MOST_STORED_BYTES: Final = 8 * 1024 * 1024
"""The largest body whose answer is stored."""
_WORDS: Final = (b"previous_response_id", b"conversation", b"background", b"store")
"""Without one of these a body says nothing of what is stored."""


class Wish(Struct, frozen=True):
    """What is wished."""

    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    store: bool | None = None

    @property
    def conversation_id(self) -> str:
        """The conversation that is named; empty: none. Raises InvalidField."""
        given = self.conversation
        if given is None:
            return ""
        if isinstance(given, dict):
            given = given.get("id")
        if not isinstance(given, str) or not given:
            raise InvalidField("conversation: expected an id, or an object with one", param="conversation")
        if self.previous_response_id:
            raise InvalidField("previous_response_id and conversation: name one of them", param="previous_response_id")
        return given

    @property
    def needs_storing(self) -> str:
        """The field that can be had only where responses are stored; empty: none is given."""
        for name in ("previous_response_id", "conversation", "background"):
            if getattr(self, name):
                return name
        return ""


_PLAIN: Final = Wish()
_WISH: Final = msgspec.json.Decoder(Wish)
_RAW: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS: Final = msgspec.json.Decoder(list[Json])
_RAW_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def strictly(data: Data) -> bytes | None:
    """Return a body as JSON by its letter, where it is JSON only as bodies are taken here: with raw control characters.

    None: it is JSON already, or nobody can read it, and whoever reads it whole tells why. Raises Malformed for NaN.
    """
    try:
        _RAW.decode(data)
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return None
    except msgspec.DecodeError:
        pass
    else:
        return None
    try:
        value = leniently(bytes(data))
    except MoaError:
        return None
    try:
        return json.dumps(value, allow_nan=False).encode()
    except ValueError:
        raise Malformed("the body holds NaN or Infinity, which JSON has not; send a number, or leave it out") from None


def wished(data: Data) -> Wish:
    """Return what a body says. One that cannot be read says nothing: whoever reads it whole tells why."""
    given = bytes(data)
    if not any(word in given for word in _WORDS):
        return _PLAIN
    try:
        return _WISH.decode(given)
    except _UNREADABLE:
        return _PLAIN


def input_in(data: Data) -> bytes:
    """Return a body's input as it stands there; empty where it cannot be read."""
    try:
        return bytes(_RAW.decode(data).get("input", msgspec.Raw(b"")))
    except _UNREADABLE:
        return b""


def referred(given: bytes) -> list[str]:
    """Return the ids of the items that an input names in the place of the items themselves."""
    if _REFERENCE.encode() not in given:
        return []
    try:
        items = _ITEMS.decode(given)
    except _UNREADABLE:
        return []
    return [item["id"] for item in items if _is_reference(item)]


def responses_of(item_ids: Iterable[str]) -> list[str]:
    """Return the responses that items are of, by the items' ids, each once."""
    found = (_OF_RESPONSE.fullmatch(item_id) for item_id in item_ids)
    return list(dict.fromkeys(f"resp_{each[1]}" for each in found if each is not None))


def with_items(given: bytes, items: Mapping[str, bytes]) -> bytes:
    """Return an input with items in the place of their ids. Raises NotFound for one that is not there."""
    made: list[Any] = []
    for number, item in enumerate(_ITEMS.decode(given)):
        if not _is_reference(item):
            made.append(item)
            continue
        if item["id"] not in items:
            raise NotFound(
                f"input[{number}]: there is no item {item['id'][:80]!r} of this account; send the item itself",
                param=f"input[{number}].id",
            )
        made.append(msgspec.Raw(items[item["id"]]))
    return encode(made)


def _is_reference(item: Json) -> bool:
    return item.get("type") == _REFERENCE and isinstance(item.get("id"), str)


def merged(data: Data, earlier: Sequence[bytes], given: bytes | None = None) -> bytes:
    """Return a body with items before those of its input, or of what is `given` in its place.

    Raises InvalidField for an input that is none.
    """
    fields = _RAW.decode(data)
    if given is None:
        given = bytes(fields.get("input", msgspec.Raw(b"[]")))
    given = given.strip()
    if given.startswith(b'"'):
        text = msgspec.json.decode(given)
        own = [encode({"type": "message", "role": "user", "content": text})] if text else []
    else:
        try:
            own = [bytes(each) for each in _RAW_ITEMS.decode(given)]
        except msgspec.DecodeError:
            raise InvalidField("input: expected a string or a list", param="input") from None
    fields["input"] = msgspec.Raw(b"[" + b",".join((*earlier, *own)) + b"]")
    return encode(fields)


def as_stored(given: bytes, name: Callable[[Json, int], str]) -> list[bytes]:
    """Return the items of an input as they are stored: each an object of its type, with an id.

    Args:
        given: The input, as it stood in its body.
        name: Makes the id of an item that has none, of it and its place.
    """
    if not given.strip():
        return []
    if given.lstrip().startswith(b'"'):
        text = msgspec.json.decode(given)
        items: list[Json] = [{"type": "message", "role": "user", "content": text}] if text else []
    else:
        items = _ITEMS.decode(given)
    return [encode(_shown(item, name(item, number))) for number, item in enumerate(items)]


_PREFIXES: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}


def prefix_of(item: Json) -> str:
    """Return how the id of an item begins, by its type."""
    kind = item.get("type", "message")
    return _PREFIXES.get(kind, "item") if isinstance(kind, str) else "item"


def _shown(item: Json, item_id: str) -> Json:
    made = {"type": "message", **item} if "role" in item else dict(item)
    content = made.get("content")
    if made.get("type") == "message" and isinstance(content, str):
        is_own = made.get("role") == "assistant"
        part: Json = (
            {"type": "output_text", "text": content, "annotations": []}
            if is_own
            else {
                "type": "input_text",
                "text": content,
            }
        )
        made["content"] = [part]
    if not isinstance(made.get("id"), str) or not made["id"]:
        made["id"] = item_id
    if made.get("type") in ("message", "function_call", "function_call_output"):
        made.setdefault("status", "completed")
    return made
