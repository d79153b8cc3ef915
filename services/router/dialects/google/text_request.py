"""From Google's body to the text contract's request."""

from __future__ import annotations

import re
from collections import deque
from itertools import groupby
from typing import Any

from moa.common.v1 import media_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import InvalidField, Unsupported
from services.router.dialects.google import bodies, carried, signatures
from services.router.dialects.google.schema import to_json_schema
from services.router.dialects.media import file_from_base64, file_from_url, image_from_base64, image_from_url
from services.router.dialects.reply import encode
from services.router.dialects.results import of_result
from services.router.dialects.sampling import fill
from services.router.dialects.unknown import Extra, at

_FILES = ("application/", "audio/", "text/", "video/")
_VIDEO_PAGE = re.compile(r"https://(www\.)?(youtube\.com|youtu\.be)/", re.IGNORECASE)
"""Pages of videos, which Google looks at without a media type."""

_MODES = {
    "MODE_UNSPECIFIED": text_pb2.ToolChoice.MODE_AUTO,
    "AUTO": text_pb2.ToolChoice.MODE_AUTO,
    # AUTO that keeps to the schemas: Google is told by what it carries.
    "VALIDATED": text_pb2.ToolChoice.MODE_UNSPECIFIED,
    "ANY": text_pb2.ToolChoice.MODE_REQUIRED,
    "NONE": text_pb2.ToolChoice.MODE_NONE,
}

_LEVELS = {
    "MINIMAL": text_pb2.ReasoningOptions.EFFORT_MINIMAL,
    "LOW": text_pb2.ReasoningOptions.EFFORT_LOW,
    "MEDIUM": text_pb2.ReasoningOptions.EFFORT_MEDIUM,
    "HIGH": text_pb2.ReasoningOptions.EFFORT_HIGH,
}


def request_from(
    body: bodies.GenerateContentBody,
    model: str,
    *,
    stream: bool,
    strict: bool = False,
    extra: Extra | None = None,
    names: list[str] | None = None,
) -> text_service_pb2.GenerateTextRequest:
    """Return the request; `extra` and `names` are the fields of the body that nobody here knows.

    Raises InvalidField, Unsupported, UnsupportedMedia or TooLarge.
    """
    request = text_service_pb2.GenerateTextRequest(model=model, stream=stream, strict=strict)
    extra = extra or {}
    request.messages.extend(messages_from(body.contents, body.system_instruction, at(extra, "contents")))
    request.tools.extend(tools_from(body.tools, at(extra, "tools")))
    _set_choice(request, body.tool_config)
    _set_config(request, body.generation_config or bodies.GenerationConfig())
    carried.put(request, body, extra, names or [])
    return request


def messages_from(
    contents: list[bodies.Content], system: bodies.Content | None, extra: Extra | None = None
) -> list[text_pb2.Message]:
    """Return the conversation. Calls without an id get one, and their results find it by the function's name.

    Contents of the model that follow each other are one turn: Google's clients keep each piece of a stream as one.
    """
    results: list[text_pb2.Message] = []
    if system is not None and system.parts:
        parts = [_system_part(part, index) for index, part in enumerate(system.parts)]
        results.append(text_pb2.Message(role=text_pb2.ROLE_SYSTEM, parts=parts))
    turns = _Turns()
    for index, content in enumerate(contents):
        more = turns.of(content, f"contents[{index}]", at(extra or {}, index, "parts"))
        if results and results[-1].role == more[0].role == text_pb2.ROLE_ASSISTANT:
            results[-1].parts.extend(more.pop(0).parts)
        results.extend(more)
    return results


def _system_part(part: bodies.Part, index: int) -> text_pb2.Part:
    if part.text is None:
        where = f"systemInstruction.parts[{index}]"
        raise Unsupported(f"{where}: only text is taken", param=where)
    return text_pb2.Part(text=part.text)


