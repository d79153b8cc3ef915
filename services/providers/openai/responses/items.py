"""Say a conversation as the Responses API's items."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

import msgspec

from moa.common.v1.media_pb2 import FileInput
from moa.text.v1.text_pb2 import Message, Part, Role, ToolCall
from services.catalogue import Model
from services.common.errors import InvalidField
from services.providers.openai.responses.fields import item_of, of_part
from services.providers.openai.text.carried import VENDOR
from services.providers.text import media

Json = dict[str, Any]

_encode: Final = msgspec.json.Encoder().encode
_ROLES: Final = {Role.ROLE_USER: "user", Role.ROLE_ASSISTANT: "assistant", Role.ROLE_TOOL: "tool"}
_BESIDE: Final = frozenset(("phase", "namespace", "caller"))
"""What passes beside a part of the contract's own kinds."""


class Items:
    """The items of a conversation.

    Args:
        system_role: What instructions are called.
        model: Whose row says which tools in items pass.
    """

    def __init__(self, system_role: str, model: Model) -> None:
        self._model = model
        self._roles = {**_ROLES, Role.ROLE_SYSTEM: system_role}
        self._custom: set[str] = set()
        """The ids of calls of custom tools."""
        self.made: list[Json] = []

    def add(self, message: Message, where: str) -> None:
        """Add a turn. Raises InvalidField or Unsupported."""
        contents: list[Json] = []
        for index, part in enumerate(message.parts):
            place = f"{where}.parts[{index}]"
            beside = {name: value for name, value in of_part(part, place).items() if name in _BESIDE}
            if message.role == Role.ROLE_TOOL:
                self.made.append(self._output_from(part, place) | beside)
            elif message.role != Role.ROLE_ASSISTANT and part.WhichOneof("part") is not None:
                contents.append(_content_from(part, message.role, place))
            else:
                self._add_apart(part, place, beside)
        if contents:
            plain = len(contents) == 1 and contents[0].get("type") == "input_text"
            content: Any = contents[0]["text"] if plain else contents
            self.made.append({"role": self._roles[message.role], "content": content})

    def _add_apart(self, part: Part, where: str, beside: Json) -> None:
        """Add what is an item of its own: a piece of the model's turn, or an item of the API's own kinds."""
        kind = part.WhichOneof("part")
        if kind == "text":
            if part.text:
                self.made.append({"role": "assistant", "content": part.text, **beside})
        elif kind == "tool_call":
            self.made.append(self._call_from(part.tool_call) | beside)
        elif kind == "reasoning":
            thought = part.reasoning
            if thought.signer == VENDOR and thought.signature:
                # Without an id: what is sealed tells its own, and another than that is refused.
                summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
                sealed = thought.signature.decode("ascii", "replace")
                self.made.append({"type": "reasoning", "summary": summary, "encrypted_content": sealed})
        elif kind is None:
            self.made.append(item_of(part, self._model, where))
        elif kind == "image" and part.HasField("vendor"):
            # One that the model has made.
            data = b64encode(media.checked(part.image, where)[0]).decode()
            self.made.append(item_of(part, self._model, where) | {"result": data})
        else:
            raise InvalidField(f"{kind} does not belong in this message", param=where)

    def _call_from(self, call: ToolCall) -> Json:
        if call.custom:
            self._custom.add(call.id)
            return {"type": "custom_tool_call", "call_id": call.id, "name": call.name, "input": call.arguments_json}
        arguments = call.arguments_json or "{}"
        return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}

    def _output_from(self, part: Part, where: str) -> Json:
        if not part.HasField("tool_result"):
            raise InvalidField("a tool message may hold only tool results", param=where)
        result = part.tool_result
        # The protocol has no mark for a failed tool, so the result says it.
        output = _encode({"error": result.content}).decode() if result.is_error else result.content
        kind = "custom_tool_call_output" if result.tool_call_id in self._custom else "function_call_output"
        return {"type": kind, "call_id": result.tool_call_id, "output": output}


def _content_from(part: Part, role: Role.ValueType, where: str) -> Json:
    kind = part.WhichOneof("part")
    if kind == "text":
        return {"type": "input_text", "text": part.text}
    if kind == "image" and role == Role.ROLE_USER:
        uri = media.data_uri(*media.checked(part.image, f"{where}.image"))
        detail = of_part(part, where).get("detail") or "auto"
        return {"type": "input_image", "image_url": uri, "detail": detail}
    if kind == "file" and role == Role.ROLE_USER:
        return _file_from(part.file)
    raise InvalidField(f"{kind or 'an empty part'} does not belong in this message", param=where)


def _file_from(file: FileInput) -> Json:
    if not file.HasField("data"):
        return {"type": "input_file", "file_url": file.url}
    kind, _, form = file.mime_type.partition("/")
    data = b64encode(file.data).decode()
    if kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
    uri = f"data:{file.mime_type};base64,{data}"
    return {"type": "input_file", "file_data": uri, "filename": file.name or f"file.{form}"}
