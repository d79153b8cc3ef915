"""The tools that a body offers, and which of them the model must call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import vendor_fields
from services.common.errors import InvalidField
from services.router.dialects.reply import encode
from services.router.dialects.responses import bodies, spaces
from services.router.dialects.responses.items import VENDOR, Json, below, kind_of
from services.router.dialects.tools import SYNTAXES
from services.router.dialects.unknown import Read, convert_liberally

_CHOICES: Final = {
    "none": text_pb2.ToolChoice.MODE_NONE,
    "auto": text_pb2.ToolChoice.MODE_AUTO,
    "required": text_pb2.ToolChoice.MODE_REQUIRED,
}


class Offered:
    """The tools of a body.

    Args:
        given: Each as it came.

    Raises InvalidField.
    """

    def __init__(self, given: Sequence[Json]) -> None:
        self.tools: list[text_pb2.Tool] = []
        self.names: list[str] = []
        """Paths of fields that nobody here knows."""
        self._kinds: list[str] = []
        self.spaces: dict[str, tuple[str, str]] = {}
        """The namespace and the name of each function that is offered by one name for both."""
        self.has_pictures = False
        """Whether the tool that makes images is among them."""
        self._joins = not spaces.are_known(given)
        for index, each in enumerate(given):
            self._add(each, f"tools[{index}]")

    def _add_space(self, given: Json, where: str) -> None:
        space, inner = given.get("name"), given.get("tools")
        if not isinstance(space, str) or not isinstance(inner, list) or not all(isinstance(t, dict) for t in inner):
            raise InvalidField(f"{where}: a namespace needs a name and tools", param=where)
        for index, each in enumerate(inner):
            count = len(self.tools)
            self._add(each, f"{where}.tools[{index}]")
            if len(self.tools) > count and (made := self.tools[-1]).name:
                name = spaces.joined(space, made.name)
                self.spaces[name] = (space, made.name)
                made.name = name

    def _add(self, given: Json, where: str) -> None:
        if given.get("type") is None:
            raise InvalidField(f"{where}.type is required", param=f"{where}.type")
        kind = kind_of(given, where)
        if kind == "namespace" and self._joins:
            self._add_space(given, where)
            return
        model = bodies.TOOLS.get(kind)
        self._kinds.append(kind)
        self.has_pictures = self.has_pictures or kind == "image_generation"
        if model is None:
            self.tools.append(text_pb2.Tool(vendor=vendor_fields.envelope(VENDOR, {"tool": given}, [kind])))
            return
        try:
            read: Read[bodies.Tool] = convert_liberally(given, model)
        except InvalidField as error:
            raise below(error, where) from None
        self.names += [f"tools[].{name}" for name in read.names]
        made = _tool_from(read.body)
        if read.extra:
            made.vendor.CopyFrom(vendor_fields.envelope(VENDOR, read.extra))
        self.tools.append(made)

    def put(self, request: GenerateTextRequest, choice: str | bodies.ToolChoice | None, parallel: bool | None) -> Any:
        """Put the tools and the choice into a request; return a choice that only OpenAI knows, None for others.

        Raises InvalidField.
        """
        if not self.tools:
            if choice not in (None, "auto", "none"):
                raise InvalidField("tool_choice: there are no tools to choose from; send tools", param="tool_choice")
            return None  # A choice among none is none.
        own = None
        kept = self.tools
        if isinstance(choice, str):
            request.tool_choice.mode = _CHOICES[choice]
        elif choice is not None and choice.type == "allowed_tools":
            kept = self._allowed(choice)
            request.tool_choice.mode = _CHOICES[choice.mode]
        elif choice is not None and choice.type in bodies.TOOLS:
            if not choice.name:
                raise InvalidField("tool_choice.name is required", param="tool_choice.name")
            request.tool_choice.mode = text_pb2.ToolChoice.MODE_NAMED
            request.tool_choice.name = choice.name
        elif choice is not None:
            given = (("type", choice.type), ("server_label", choice.server_label), ("name", choice.name))
            own = {name: value for name, value in given if value is not None}
            if choice.type not in self._kinds:
                raise InvalidField("tool_choice.type: name one of the request's tools", param="tool_choice.type")
        request.tools.extend(kept)
        if parallel is not None:
            request.tool_choice.parallel = parallel
        return own

    def _allowed(self, choice: bodies.ToolChoice) -> list[text_pb2.Tool]:
        """Return the tools that may be called; the model is offered no other."""
        named = {tool.get("name") for tool in choice.tools or ()} - {None}
        kinds = {tool.get("type") for tool in choice.tools or () if tool.get("name") is None}
        pairs = list(zip(self._kinds, self.tools, strict=True))
        kept = [tool for kind, tool in pairs if (tool.name in named if tool.name else kind in kinds)]
        unknown = (named | kinds) - {tool.name for tool in self.tools} - set(self._kinds)
        if unknown or not kept:
            raise InvalidField("tool_choice.tools: name some of the request's tools", param="tool_choice.tools")
        return kept


def _tool_from(tool: bodies.Tool) -> text_pb2.Tool:
    if isinstance(tool, bodies.FunctionTool):
        return text_pb2.Tool(
            name=tool.name,
            description=tool.description or "",
            parameters_json=encode(tool.parameters).decode() if tool.parameters else "",
            strict=tool.strict,
        )
    made = text_pb2.Tool(name=tool.name, description=tool.description or "", custom=text_pb2.CustomInput())
    if isinstance(tool.format, bodies.GrammarText):
        made.custom.grammar.syntax = SYNTAXES[tool.format.syntax]
        made.custom.grammar.definition = tool.format.definition
    return made