class _Turns:
    """Turns contents to messages, in order, and remembers which calls wait for a result."""

    def __init__(self) -> None:
        self._calls = 0
        self._waiting: dict[str, deque[str]] = {}

    def of(self, content: bodies.Content, where: str, extra: Extra) -> list[text_pb2.Message]:
        """Return a content's messages: results of functions stand in messages of their own."""
        if not content.parts:
            raise InvalidField(f"{where}.parts must not be empty", param=f"{where}.parts")
        if content.role == "model":
            role = text_pb2.ROLE_ASSISTANT
        elif content.role == "system":
            role = text_pb2.ROLE_SYSTEM
        else:
            role = text_pb2.ROLE_USER
        results: list[text_pb2.Message] = []
        numbered = enumerate(content.parts)
        for is_result, group in groupby(numbered, key=lambda pair: pair[1].function_response is not None):
            message = text_pb2.Message(role=text_pb2.ROLE_TOOL if is_result else role)
            shown = text_pb2.Message(role=text_pb2.ROLE_USER)
            for index, part in group:
                self._add(message, part, f"{where}.parts[{index}]", at(extra, index))
                if part.function_response is not None and part.function_response.parts:
                    call = message.parts[-1].tool_result.tool_call_id
                    _show(shown, part.function_response.parts, call, f"{where}.parts[{index}].functionResponse.parts")
            results.append(message)
            if shown.parts:
                results.append(shown)
        return results

    def _add(self, message: text_pb2.Message, part: bodies.Part, where: str, extra: Extra) -> None:
        self._add_typed(message, part, where, extra)
        carried.put_part(message.parts[-1], part, extra)

    def _add_typed(self, message: text_pb2.Message, part: bodies.Part, where: str, extra: Extra) -> None:
        kinds = [
            name
            for name in ("text", "inline_data", "file_data", "function_call", "function_response")
            if getattr(part, name) is not None
        ]
        if len(kinds) > 1:
            raise InvalidField(f"{where} holds more than one kind of data", param=where)
        signature, signer = _signature(part, where)
        if part.text is not None:
            if part.thought:
                message.parts.add().reasoning.CopyFrom(
                    text_pb2.ReasoningPart(text=part.text, signature=signature, signer=signer)
                )
                return
            if part.text or not signature:
                message.parts.add(text=part.text)
            else:
                message.parts.add(reasoning=text_pb2.ReasoningPart(signature=signature, signer=signer))
        elif part.inline_data is not None:
            _add_inline(message, part.inline_data, f"{where}.inlineData.data")
        elif part.file_data is not None:
            _add_linked(message, part.file_data, where)
        elif part.function_call is not None:
            message.parts.add().tool_call.CopyFrom(self._call(part.function_call, signature, signer))
        elif part.function_response is not None:
            message.parts.add().tool_result.CopyFrom(self._result(part.function_response, where))
        elif carried.is_own(part, extra):
            message.parts.add()
        elif signature or part.thought:
            # Clients that drop a signature leave a thought of no text.
            message.parts.add().reasoning.CopyFrom(text_pb2.ReasoningPart(signature=signature, signer=signer))
        else:
            raise Unsupported(f"{where}: only text, images, function calls and their results are taken", param=where)

    def _call(self, call: bodies.FunctionCall, signature: bytes, signer: str) -> text_pb2.ToolCall:
        self._calls += 1
        call_id = call.id or f"call_{self._calls}"
        self._waiting.setdefault(call.name, deque()).append(call_id)
        return text_pb2.ToolCall(
            id=call_id,
            name=call.name,
            arguments_json=encode(call.args or {}).decode(),
            signature=signature,
            signer=signer,
        )

    def _result(self, result: bodies.FunctionResponse, where: str) -> text_pb2.ToolResult:
        waiting = self._waiting.get(result.name)
        if result.id:
            call_id = result.id
            if waiting and call_id in waiting:
                waiting.remove(call_id)
        elif waiting:
            call_id = waiting.popleft()
        else:
            raise InvalidField(
                f"{where}.functionResponse answers no call of {result.name}", param=f"{where}.functionResponse"
            )
        given = result.response or {}
        # `{"error": …}` is how Google's clients tell that a function failed.
        failed = set(given) == {"error"}
        shown = given["error"] if failed else given
        return text_pb2.ToolResult(
            tool_call_id=call_id,
            name=result.name,
            content=shown if isinstance(shown, str) else encode(shown).decode(),
            is_error=failed,
        )


