"""OpenAI's client for Python, by the Responses API."""

from __future__ import annotations

import json

import openai
import rig

TOOLS = [{"type": "function", **tool} for tool in rig.TOOLS]
THINKS = {"effort": "medium", "summary": "auto"}


def client(question) -> openai.OpenAI:
    return openai.OpenAI(base_url=question.url + "/v1", api_key=question.key, max_retries=0)


def plain(question) -> str:
    return client(question).responses.create(model=question.model, input=rig.MESSAGE).output_text


def picture(question) -> str:
    """A picture is asked about."""
    seen = {"type": "input_image", "image_url": f"data:image/png;base64,{rig.PICTURE}", "detail": "low"}
    content = [{"type": "input_text", "text": rig.MESSAGE}, seen]
    answer = client(question).responses.create(model=question.model, input=[{"role": "user", "content": content}])
    return answer.output_text


def stream(question) -> str:
    events = client(question).responses.create(model=question.model, input=rig.MESSAGE, stream=True)
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def looped(ask) -> str:
    """The items of the client are handed back as they are."""
    items: list = [{"role": "user", "content": rig.MESSAGE}]
    while True:
        answer = ask(items)
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            return answer.output_text
        items += answer.output
        for each in calls:
            said = rig.call(each.name, each.arguments)
            items.append({"type": "function_call_output", "call_id": each.call_id, "output": said})


def tools(question) -> str:
    return looped(
        lambda items: client(question).responses.create(
            model=question.model, input=items, tools=TOOLS, reasoning=THINKS, store=False
        )
    )


def tools_stream(question) -> str:
    """The client puts the response together, and checks the order of its events."""

    def ask(items):
        with client(question).responses.stream(
            model=question.model, input=items, tools=TOOLS, reasoning=THINKS, store=False
        ) as events:
            return events.get_final_response()

    return looped(ask)


def structured(question) -> dict:
    form = {"type": "json_schema", "name": "weather", "schema": rig.SCHEMA, "strict": True}
    answer = client(question).responses.create(model=question.model, input=rig.MESSAGE, text={"format": form})
    return json.loads(answer.output_text)


def failure(error) -> int | None:
    return error.status_code if isinstance(error, openai.RateLimitError) else None


rig.serve(
    failure=failure,
    plain=plain,
    picture=picture,
    stream=stream,
    tools=tools,
    tools_stream=tools_stream,
    structured=structured,
    refused=plain,
)
