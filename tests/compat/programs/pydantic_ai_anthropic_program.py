"""pydantic-ai, by Anthropic's API."""

from __future__ import annotations

import base64

import anthropic
import rig
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider


class Weather(BaseModel):
    city: str
    degrees: int


def agent(question, *, thinks: bool = False, **more) -> Agent:
    client = anthropic.AsyncAnthropic(base_url=question.url, api_key=question.key, max_retries=0)
    model = AnthropicModel(question.model, provider=AnthropicProvider(anthropic_client=client))
    settings = {"max_tokens": 8000}
    if thinks:
        settings["anthropic_thinking"] = {"type": "enabled", "budget_tokens": 2048}
    return Agent(model, model_settings=settings, **more)


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
    structured_tool=structured_tool,
    refused=plain,
)
