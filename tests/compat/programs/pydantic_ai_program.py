"""pydantic-ai, by OpenAI's Responses API, its chat API or Google's."""

from __future__ import annotations

import base64

import openai
import rig
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Weather(BaseModel):
    city: str
    degrees: int


def agent(question, *, thinks: bool = False, **more) -> Agent:
    if question.dialect == "google":
        model = GoogleModel(question.model, provider=GoogleProvider(api_key=question.key, base_url=question.url))
        settings = {"google_thinking_config": {"include_thoughts": True}}
    else:
        client = openai.AsyncOpenAI(base_url=question.url + "/v1", api_key=question.key, max_retries=0)
        kind = OpenAIResponsesModel if question.dialect == "responses" else OpenAIChatModel
        model = kind(question.model, provider=OpenAIProvider(openai_client=client))
        settings = {"openai_reasoning_effort": "medium"}
    return Agent(model, model_settings=settings if thinks else None, **more)


async def plain(question) -> str:
    return (await agent(question).run(rig.MESSAGE)).output


async def picture(question) -> str:
    seen = BinaryContent(base64.b64decode(rig.PICTURE), media_type="image/png")
    return (await agent(question).run([rig.MESSAGE, seen])).output


async def stream(question) -> str:
    async with agent(question).run_stream(rig.MESSAGE) as answer:
        return "".join([piece async for piece in answer.stream_text(delta=True, debounce_by=None)])


async def tools(question) -> str:
    return (await agent(question, thinks=True, tools=[rig.weather, rig.now]).run(rig.MESSAGE)).output


async def tools_stream(question) -> str:
    made = agent(question, thinks=True, tools=[rig.weather, rig.now])
    async with made.iter(rig.MESSAGE) as run:
        async for node in run:
            if Agent.is_model_request_node(node):
                async with node.stream(run.ctx) as events:
                    async for _ in events:
                        pass
    return run.result.output


async def structured(question) -> dict:
    return (await agent(question, output_type=NativeOutput(Weather)).run(rig.MESSAGE)).output.model_dump()


async def structured_tool(question) -> dict:
    """The output is the call of a tool that must be called: what the library does by default."""
    return (await agent(question, output_type=Weather).run(rig.MESSAGE)).output.model_dump()


def failure(error) -> int | None:
    return error.status_code if isinstance(error, ModelHTTPError) else None


rig.serve(
    failure=failure,
    plain=plain,
    picture=picture,
    stream=stream,
    tools=tools,
    tools_stream=tools_stream,
    structured=structured,
    structured_tool=structured_tool,
    refused=plain,
)
