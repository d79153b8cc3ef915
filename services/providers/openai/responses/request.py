"""Say a chat in the words of the Responses API."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from moa.text.v1.text_pb2 import ResponseFormat, ToolChoice
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Provider
from services.common.errors import Unsupported
from services.providers.http.client import Outgoing
from services.providers.openai.responses import fields
from services.providers.openai.responses.items import Items
from services.providers.openai.text.count import tool_from
from services.providers.openai.text.request import CHOICES, effort_of, options_of, url_of
from services.providers.text.ignored import Ignored
from services.providers.text.jsontext import json_of
from services.providers.text.sampling import given

Json = dict[str, Any]

LEAST_TOKENS: Final = 16
"""The least bound on an answer that OpenAI takes. A lower one is kept by the reader, which ends a longer answer."""
_SEALED: Final = "reasoning.encrypted_content"
_SHOWN: Final = ("summary", "context", "mode")
_LOGPROBS: Final = "message.output_text.logprobs"

_encode: Final = msgspec.json.Encoder().encode


def request_from(request: GenerateTextRequest, model: Model, provider: Provider, ignored: Ignored) -> Outgoing:
    """Return the HTTP request for a chat."""
    body = body_from(request, model, options_of(provider).system_role, ignored)
    return Outgoing(url_of(provider.base_url, "/responses"), _encode(body), {})


def body_from(request: GenerateTextRequest, model: Model, system_role: str, ignored: Ignored) -> Json:
    """Return the request's JSON object. Raises Unsupported, with the field's name, for what cannot be said."""
    if request.stop:
        raise Unsupported("this model takes no strings that end the answer", param="stop")
    if request.candidates > 1:
        raise Unsupported("this model gives one candidate", param="candidates")
    passing, own, speaks = fields.of_request(request, ignored)
    items = Items(system_role, model)
    for index, message in enumerate(request.messages):
        items.add(message, f"messages[{index}]")
    body: Json = {"model": model.name, "input": items.made, "store": False, "include": [_SEALED]}
    if request.HasField("max_tokens"):
        body["max_output_tokens"] = max(LEAST_TOKENS, request.max_tokens)
    if request.stream:
        body["stream"] = True
    if request.user:
        body["user"] = request.user
    _add_sampling(body, request, ignored)
    if request.tools:
        _add_tools(body, request, model, own, speaks=speaks)
    _add_form(body, request.response_format, passing.pop("text", {}))
    _add_reasoning(body, request, own, ignored)
    if isinstance(own.get("include"), list):
        body["include"] += [name for name in own["include"] if name not in body["include"]]
    return body | passing


def _add_sampling(body: Json, request: GenerateTextRequest, ignored: Ignored) -> None:
    sampling = request.sampling
    body.update(given(sampling, {"temperature": "temperature", "top_p": "top_p"}, ignored))
    if sampling.logit_bias:
        ignored.add("logit_bias", "this model does not bias tokens")
    if sampling.logprobs:
        body["include"].append(_LOGPROBS)
        body["top_logprobs"] = sampling.top_logprobs


def _add_tools(body: Json, request: GenerateTextRequest, model: Model, own: Json, *, speaks: bool) -> None:
    tools, custom = [], set()
    for index, tool in enumerate(request.tools):
        where = f"tools[{index}]"
        if not tool.name:
            tools.append(fields.tool_of(tool, model, where))
            continue
        made = tool_from(tool, where)
        if made["type"] == "custom":
            custom.add(tool.name)
        elif not speaks:
            # Functions are strict by default here, and were not where their caller wrote them.
            made["strict"] = bool(made["strict"])
        tools.append(made)
    body["tools"] = tools
    choice = request.tool_choice
    if isinstance(own.get("tool_choice"), dict):
        body["tool_choice"] = own["tool_choice"]
    elif choice.mode == ToolChoice.MODE_NAMED:
        body["tool_choice"] = {"type": "custom" if choice.name in custom else "function", "name": choice.name}
    elif choice.mode != ToolChoice.MODE_UNSPECIFIED:
        body["tool_choice"] = CHOICES[choice.mode]
    if choice.HasField("parallel"):
        body["parallel_tool_calls"] = choice.parallel


def _add_form(body: Json, form: ResponseFormat, text: Json) -> None:
    if form.kind == ResponseFormat.KIND_JSON_OBJECT:
        text["format"] = {"type": "json_object"}
    elif form.kind == ResponseFormat.KIND_JSON_SCHEMA:
        schema = json_of(form.schema_json, "response_format.schema_json")
        text["format"] = {"type": "json_schema", "name": form.name or "answer", "schema": schema}
        if form.HasField("strict"):
            text["format"]["strict"] = form.strict
    if text:
        body["text"] = text


def _add_reasoning(body: Json, request: GenerateTextRequest, own: Json, ignored: Ignored) -> None:
    """Add the effort, and the form of a summary where the caller asked for one: not every account may have it."""
    effort = effort_of(request.reasoning, ignored) if request.HasField("reasoning") else ""
    wanted: Json = {"effort": effort} if effort else {}
    shown = own.get("reasoning")
    if isinstance(shown, dict):
        wanted |= {name: shown[name] for name in _SHOWN if shown.get(name) is not None}
    if wanted:
        body["reasoning"] = wanted