def _signature(part: bodies.Part, where: str) -> tuple[bytes, str]:
    if not part.thought_signature:
        return b"", ""
    try:
        return signatures.read(part.thought_signature)
    except ValueError:
        param = f"{where}.thoughtSignature"
        raise InvalidField(f"{param}: not valid base64", param=param) from None


def _is_image(mime_type: str) -> bool:
    """Return whether a declared type may be an image's, whose content decides."""
    return not mime_type.startswith(_FILES) or mime_type == "application/octet-stream"


def _show(message: text_pb2.Message, parts: list[bodies.ResultPart], call: str, where: str) -> None:
    """Add to a turn what a function's result holds beside its JSON."""
    message.parts.add(text=of_result(call))
    for number, part in enumerate(parts):
        if part.inline_data is not None:
            _add_inline(message, part.inline_data, f"{where}[{number}].inlineData.data")
        elif part.file_data is not None:
            _add_linked(message, part.file_data, f"{where}[{number}]")
        else:
            raise InvalidField(f"{where}[{number}] is empty", param=f"{where}[{number}]")


def _add_inline(message: text_pb2.Message, blob: bodies.Blob, param: str) -> None:
    """Add an image, or a file of another kind."""
    if _is_image(blob.mime_type):
        message.parts.add().image.CopyFrom(image_from_base64(blob.data, param=param))
    else:
        file = file_from_base64(blob.data, blob.mime_type, param=param, name=blob.display_name)
        message.parts.add().file.CopyFrom(file)


def _add_linked(message: text_pb2.Message, file: bodies.FileData, where: str) -> None:
    """Add the image that a link means, or a file of another kind, which its provider fetches."""
    if _is_image(file.mime_type) and not _VIDEO_PAGE.match(file.file_uri):
        message.parts.add().image.CopyFrom(file_image(file, where))
    else:
        found = file_from_url(file.file_uri, file.mime_type, param=f"{where}.fileData.fileUri")
        message.parts.add().file.CopyFrom(found)


def file_image(file: bodies.FileData, where: str) -> media_pb2.ImageInput:
    """Return the image that a file's URI means."""
    return image_from_url(file.file_uri, param=f"{where}.fileData.fileUri")


def tools_from(tools: list[bodies.Tool] | None, extra: Extra | None = None) -> list[text_pb2.Tool]:
    """Return the functions, and the tools that run at Google."""
    results = []
    for index, tool in enumerate(tools or ()):
        beside = at(extra or {}, index)
        for number, function in enumerate(tool.function_declarations or ()):
            schema: Any = function.parameters_json_schema
            if schema is None and function.parameters is not None:
                schema = to_json_schema(function.parameters)
            results.append(
                text_pb2.Tool(
                    name=function.name,
                    description=function.description or "",
                    parameters_json=encode(schema).decode() if schema else "",
                )
            )
            carried.put_function(results[-1], function, at(beside, "functionDeclarations", number))
        results.extend(carried.own_tools(tool, beside))
    return results


def _set_choice(request: text_service_pb2.GenerateTextRequest, config: bodies.ToolConfig | None) -> None:
    calling = config.function_calling_config if config else None
    if calling is None:
        return
    if calling.mode is not None:
        request.tool_choice.mode = _MODES[calling.mode]
    allowed = calling.allowed_function_names
    if not allowed:
        return
    unknown = set(allowed) - {tool.name for tool in request.tools}
    if unknown:
        param = "toolConfig.functionCallingConfig.allowedFunctionNames"
        raise InvalidField(f"{param}: no function {min(unknown)}", param=param)
    if len(allowed) == 1 and calling.mode == "ANY":
        request.tool_choice.mode = text_pb2.ToolChoice.MODE_NAMED
        request.tool_choice.name = allowed[0]
        return
    kept = [tool for tool in request.tools if tool.name in allowed]
    del request.tools[:]
    request.tools.extend(kept)


