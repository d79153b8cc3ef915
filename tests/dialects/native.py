"""The gateway's own dialect."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import requests

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.router.dialects.native import image, text
from services.router.dialects.native.bodies import ImageBody, TextBody
from tests.dialects.rig import (
    BASE64,
    GIVEN_URI,
    LONG,
    RESULT,
    SEEN_URI,
    TOOL,
    AnswerRig,
    Asked,
    Body,
    LargeBody,
    Served,
    StreamForm,
    asked,
)


def _text(model: str, words: str, *, stream: bool = False, max_tokens: int | None = None) -> Asked:
    turns = [{"role": "user", "content": words}]
    body = {"model_id": model, "messages": turns, "stream": stream or None, "max_tokens": max_tokens}
    return asked("/generate/text", body)


def _image(model: str, words: str, count: int = 1) -> Asked:
    return asked("/create/image", {"model_id": model, "prompt": words})


def _edit(model: str, words: str, picture: bytes) -> Asked:
    uri = "data:image/png;base64," + base64.b64encode(picture).decode()
    return asked("/generate/image", {"model_id": model, "prompt": words, "image_data": uri})


def native(served: Served, path: str, body: dict[str, Any]) -> Any:
    got = requests.post(served.url + path, json=body, headers={"X-API-Key": served.key}, timeout=60)
    assert got.status_code == 200, got.text
    return got


def frames(got: requests.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in got.content.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def native_text(served: Served, model: str) -> str:
    body = {"model_id": model, "messages": [{"role": "user", "content": "hi"}]}
    return str(native(served, "/generate/text", body).json()["response"])


def native_stream(served: Served, model: str) -> str:
    body = {"model_id": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    return "".join(frame.get("response", "") for frame in frames(native(served, "/generate/text", body)))


def native_vision(served: Served, model: str) -> str:
    message = {"role": "user", "content": "what is it?"}
    body = {"model_id": model, "messages": [message], "image_data": SEEN_URI}
    return str(native(served, "/generate/text", body).json()["response"])


def native_analysis(served: Served, model: str) -> str:
    body = {"model_id": model, "prompt": "what is it?", "image_data": SEEN_URI}
    return str(native(served, "/generate/image", body).json()["response"])


def native_tools(served: Served, model: str) -> tuple[Any, str]:
    first = {"role": "user", "content": "날씨?"}
    body = {"model_id": model, "messages": [first], "tools": [TOOL]}
    calls = native(served, "/generate/text", body).json()["tool_calls"]
    turns = [first, {"role": "assistant", "tool_calls": calls}]
    turns.append({"role": "tool", "tool_call_id": calls[0]["id"], "content": json.dumps(RESULT, ensure_ascii=False)})
    answer = native(served, "/generate/text", {**body, "messages": turns}).json()["response"]
    return json.loads(calls[0]["function"]["arguments"]), answer


def native_image(served: Served, model: str) -> list[bytes]:
    body = {"model_id": model, "prompt": "a red circle"}
    return [base64.b64decode(data) for data in native(served, "/create/image", body).json()["images"]]


def native_edit(served: Served, model: str) -> list[bytes]:
    body = {"model_id": model, "prompt": "a red circle", "image_data": GIVEN_URI}
    return [base64.b64decode(data) for data in native(served, "/generate/image", body).json()["images"]]


RIG: Final = AnswerRig(
    name="native",
    path="/generate/text",
    code=lambda body: body["code"],
    message=lambda body: body["detail"],
    key=lambda key: {"X-API-Key": key},
    text=_text,
    image=_image,
    changes=(_edit,),
    texts=(native_text, native_stream),
    visions=(native_vision, native_analysis),
    tools=native_tools,
    paint=native_image,
    edit=native_edit,
    streams={
        "text": StreamForm(ask=lambda model: _text(model, "x", stream=True), is_marked=True),
        "image": StreamForm(
            ask=lambda model: asked("/create/image", {"model_id": model, "prompt": "x", "stream": True}),
            makes="image",
            is_marked=True,
        ),
    },
    in_stream=lambda rendered: {"error": rendered},
    large={
        "chat": LargeBody(
            read=text.read, data={"model_id": "m", "messages": [{"role": "user", "content": LONG}]}, more={}
        ),
        "edit": LargeBody(
            read=image.request_from,
            data={"model_id": "m", "prompt": "p", "image_data": BASE64},
            more={"edit": True},
        ),
    },
    bodies=(
        Body(
            kind=TextBody,
            request=GenerateTextRequest.DESCRIPTOR,
            unset=frozenset(
                {
                    "user",
                    "response_format",
                    "reasoning",
                    "candidates",
                    "messages[0].name",
                    "tools[0].custom",
                    "messages[0].parts[0].reasoning",
                    "messages[0].parts[0].file",
                    "logprobs",
                    "top_logprobs",
                    "logit_bias",
                    "tool_choice.name",
                    "tool_choice.parallel",
                }
            ),
        ),
        Body(
            kind=ImageBody,
            request=GenerateImageRequest.DESCRIPTOR,
            unset=frozenset(
                {
                    "user",
                    "aspect_ratio",
                    "quality",
                    "background",
                    "output_format",
                    "style",
                    "mask",
                    "scheduler",
                    "moderation",
                }
            ),
        ),
    ),
)
