"""A Gemini that reads what it is asked: it calls functions, tells their results, keeps to schemas, repeats prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tests.emulators.gemini import GeminiEmulator
from tests.emulators.script import Call, Counts, Script

Json = dict[str, Any]

_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_NAME: Final = re.compile(r"(?<=[a-z,] )[A-Z][A-Za-z]+(?: [A-Z][a-z]+)*")
_FEW: Final = ("2", "3", "4", "5", "6", "7", "8", "9")
_DEEPEST: Final = 12


class AttentiveGemini(GeminiEmulator):
    """Gemini, as strict as the tests' emulator."""

    def next_script(self) -> Script:
        """Return an answer to the last request."""
        return answer(self.seen[-1].body)


def answer(body: Json) -> Script:
    """Return what a model might answer to a request."""
    config = body.get("generationConfig") or {}
    last = body["contents"][-1]["parts"]
    results = [part["functionResponse"]["response"] for part in last if "functionResponse" in part]
    prompt = " ".join(part["text"] for content in body["contents"] for part in content["parts"] if part.get("text"))
    forced = ((body.get("toolConfig") or {}).get("functionCallingConfig") or {}).get("mode") == "ANY"
    if (forced or not results) and (calls := list(_calls(body, " ".join(part.get("text", "") for part in last)))):
        return Script(reasoning=_thought(config), text=(), calls=tuple(calls))
    if config.get("responseMimeType") == "text/x.enum":
        text = config["responseSchema"]["enum"][0]
    elif config.get("responseMimeType") == "application/json":
        schema = config.get("responseJsonSchema") or {"properties": {"said": {"type": "string"}}}
        text = json.dumps(document(schema, schema, _Said(prompt, all_told=True)))
    elif results:
        text = f"You say: {prompt} They say: {json.dumps(results, ensure_ascii=False)}"
    else:
        text = f"You say: {prompt}"
    thought = _thought(config)
    thinks = bool(thought or (config.get("thinkingConfig") or {}).get("thinkingBudget"))
    size = len(text) // 4 + 1
    return Script(
        reasoning=thought,
        text=tuple(text[at : at + size] for at in range(0, len(text), size)),
        counts=Counts(completion=9, reasoning=4) if thinks else Counts(),
    )


def _thought(config: Json) -> tuple[str, ...]:
    return ("I think.",) if (config.get("thinkingConfig") or {}).get("includeThoughts") else ()


def _calls(body: Json, prompt: str) -> Iterator[Call]:
    """Yield calls of the functions whose arguments a prompt holds."""
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    if calling.get("mode") == "NONE":
        return
    allowed = calling.get("allowedFunctionNames")
    functions = [each for tool in body.get("tools") or () for each in tool.get("functionDeclarations") or ()]
    for function in functions:
        if allowed and function["name"] not in allowed:
            continue
        schema = function.get("parametersJsonSchema") or {}
        try:
            arguments = document(schema, schema, _Said(prompt, all_told=calling.get("mode") == "ANY")) if schema else {}
        except StopIteration:
            continue
        yield Call("", function["name"], (json.dumps(arguments),))


class _Said:
    """The numbers and names of a prompt, in order. `all_told`: whether there is no end of them."""

    def __init__(self, prompt: str, *, all_told: bool) -> None:
        names, numbers = _NAME.findall(prompt), _NUMBER.findall(prompt)
        self._prompt = prompt
        self._names = _going_on(names)
        self._numbers = iter(numbers)
        self._all_told = all_told
        self.count = next((int(each) for each in numbers if each in _FEW), len(names) if len(names) < 9 else 1) or 1
        """How many items lists have."""

    def number(self) -> float:
        """Return the next number. Raises StopIteration."""
        return float(next(self._numbers, "1") if self._all_told else next(self._numbers))

    def name(self) -> str:
        """Return the next name. Raises StopIteration."""
        return self._prompt if self._all_told else next(self._names)


def _going_on(names: list[str]) -> Iterator[str]:
    yield from names
    while names:
        yield names[-1]


def document(schema: Json, root: Json, said: _Said, depth: int = 0) -> Any:
    """Return a document of a schema: all its fields, one item of each list, of alternatives the first."""
    if "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        schema = target
    for name in ("anyOf", "oneOf"):
        if schema.get(name):
            return document(schema[name][0], root, said, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object" or "properties" in schema:
        fields = schema.get("properties", {}) if depth < _DEEPEST else {}
        return {name: document(inner, root, said, depth + 1) for name, inner in fields.items()}
    if kind == "array":
        count = max(schema.get("minItems", 0), said.count)
        items = schema.get("prefixItems") or [schema.get("items") or {"type": "string"}] * count
        return [document(inner, root, said, depth + 1) for inner in items]
    if kind in ("integer", "number"):
        value = said.number()
        return int(value) if kind == "integer" or value.is_integer() else value
    if kind in ("boolean", "null"):
        return True if kind == "boolean" else None
    if schema.get("format") == "date-time":
        return "2026-01-02T03:04:05Z"
    return said.name()
