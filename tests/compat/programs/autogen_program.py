"""AutoGen's agents."""

from __future__ import annotations

import openai
import rig
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import ModelClientStreamingChunkEvent
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel


class Weather(BaseModel):
    city: str
    degrees: int


def agent(question, *, streams: bool = False, thinks: bool = False, **more) -> AssistantAgent:
    client = OpenAIChatCompletionClient(
        model=question.model,
        base_url=question.url + "/v1",
        api_key=question.key,
        max_retries=0,
        model_info={
            "vision": False,
            "function_calling": True,
            "json_output": True,
            "structured_output": True,
            "family": "unknown",
        },
        **({"reasoning_effort": "medium"} if thinks else {}),
    )
    return AssistantAgent("helper", model_client=client, model_client_stream=streams, **more)


async def plain(question) -> str:
    return (await agent(question).run(task=rig.MESSAGE)).messages[-1].content


async def stream(question) -> str:
    """The client streams what a model thinks before what it says, between marks of its own."""
    said = ""
    async for event in agent(question, streams=True).run_stream(task=rig.MESSAGE):
        if isinstance(event, ModelClientStreamingChunkEvent):
            said += event.content
    return said.rpartition("</think>")[2]


async def tools(question) -> str:
    made = agent(question, thinks=True, tools=[rig.weather, rig.now], max_tool_iterations=9)
    return (await made.run(task=rig.MESSAGE)).messages[-1].content


async def tools_stream(question) -> str:
    made = agent(question, thinks=True, streams=True, tools=[rig.weather, rig.now], max_tool_iterations=9)
    return (await made.run(task=rig.MESSAGE)).messages[-1].content


async def structured(question) -> dict:
    made = agent(question, output_content_type=Weather)
    return (await made.run(task=rig.MESSAGE)).messages[-1].content.model_dump()


def failure(error) -> int | None:
    return error.status_code if isinstance(error, openai.RateLimitError) else None


rig.serve(
    failure=failure,
    plain=plain,
    stream=stream,
    tools=tools,
    tools_stream=tools_stream,
    structured=structured,
    refused=plain,
)