def _set_config(request: text_service_pb2.GenerateTextRequest, config: bodies.GenerationConfig) -> None:
    if config.response_modalities and set(config.response_modalities) != {"TEXT"}:
        raise Unsupported("this model answers with text only", param="generationConfig.responseModalities")
    for name in ("speech_config", "image_config"):
        if getattr(config, name) is not None:
            param = "generationConfig." + ("speechConfig" if name == "speech_config" else "imageConfig")
            raise Unsupported(f"{param}: this model answers with text only", param=param)
    if config.max_output_tokens is not None:
        request.max_tokens = config.max_output_tokens
    request.candidates = config.candidate_count or 1
    request.stop.extend(config.stop_sequences or ())
    _set_sampling(request.sampling, config)
    _set_format(request.response_format, config)
    _set_thinking(request.reasoning, config.thinking_config)


def _set_sampling(sampling: text_pb2.Sampling, config: bodies.GenerationConfig) -> None:
    fill(sampling, config)
    if config.logprobs is not None and not config.response_logprobs:
        raise InvalidField("logprobs needs responseLogprobs", param="generationConfig.logprobs")
    if config.response_logprobs:
        sampling.logprobs = True
        sampling.top_logprobs = config.logprobs or 0


def _set_format(form: text_pb2.ResponseFormat, config: bodies.GenerationConfig) -> None:
    mime = config.response_mime_type or "text/plain"
    schema = config.response_json_schema
    if schema is None and config.response_schema is not None:
        schema = to_json_schema(config.response_schema)
    if mime == "application/json":
        form.kind = (
            text_pb2.ResponseFormat.KIND_JSON_OBJECT if schema is None else text_pb2.ResponseFormat.KIND_JSON_SCHEMA
        )
        if schema is not None:
            form.name = "response"
            form.schema_json = encode(schema).decode()
    elif mime == "text/x.enum":
        form.kind = text_pb2.ResponseFormat.KIND_CHOICE
        form.choices.extend(_choices(schema))
    elif mime != "text/plain":
        param = "generationConfig.responseMimeType"
        raise Unsupported(f"{param} is one of text/plain, application/json, text/x.enum", param=param)
    elif schema is not None:
        param = "generationConfig.responseSchema"
        raise InvalidField(f"{param} needs responseMimeType application/json", param=param)


def _choices(schema: Any) -> list[str]:
    """Return the words of an enum's schema."""
    words = schema.get("enum") if isinstance(schema, dict) else None
    if not words or not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        param = "generationConfig.responseSchema"
        raise InvalidField(f"{param} needs an enum of strings with responseMimeType text/x.enum", param=param)
    return words


def _set_thinking(options: text_pb2.ReasoningOptions, config: bodies.ThinkingConfig | None) -> None:
    if config is None:
        return
    options.include = bool(config.include_thoughts)
    if config.thinking_budget == 0:
        options.effort = text_pb2.ReasoningOptions.EFFORT_NONE
    elif config.thinking_budget is not None and config.thinking_budget > 0:
        options.budget_tokens = config.thinking_budget
    if config.thinking_level is not None:
        level = config.thinking_level.upper().removeprefix("THINKING_LEVEL_")
        if level not in _LEVELS and level != "UNSPECIFIED":
            param = "generationConfig.thinkingConfig.thinkingLevel"
            raise InvalidField(f"{param} is one of {', '.join(_LEVELS)}", param=param)
        if level in _LEVELS:
            options.effort = _LEVELS[level]
