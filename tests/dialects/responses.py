"""The Responses dialect."""

from __future__ import annotations

import json
from typing import Any, Final

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.dialects import RESPONSES
from services.common.errors import BY_WORD
from services.router.dialects.responses import answering
from services.router.dialects.responses import asked as reading
from services.router.dialects.responses.bodies import ResponseBody
from tests.dialects.openai import client
from tests.dialects.rig import (
    LONG,
    NAME,
    RESULT,
    SCHEMA,
    SEEN_URI,
    TURNS,
    AnswerRig,
    Asked,
    Body,
    Json,
    LargeBody,
    Served,
    StreamForm,
    asked,
)

_PATH: Final = "/v1/responses"


def _text(model: str, words: str, *, stream: bool = False, max_tokens: int | None = None) -> Asked:
    return asked(_PATH, {"model": model, "input": words, "stream": stream or None, "max_output_tokens": max_tokens})


def responses_text(served: Served, model: str) -> str:
    with client(served) as asking:
        made = asking.responses.create(model=model, input="hi")
    assert made.usage
    assert made.usage.output_tokens > 0
    return made.output_text


def responses_stream(served: Served, model: str) -> str:
    """Read by the client's own accumulation, which checks the order of the events."""
    with client(served) as asking, asking.responses.stream(model=model, input="hi") as stream:
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == said
    return said


def responses_vision(served: Served, model: str) -> str:
    parts: Any = [{"type": "input_text", "text": "what?"}, {"type": "input_image", "image_url": SEEN_URI}]
    with client(served) as asking:
        return asking.responses.create(model=model, input=[{"role": "user", "content": parts}]).output_text


def responses_tools(served: Served, model: str) -> tuple[Any, str]:
    tools: Any = [{"type": "function", "name": NAME, "description": "the weather", "parameters": SCHEMA}]
    items: list[Any] = [{"role": "user", "content": "날씨?"}]
    with client(served) as asking:
        made = asking.responses.create(model=model, input=items, tools=tools)
        (call,) = (item for item in made.output if item.type == "function_call")
        items += [item.model_dump(exclude_none=True) for item in made.output]
        result = json.dumps(RESULT, ensure_ascii=False)
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": result})
        answer = asking.responses.create(model=model, input=items, tools=tools)
    return json.loads(call.arguments), answer.output_text


def _failed(rendered: Json) -> Json:
    """Return a failure as a response tells it, whose codes are few."""
    error = rendered["error"]
    reasons = [kind.reason for word, kind in BY_WORD.items() if _code(word) == error["code"]]
    return {**error, "code": answering.failure_code(reasons[0])}


def _code(word: str) -> Any:
    return RESPONSES.render(BY_WORD[word]("x"))["error"]["code"]


def _last(events: list[Any]) -> Json:
    kinds = [event["type"] for event in events]
    assert kinds == ["response.created", "response.in_progress", "response.failed"]
    return dict(events[-1]["response"])


RIG: Final = AnswerRig(
    name="responses",
    path=_PATH,
    code=lambda body: body["error"]["code"],
    message=lambda body: body["error"]["message"],
    key=lambda key: {"Authorization": f"Bearer {key}"},
    text=_text,
    texts=(responses_text, responses_stream),
    visions=(responses_vision,),
    tools=responses_tools,
    streams={"text": StreamForm(ask=lambda model: _text(model, "x", stream=True), failure=_last)},
    in_stream=_failed,
    failure_in=lambda event: event["response"]["error"],
    large={
        "input": LargeBody(read=reading.read, data={"model": "m", "input": LONG}, more={}),
        "many items": LargeBody(read=reading.read, data={"model": "m", "input": TURNS}, more={}),
        "count": LargeBody(read=reading.counted, data={"model": "m", "input": LONG}, more={}),
    },
    bodies=(
        Body(
            kind=ResponseBody,
            request=GenerateTextRequest.DESCRIPTOR,
            unset=frozenset({"candidates", "logit_bias", "reasoning.include", "reasoning.budget_tokens"}),
        ),
    ),
)
