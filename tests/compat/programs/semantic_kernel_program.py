"""Semantic Kernel's agents."""

from __future__ import annotations

import openai
import rig
from pydantic import BaseModel
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
from semantic_kernel.functions import KernelArguments, kernel_function


class Weather(BaseModel):
    city: str
    degrees: int


class Tools:
    @kernel_function(description="Tell the weather of a city.")
    def weather(self, city: str) -> str:
        return rig.weather(city)

    @kernel_function(description="Tell the time.")
    def now(self) -> str:
        return rig.now()


def agent(question, *, with_tools: bool = False, **settings) -> ChatCompletionAgent:
    client = openai.AsyncOpenAI(base_url=question.url + "/v1", api_key=question.key, max_retries=0)
    if with_tools:
        settings["reasoning_effort"] = "medium"
    return ChatCompletionAgent(
        service=OpenAIChatCompletion(ai_model_id=question.model, async_client=client),
        name="Helper",
        instructions="You help.",
        plugins=[Tools()] if with_tools else [],
        arguments=KernelArguments(OpenAIChatPromptExecutionSettings(**settings)),
    )


async def plain(question) -> str:
    return str(await agent(question).get_response(messages=rig.MESSAGE))


async def _streamed(made) -> str:
    return "".join([str(piece.content) async for piece in made.invoke_stream(messages=rig.MESSAGE)])


async def stream(question) -> str:
    return await _streamed(agent(question))


async def tools(question) -> str:
    return str(await agent(question, with_tools=True).get_response(messages=rig.MESSAGE))


async def tools_stream(question) -> str:
    return await _streamed(agent(question, with_tools=True))


async def structured(question) -> dict:
    answer = await agent(question, response_format=Weather).get_response(messages=rig.MESSAGE)
    return Weather.model_validate_json(str(answer)).model_dump()


def failure(error) -> int | None:
    while error is not None:
        if isinstance(getattr(error, "status_code", None), int):
            return error.status_code
        error = error.__cause__ or error.__context__
    return None


rig.serve(
    failure=failure,
    plain=plain,
    stream=stream,
    tools=tools,
    tools_stream=tools_stream,
    structured=structured,
    refused=plain,
)
