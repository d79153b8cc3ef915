"""litellm as a client, by OpenAI's chat API or Google's."""

from __future__ import annotations

import base64
import json

import litellm
import rig

TOOLS = [{"type": "function", "function": tool} for tool in rig.TOOLS]
litellm.drop_params = False


def to(question) -> dict:
    if question.dialect == "google":
        return {
            "model": f"gemini/{question.model}",
            "api_base": f"{question.url}/v1beta",
            "api_key": question.key,
            "max_retries": 0,
        }
    return {
        "model": f"openai/{question.model}",
        "api_base": question.url + "/v1",
        "api_key": question.key,
        "max_retries": 0,
    }


def begun() -> list:
    return [{"role": "user", "content": rig.MESSAGE}]


def plain(question) -> str:
    return litellm.completion(messages=begun(), **to(question)).choices[0].message.content


def stream(question) -> str:
    chunks = litellm.completion(messages=begun(), stream=True, **to(question))
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def _looped(question, ask) -> str:
    messages = begun()
    while True:
        message = ask(messages)
        if not message.tool_calls:
            return message.content
        messages.append(message)
        for each in message.tool_calls:
            said = rig.call(each.function.name, each.function.arguments)
            messages.append({"role": "tool", "tool_call_id": each.id, "name": each.function.name, "content": said})


THINKS = {"tools": TOOLS, "reasoning_effort": "medium", "allowed_openai_params": ["reasoning_effort"]}


def tools(question) -> str:
    def ask(messages):
        return litellm.completion(messages=messages, **THINKS, **to(question)).choices[0].message

    return _looped(question, ask)


def tools_stream(question) -> str:
    def ask(messages):
        chunks = list(litellm.completion(messages=messages, stream=True, **THINKS, **to(question)))
        return litellm.stream_chunk_builder(chunks, messages=messages).choices[0].message

    return _looped(question, ask)


def structured(question) -> dict:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": rig.SCHEMA, "strict": True}}
    answer = litellm.completion(messages=begun(), response_format=form, **to(question))
    return json.loads(answer.choices[0].message.content)


def images(question) -> list:
    """The library asks no model of `gpt-image`'s kind for a form: some are answered with bytes, some with a link."""
    answer = litellm.image_generation(prompt="a tree", **to(question))
    return [rig.picture(base64.b64decode(e.b64_json) if e.b64_json else rig.fetched(e.url)) for e in answer.data]


def embeddings(question) -> list:
    answer = litellm.embedding(input=rig.TEXTS, **to(question))
    return [[len(each["embedding"]), each["embedding"][0]] for each in answer.data]


def failure(error) -> int | None:
    return getattr(error, "status_code", None)


rig.serve(
    failure=failure,
    plain=plain,
    stream=stream,
    tools=tools,
    tools_stream=tools_stream,
    structured=structured,
    refused=plain,
    images=images,
    embeddings=embeddings,
)
