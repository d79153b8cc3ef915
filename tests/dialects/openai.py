"""OpenAI's dialect."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import openai
import requests

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.providers.http.multipart import File, form
from services.router.dialects.openai import chat_request, image_request
from services.router.dialects.openai.bodies import ChatBody
from services.router.dialects.openai.embeddings import EmbeddingBody
from services.router.dialects.openai.image_bodies import ImageBody
from tests.dialects.rig import (
    GIVEN,
    LONG,
    PICTURE,
    RESULT,
    SEEN_URI,
    TOOL,
    TURNS,
    AnswerRig,
    Asked,
    Body,
    LargeBody,
    Served,
    StreamForm,
    asked,
)

_BODY, _FORM_TYPE = form([("prompt", "p"), ("image", File(PICTURE, "image/png"))])
_FORM = bytes(_BODY)


def _text(model: str, words: str, *, stream: bool = False, max_tokens: int | None = None) -> Asked:
    turns = [{"role": "user", "content": words}]
    body = {"model": model, "messages": turns, "stream": stream or None, "max_tokens": max_tokens}
    return asked("/v1/chat/completions", body)


def _image(model: str, words: str, count: int = 1) -> Asked:
    return asked("/v1/images/generations", {"model": model, "prompt": words, "n": count})


def _edit(model: str, words: str, picture: bytes) -> Asked:
    # A form, whose boundary is another at each call.
    files = {"image": ("a.png", picture)}
    return Asked("/v1/images/edits", {"data": {"model": model, "prompt": words}, "files": files})


def _variation(model: str, words: str, picture: bytes) -> Asked:
    files = {"image": ("a.png", picture)}
    return Asked("/v1/images/variations", {"data": {"model": model, "user": words}, "files": files})


def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0, timeout=60)


def openai_text(served: Served, model: str) -> str:
    with client(served) as asking:
        made = asking.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    assert made.usage
    assert made.usage.completion_tokens > 0
    return made.choices[0].message.content or ""


def openai_stream(served: Served, model: str) -> str:
    with client(served) as asking:
        stream = asking.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def openai_vision(served: Served, model: str) -> str:
    parts: Any = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": SEEN_URI}}]
    with client(served) as asking:
        made = asking.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])
    return made.choices[0].message.content or ""


def openai_tools(served: Served, model: str) -> tuple[Any, str]:
    messages: list[Any] = [{"role": "user", "content": "날씨?"}]
    with client(served) as asking:
        said = asking.chat.completions.create(model=model, messages=messages, tools=[TOOL]).choices[0].message
        assert said.tool_calls
        call = said.tool_calls[0]
        assert call.type == "function"
        messages.append(said.model_dump(exclude_none=True))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(RESULT, ensure_ascii=False)})
        answer = asking.chat.completions.create(model=model, messages=messages, tools=[TOOL])
    return json.loads(call.function.arguments), answer.choices[0].message.content or ""


def openai_image(served: Served, model: str) -> list[bytes]:
    with client(served) as asking:
        made = asking.images.generate(model=model, prompt="a red circle")
    assert made.data
    if "gpt-image" in model:
        return [base64.b64decode(each.b64_json or "") for each in made.data]
    return [requests.get(each.url or "", timeout=60).content for each in made.data]


def openai_edit(served: Served, model: str) -> list[bytes]:
    with client(served) as asking:
        made = asking.images.edit(model=model, prompt="a red circle", image=GIVEN, response_format="b64_json")
    assert made.data
    return [base64.b64decode(each.b64_json or "") for each in made.data]


RIG: Final = AnswerRig(
    name="openai",
    path="/v1/chat/completions",
    code=lambda body: body["error"]["code"],
    message=lambda body: body["error"]["message"],
    key=lambda key: {"Authorization": f"Bearer {key}"},
    text=_text,
    image=_image,
    most_images=2,
    changes=(_edit, _variation),
    texts=(openai_text, openai_stream),
    visions=(openai_vision,),
    tools=openai_tools,
    paint=openai_image,
    edit=openai_edit,
    streams={
        "text": StreamForm(ask=lambda model: _text(model, "x", stream=True)),
        "image": StreamForm(
            ask=lambda model: asked("/v1/images/generations", {"model": model, "prompt": "x", "stream": True}),
            makes="image",
        ),
    },
    large={
        "chat": LargeBody(
            read=chat_request.read, data={"model": "m", "messages": [{"role": "user", "content": LONG}]}, more={}
        ),
        "many turns": LargeBody(read=chat_request.read, data={"model": "m", "messages": TURNS}, more={}),
        "edit": LargeBody(
            read=image_request.request_from,
            data=_FORM,
            content_type=_FORM_TYPE,
            more={"content_type": _FORM_TYPE, "kind": "edit"},
        ),
    },
    bodies=(
        Body(kind=ChatBody, request=GenerateTextRequest.DESCRIPTOR, unset=frozenset({"reasoning.include"})),
        Body(
            kind=ImageBody,
            request=GenerateImageRequest.DESCRIPTOR,
            unset=frozenset({"steps", "guidance_scale", "scheduler", "strength"}),
        ),
        Body(kind=EmbeddingBody, request=EmbedTextsRequest.DESCRIPTOR, unset=frozenset({"purpose", "title"})),
    ),
)
