"""Tools as OpenAI writes them, which the native API writes too."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from moa.text.v1 import text_pb2
from services.common.errors import InvalidField
from services.router.dialects.reply import encode


class FunctionCall(Struct):
    """A call's name and arguments."""

    name: str
    arguments: str | dict[str, Any] | None = None
    """JSON; some clients send the object itself, or nothing for none."""


class CustomCall(Struct):
    """A call's name and free text."""

    name: str
    input: str = ""


class ToolCall(Struct):
    """A call that the model made earlier: of a function, or of a custom tool."""

    id: str
    function: FunctionCall | None = None
    custom: CustomCall | None = None
    type: Literal["function", "custom"] = "function"
    extra_content: Any = None
    """Where Google's own OpenAI-compatible API puts a call's thought signature."""


Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Function(Struct, forbid_unknown_fields=True, kw_only=True):
    """A function that the model may call."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """A function."""

    function: Function


class Grammar(Struct, forbid_unknown_fields=True):
    """A grammar, and what it is written in."""

    syntax: Literal["lark", "regex"]
    definition: str


class TextFormat(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """Any text."""


class GrammarFormat(Struct, tag_field="type", tag="grammar", forbid_unknown_fields=True):
    """Text that follows a grammar."""

    grammar: Grammar


class Custom(Struct, forbid_unknown_fields=True, kw_only=True):
    """A tool that takes free text."""

    name: Name
    description: str | None = None
    format: TextFormat | GrammarFormat | None = None


class CustomTool(Struct, tag_field="type", tag="custom", forbid_unknown_fields=True):
    """A custom tool."""

    custom: Custom


SYNTAXES: Final = {"lark": text_pb2.Grammar.SYNTAX_LARK, "regex": text_pb2.Grammar.SYNTAX_REGEX}


def put_tool(made: text_pb2.Tool, tool: FunctionTool | CustomTool) -> None:
    """Write a tool as the contract has it."""
    given = tool.custom if isinstance(tool, CustomTool) else tool.function
    # Field by field: arguments, and a copy of what is made of them, take twice the time.
    made.name = given.name
    if given.description:
        made.description = given.description
    if isinstance(given, Custom):
        made.custom.SetInParent()
        if isinstance(given.format, GrammarFormat):
            grammar = given.format.grammar
            made.custom.grammar.syntax = SYNTAXES[grammar.syntax]
            made.custom.grammar.definition = grammar.definition
        return
    if given.parameters:
        made.parameters_json = encode(given.parameters).decode()
    if given.strict is not None:
        made.strict = given.strict


GOOGLE: Final = "google"
_MARK: Final = "__thought__"
"""Parts a call's id from the thought signature behind it, for clients that keep nothing else of a call."""
_PROOF_MARK: Final = "__reasoning__"
"""Parts a call's id from the signature of the reasoning before it, for clients that keep that as text alone."""
_DIGEST_BYTES: Final = 12


def call_from(call: ToolCall, where: str) -> text_pb2.ToolCall:
    """Return an earlier call as the contract has it, with its signature from wherever the client has kept it.

    Raises InvalidField for one that does not say what was called.
    """
    call_id, in_id = split_id(call.id)
    signature = _signature_in(call.extra_content) or in_id
    if call.type == "custom" and call.custom is not None:
        made = text_pb2.ToolCall(id=call_id, name=call.custom.name, arguments_json=call.custom.input, custom=True)
    elif call.type == "function" and call.function is not None:
        given = call.function.arguments
        arguments = given or "" if not isinstance(given, dict) else encode(given).decode()
        made = text_pb2.ToolCall(id=call_id, name=call.function.name, arguments_json=arguments)
    else:
        raise InvalidField(f"{where}.{call.type} is required", param=f"{where}.{call.type}")
    if signature:
        made.signature = signature
        made.signer = GOOGLE
    return made


def split_id(call_id: str) -> tuple[str, bytes]:
    """Return the id of a call, and the signature that was put behind it; empty where there is none."""
    own, _, coded = call_id.partition(_PROOF_MARK)[0].partition(_MARK)
    return own, _decoded(coded)


def signed_id(call_id: str, signature: bytes) -> str:
    """Return a call's id with its signature behind it."""
    return f"{call_id}{_MARK}{_coded(signature)}"


def proved_id(call_id: str, signature: bytes, text: str) -> str:
    """Return a call's id with the signature of the reasoning before it, and a digest of what the signature proves."""
    return f"{call_id}{_PROOF_MARK}{_coded(_digest(text) + signature)}"


def proof_in(call_ids: Sequence[str], text: str) -> bytes:
    """Return the signature that proves `text`; empty where no id has one, or the text is no longer what it was."""
    for call_id in call_ids:
        proof = _decoded(call_id.partition(_PROOF_MARK)[2])
        if proof:
            return proof[_DIGEST_BYTES:] if proof[:_DIGEST_BYTES] == _digest(text) else b""
    return b""


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_DIGEST_BYTES]


def _coded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _decoded(coded: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4))
    except ValueError:
        return b""


def extra_content(signature: bytes) -> dict[str, Any]:
    """Return a call's signature as Google's own OpenAI-compatible API tells it."""
    return {GOOGLE: {"thought_signature": base64.b64encode(signature).decode()}}


def _signature_in(extra: Any) -> bytes:
    result = extra.get(GOOGLE) if isinstance(extra, dict) else None
    coded = result.get("thought_signature") if isinstance(result, dict) else None
    if not isinstance(coded, str):
        return b""
    try:
        return base64.b64decode(coded)
    except ValueError:
        return b""


class Calls:
    """Gathers the pieces of an answer's calls."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, Any]] = {}
        self._signatures: dict[int, bytes] = {}
        self._fields: dict[int, dict[str, Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(self, piece: text_pb2.ToolCallDelta, call_id: str | None = None) -> None:
        """Take a piece in, under another id where one is given."""
        kind, words = ("custom", "input") if piece.custom else ("function", "arguments")
        call = self._calls.setdefault(piece.call_index, {"id": "", "type": kind, kind: {"name": "", words: ""}})
        call["id"] += piece.id if call_id is None else call_id
        call[kind]["name"] += piece.name
        call[kind][words] += piece.arguments_json
        if piece.signature and piece.signer == GOOGLE:
            self._signatures[piece.call_index] = self._signatures.get(piece.call_index, b"") + piece.signature

    def take_fields(self, index: int, fields: dict[str, Any]) -> None:
        """Take in what a vendor says of a call beside that."""
        self._fields[index] = self._fields.get(index, {}) | fields

    def whole(self) -> list[dict[str, Any]]:
        """Return the calls, in order."""
        return [{**self._fields.get(index, {}), **self._signed(index)} for index in sorted(self._calls)]

    def _signed(self, index: int) -> dict[str, Any]:
        call, signature = self._calls[index], self._signatures.get(index)
        if signature is None:
            return call
        return {**call, "id": signed_id(call["id"], signature), "extra_content": extra_content(signature)}
