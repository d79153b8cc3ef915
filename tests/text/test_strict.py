"""Nothing of a request is changed or left out in silence: it is named, and refused where the caller is strict."""

from __future__ import annotations

import dataclasses
import json
from typing import Final

import pytest

from inference.text.ask import ask_from
from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest, GenerateTextResponse
from services.catalogue import Model, Provider
from services.common.errors import Unsupported
from services.router.dialects.google import requests as google
from services.router.dialects.openai import chat_request
from services.router.operations.text import TextCall
from services.text import prepare
from tests import strictness
from tests.strictness import Json

WORDS: Final = [{"role": "user", "content": "hi"}]
SEEN: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
TOOL: Final = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def _picture(**more: str) -> Json:
    url = {"url": f"data:image/png;base64,{SEEN}", **more}
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]}


PLAIN: Final[dict[str, Json]] = {"detail": _picture(), "parallel_tool_calls": {"tools": [TOOL]}}
"""What stands beside a field that means nothing alone."""
OPENAI: Final[dict[str, Json]] = {
    "temperature": {"temperature": 1.7},
    "top_p": {"top_p": 0.3},
    "top_k": {"top_k": 7},
    "min_p": {"min_p": 0.2},
    "seed": {"seed": 2**40},
    "presence_penalty": {"presence_penalty": 0.5},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "logit_bias": {"logit_bias": {"5": 3}},
    "effort": {"reasoning_effort": "xhigh"},
    "low effort": {"reasoning_effort": "low"},
    "parallel_tool_calls": {"tools": [TOOL], "parallel_tool_calls": False},
    "name": {"messages": [{"role": "user", "content": "hi", "name": "ann"}]},
    "cache_control": {"messages": [{"role": "user", "content": "hi", "cache_control": {"type": "ephemeral"}}]},
    "detail": _picture(detail="low"),
    "metadata": {"metadata": {"a": "b"}},
    "store": {"store": True},
    "service_tier": {"service_tier": "priority"},
    "verbosity": {"verbosity": "low"},
    "prompt_cache_key": {"prompt_cache_key": "k"},
    "prediction": {"prediction": {"type": "content", "content": "x"}},
    "unknown": {"chat_template_kwargs": {"a": 1}},
    "best_of": {"best_of": 3},
}
GOOGLE: Final[dict[str, Json]] = {
    **strictness.GOOGLE,
    "topK": {"generationConfig": {"topK": 7}},
    "thinkingBudget": {"generationConfig": {"thinkingConfig": {"thinkingBudget": 2000}}},
    "thinkingLevel": {"generationConfig": {"thinkingConfig": {"thinkingLevel": "HIGH"}}},
    "mediaResolution": {"generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"}},
    "labels": {"labels": {"a": "b"}},
}
MODELS: Final = (
    "openai-text/gpt-4o-mini",
    "openai-text/gpt-5-mini",
    "gemini-text/gemini-3.8-flash",
    "gemini-text/gemini-2.5-flash",
    "gemini-text/gemini-2.0-flash-lite",
    "anthropic-text/claude-opus-5-5",
    "aws-bedrock-text/claude-sonnet-4-5",
    "aws-bedrock-text/nova-lite",
    "local-text/smollm2-135m",
)


def _asked(dialect: str, given: Json, model: Model, strict: bool) -> GenerateTextRequest:
    """Return the request of a body, as the router hands it to whoever answers."""
    if dialect == "openai":
        body = json.dumps({"model": model.id, "messages": WORDS, **given}).encode()
        request: GenerateTextRequest | None = chat_request.request_from(body, strict=strict).request
    else:
        body = json.dumps({"contents": [{"role": "user", "parts": [{"text": "hi"}]}], **given}).encode()
        request = google.asked(body, model.id, "text", stream=False, strict=strict).text
    assert request is not None
    request.model, request.provider = model.id, model.provider
    return request


def _sent(dialect: str, given: Json, model: Model, provider: Provider, strict: bool) -> tuple[object, list[str]]:
    """Return what becomes of a request, and what of it is named as ignored."""
    request = _asked(dialect, given, model, strict)
    if model.load is not None:
        ask = ask_from(request, model)
        return dataclasses.replace(ask, seed=request.sampling.seed, ignored=()), list(ask.ignored)
    made = prepare.prepared(request.SerializeToString(), provider.adapter, model, provider, stream=False)
    return made.outgoing.body, made.ignored


FIELDS: Final = {"openai": OPENAI, "google": GOOGLE}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dialect", "field"), strictness.cases(FIELDS))
def test_what_is_not_passed_is_named_and_refused_of_the_strict(name: str, dialect: str, field: str) -> None:
    """A field that leaves no trace in what is sent, or another value than its own, is in the list of the ignored."""
    strictness.check(name, dialect, FIELDS[dialect][field], _sent, plain=PLAIN.get(field, {}), unable=Unsupported)


@pytest.mark.parametrize("asked", [None, 100, 101])
def test_an_answer_that_may_be_shorter_is_named(asked: int | None) -> None:
    """A bound above the model's own is used as the model's, which is told; the strict are refused."""
    model = Model(id="m", provider="p", max_output_tokens=100, default_max_tokens=4096)
    request = GenerateTextRequest(max_tokens=asked)
    request.messages.add(role=text_pb2.ROLE_USER).parts.add(text="hi")
    call = TextCall(request)
    call.check(model)
    assert call.ignored(GenerateTextResponse()) == (["max_tokens=100"] if asked == 101 else [])
    request.strict = True
    if asked == 101:
        with pytest.raises(Unsupported, match="at most 100 tokens"):
            TextCall(request).check(model)
    else:
        TextCall(request).check(model)
