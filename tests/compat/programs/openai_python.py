"""OpenAI's client for Python."""

from __future__ import annotations

import base64
import json

import openai
import rig

TOOLS = [{"type": "function", "function": tool} for tool in rig.TOOLS]


def client(question) -> openai.OpenAI:
    return openai.OpenAI(base_url=question.url + "/v1", api_key=question.key, max_retries=0)


def begun() -> list:
    return [{"role": "user", "content": rig.MESSAGE}]


def plain(question) -> str:
    return client(question).chat.completions.create(model=question.model, messages=begun()).choices[0].message.content


def picture(question) -> str:
    """A picture is asked about."""
    url = {"url": f"data:image/png;base64,{rig.PICTURE}", "detail": "low"}
    content = [{"type": "text", "text": rig.MESSAGE}, {"type": "image_url", "image_url": url}]
    answer = client(question).chat.completions.create(
        model=question.model, messages=[{"role": "user", "content": content}]
    )
    return answer.choices[0].message.content


def stream(question) -> str:
    chunks = client(question).chat.completions.create(
        model=question.model, messages=begun(), stream=True, stream_options={"include_usage": True}
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def tools(question) -> str:
    """The messages of the client are handed back as they are."""
    messages = begun()
    while True:
        answer = client(question).chat.completions.create(
            model=question.model, messages=messages, tools=TOOLS, reasoning_effort="medium"
        )
        message = answer.choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message)
        for each in message.tool_calls:
            said = rig.call(each.function.name, each.function.arguments)
            messages.append({"role": "tool", "tool_call_id": each.id, "content": said})


def tools_stream(question) -> str:
    """The client puts the message together, and its published types are all that is handed back."""
    messages = begun()
    while True:
        with client(question).chat.completions.stream(
            model=question.model, messages=messages, tools=TOOLS, reasoning_effort="medium"
        ) as events:
            message = events.get_final_completion().choices[0].message
        if not message.tool_calls:
            return message.content
        calls = [
            {"id": c.id, "type": "function", "function": {"name": c.function.name, "arguments": c.function.arguments}}
            for c in message.tool_calls
        ]
        messages.append({"role": "assistant", "content": message.content, "tool_calls": calls})
        for each in message.tool_calls:
            said = rig.call(each.function.name, each.function.arguments)
            messages.append({"role": "tool", "tool_call_id": each.id, "content": said})


def structured(question) -> dict:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": rig.SCHEMA, "strict": True}}
    answer = client(question).chat.completions.create(model=question.model, messages=begun(), response_format=form)
    return json.loads(answer.choices[0].message.content)


def images(question) -> list:
    answer = client(question).images.generate(model=question.model, prompt="a tree", response_format="b64_json")
    return [rig.picture(base64.b64decode(each.b64_json)) for each in answer.data]


def embeddings(question) -> list:
    answer = client(question).embeddings.create(model=question.model, input=rig.TEXTS)
    return [[len(each.embedding), each.embedding[0]] for each in answer.data]


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
    images=images,
    embeddings=embeddings,
)
