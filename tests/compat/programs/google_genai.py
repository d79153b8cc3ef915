"""Google's client for Python."""

from __future__ import annotations

import base64
import json

import rig
from google import genai
from google.genai import errors, types

DECLARED = types.Tool(
    function_declarations=[
        {"name": t["name"], "description": t["description"], "parameters_json_schema": t["parameters"]}
        for t in rig.TOOLS
    ]
)
THINKING = types.ThinkingConfig(include_thoughts=True)


def client(question) -> genai.Client:
    options = types.HttpOptions(base_url=question.url, retry_options=types.HttpRetryOptions(attempts=1))
    return genai.Client(api_key=question.key, http_options=options)


def plain(question) -> str:
    with client(question) as models:
        return models.models.generate_content(model=question.model, contents=rig.MESSAGE).text


def picture(question) -> str:
    """A picture is asked about."""
    part = types.Part.from_bytes(data=base64.b64decode(rig.PICTURE), mime_type="image/png")
    with client(question) as models:
        return models.models.generate_content(model=question.model, contents=[rig.MESSAGE, part]).text


def stream(question) -> str:
    with client(question) as models:
        chunks = models.models.generate_content_stream(model=question.model, contents=rig.MESSAGE)
        return "".join(chunk.text or "" for chunk in chunks)


def tools(question) -> str:
    """The client calls the functions by itself, within a chat."""
    config = types.GenerateContentConfig(tools=[rig.weather, rig.now], thinking_config=THINKING)
    with client(question) as models:
        chat = models.chats.create(model=question.model, config=config)
        return chat.send_message(rig.MESSAGE).text


def tools_stream(question) -> str:
    """The parts of a stream are handed back one for one."""
    config = types.GenerateContentConfig(
        tools=[DECLARED],
        thinking_config=THINKING,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    contents = [types.Content(role="user", parts=[types.Part(text=rig.MESSAGE)])]
    with client(question) as models:
        while True:
            parts = []
            for chunk in models.models.generate_content_stream(model=question.model, contents=contents, config=config):
                parts += chunk.candidates[0].content.parts or []
            calls = [part.function_call for part in parts if part.function_call]
            if not calls:
                return "".join(part.text or "" for part in parts if not part.thought)
            contents.append(types.Content(role="model", parts=parts))
            results = [
                types.Part.from_function_response(name=c.name, response={"result": rig.call(c.name, c.args or {})})
                for c in calls
            ]
            contents.append(types.Content(role="user", parts=results))


def structured(question) -> dict:
    config = types.GenerateContentConfig(response_mime_type="application/json", response_json_schema=rig.SCHEMA)
    with client(question) as models:
        answer = models.models.generate_content(model=question.model, contents=rig.MESSAGE, config=config)
        return json.loads(answer.text)


def images(question) -> list:
    with client(question) as models:
        answer = models.models.generate_content(model=question.model, contents="a tree")
        return [rig.picture(part.inline_data.data) for part in answer.candidates[0].content.parts if part.inline_data]


def embeddings(question) -> list:
    with client(question) as models:
        answer = models.models.embed_content(model=question.model, contents=rig.TEXTS)
        return [[len(each.values), each.values[0]] for each in answer.embeddings]


def failure(error) -> int | None:
    return error.code if isinstance(error, errors.ClientError) else None


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
