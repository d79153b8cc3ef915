"""A conversation, as models of one's own read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moa.text.v1 import text_pb2
from services.common.custom_calls import arguments_of
from services.common.errors import InvalidField, Unsupported
from services.common.foreign import owner_of

_ROLES = {
    text_pb2.ROLE_SYSTEM: "system",
    text_pb2.ROLE_USER: "user",
    text_pb2.ROLE_ASSISTANT: "assistant",
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool that the model made earlier."""

    id: str
    name: str
    arguments: str
    """JSON text, as it came; it may be invalid."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: what was said, which tools were called, or what one of them returned."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    calls: tuple[Call, ...] = ()
    name: str = ""
    """Of the tool, in its turns."""
    call_id: str = ""
    """Of the call that a tool's turn answers."""

    @property
    def chars(self) -> int:
        """Characters of all of it."""
        return len(self.content) + sum(len(call.name) + len(call.arguments) for call in self.calls)


def turns_from(messages: Sequence[text_pb2.Message]) -> tuple[Turn, ...]:
    """Read a conversation. Raises InvalidField for a part where it does not belong, Unsupported for one of no text."""
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if message.role == text_pb2.ROLE_TOOL:
            turns += _results(message, f"{where}.content", names)
            continue
        if message.role not in _ROLES:
            raise InvalidField("a message needs a role", param=f"{where}.role")
        turn = _turn(message, where)
        names |= {call.id: call.name for call in turn.calls}
        turns.append(turn)
    return tuple(turns)


def _turn(message: text_pb2.Message, where: str) -> Turn:
    if not message.parts:
        raise InvalidField("a message needs content", param=f"{where}.content")
    texts, calls = [], []
    for index, part in enumerate(message.parts):
        kind, param = part.WhichOneof("part"), f"{where}.parts[{index}]"
        if kind == "text":
            texts.append(part.text)
        elif kind == "reasoning":
            continue  # a model of one's own is told the answer of an earlier turn, not how it was found
        elif kind is None and part.HasField("vendor"):
            raise Unsupported(f"models of this gateway take no parts of the kinds of {owner_of(part)}", param=param)
        elif kind is None:
            raise InvalidField("a part of a message is empty", param=param)
        elif kind == "tool_call":
            if message.role != text_pb2.ROLE_ASSISTANT:
                raise InvalidField("a tool call belongs in an assistant message", param=param)
            calls.append(Call(part.tool_call.id, part.tool_call.name, arguments_of(part.tool_call) or "{}"))
        elif kind == "tool_result":
            raise InvalidField("a tool result belongs in a tool message", param=param)
        else:
            raise Unsupported(f"this model takes text only, no {kind.replace('_', ' ')}", param=param)
    return Turn(_ROLES[message.role], "".join(texts), tuple(calls))


def _results(message: text_pb2.Message, param: str, names: dict[str, str]) -> list[Turn]:
    if not message.parts:
        raise InvalidField("a message needs content", param=param)
    turns = []
    for part in message.parts:
        if not part.HasField("tool_result"):
            raise InvalidField("a tool message may hold only tool results", param=param)
        result = part.tool_result
        # Templates have no mark for a failed tool, so the result says it.
        content = f"Error: {result.content}" if result.is_error else result.content
        name = result.name or names.get(result.tool_call_id, "")
        turns.append(Turn("tool", content, name=name, call_id=result.tool_call_id))
    return turns
