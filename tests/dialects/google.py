"""Google's dialect."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any, Final

from google import genai
from google.genai import types
from PIL import Image

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.router.dialects.google import requests as reading
from services.router.dialects.google.bodies import GenerateContentBody
from services.router.dialects.google.embeddings import BatchBody, EmbedBody
from tests.dialects.rig import (
    BASE64,
    GIVEN,
    LONG,
    NAME,
    RESULT,
    SCHEMA,
    SEEN,
    AnswerRig,
    Asked,
    Body,
    LargeBody,
    Served,
    StreamForm,
    asked,
)

_SEEN = {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": BASE64}}, {"text": "x"}]}]}


def _text(model: str, words: str, *, stream: bool = False, max_tokens: int | None = None) -> Asked:
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    limited = None if max_tokens is None else {"maxOutputTokens": max_tokens}
    contents = [{"role": "user", "parts": [{"text": words}]}]
    return asked(f"/v1beta/models/{model}:{method}", {"contents": contents, "generationConfig": limited})


def _image(model: str, words: str, count: int = 1) -> Asked:
    return _text(model, words)


def _array(model: str) -> Asked:
    return asked(f"/v1beta/models/{model}:streamGenerateContent", _text(model, "x").body)


def client(served: Served) -> genai.Client:
    return genai.Client(api_key=served.key, http_options=types.HttpOptions(base_url=served.url))


def google_text(served: Served, model: str) -> str:
    with client(served) as asking:
        made = asking.models.generate_content(model=model, contents="hi")
    assert made.usage_metadata
    assert (made.usage_metadata.candidates_token_count or 0) > 0
    return made.text or ""


def google_stream(served: Served, model: str) -> str:
    with client(served) as asking:
        return "".join(p.text or "" for p in asking.models.generate_content_stream(model=model, contents="hi"))


def google_vision(served: Served, model: str) -> str:
    contents: list[Any] = [Image.open(BytesIO(SEEN)), "what is it?"]
    with client(served) as asking:
        return asking.models.generate_content(model=model, contents=contents).text or ""


def google_tools(served: Served, model: str) -> tuple[Any, str]:
    declared = types.FunctionDeclaration(name=NAME, description="the weather", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    with client(served) as asking:
        chat = asking.chats.create(model=model, config=config)
        calls = chat.send_message("날씨?").function_calls
        assert calls
        part = types.Part.from_function_response(name=NAME, response=RESULT)
        assert part.function_response
        part.function_response.id = calls[0].id
        return calls[0].args, chat.send_message(part).text or ""


def _google_image(served: Served, model: str, contents: list[Any]) -> list[bytes]:
    with client(served) as asking:
        made = asking.models.generate_content(model=model, contents=contents)
    parts = [part for c in made.candidates or () if c.content for part in c.content.parts or ()]
    return [part.inline_data.data or b"" for part in parts if part.inline_data]


def google_image(served: Served, model: str) -> list[bytes]:
    return _google_image(served, model, ["a red circle"])


def google_edit(served: Served, model: str) -> list[bytes]:
    return _google_image(served, model, ["a red circle", Image.open(BytesIO(GIVEN))])


RIG: Final = AnswerRig(
    name="google",
    path="/v1beta/models/any:streamGenerateContent",
    code=lambda body: body["error"]["status"],
    message=lambda body: body["error"]["message"],
    key=lambda key: {"x-goog-api-key": key},
    text=_text,
    image=_image,
    texts=(google_text, google_stream),
    visions=(google_vision,),
    tools=google_tools,
    paint=google_image,
    edit=google_edit,
    streams={
        "text": StreamForm(ask=lambda model: _text(model, "x", stream=True), sign="\n\n"),
        "array": StreamForm(ask=_array, sign="\n", read=lambda text: list(json.loads(text))),
    },
    large={
        "contents": LargeBody(read=reading.asked, data=_SEEN, more={"model": "m", "makes": "text", "stream": False}),
        "images": LargeBody(read=reading.asked, data=_SEEN, more={"model": "m", "makes": "image", "stream": True}),
        "count": LargeBody(read=reading.counted, data={"contents": [{"parts": [{"text": LONG}]}]}, more={"model": "m"}),
    },
    bodies=(
        Body(
            kind=GenerateContentBody,
            request=GenerateTextRequest.DESCRIPTOR,
            unset=frozenset({"model", "stream", "user", "logit_bias", "min_p", "tools[0].custom"}),
        ),
        Body(
            kind=GenerateContentBody,
            request=GenerateImageRequest.DESCRIPTOR,
            unset=frozenset(
                {
                    "model",
                    "stream",
                    "user",
                    "negative_prompt",
                    "quality",
                    "background",
                    "output_format",
                    "style",
                    "mask",
                    "steps",
                    "guidance_scale",
                    "scheduler",
                    "strength",
                    "moderation",
                    "colors",
                }
            ),
        ),
        Body(
            kind=EmbedBody,
            batch=BatchBody,
            request=EmbedTextsRequest.DESCRIPTOR,
            unset=frozenset({"model", "user", "token_lists", "purpose"}),
        ),
    ),
)
