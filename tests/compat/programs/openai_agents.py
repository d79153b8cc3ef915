"""OpenAI's Agents for Python, in their default mode, by the Responses API, and by chats."""

from __future__ import annotations

import openai
import rig
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai.types.shared import Reasoning
from pydantic import BaseModel

set_tracing_disabled(True)


class Weather(BaseModel):
    city: str
    degrees: int


def client(question) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=question.url + "/v1", api_key=question.key, max_retries=0)


def agent(question, *, thinks: bool = False, **more) -> Agent:
    kind = OpenAIResponsesModel if question.dialect == "responses" else OpenAIChatCompletionsModel
    settings = ModelSettings(reasoning=Reasoning(effort="medium")) if thinks else ModelSettings()
    return Agent(
        name="Helper",
        instructions="You help.",
        model=kind(model=question.model, openai_client=client(question)),
        model_settings=settings,
        **more,
    )


async def plain(question) -> str:
    return (await Runner.run(agent(question), rig.MESSAGE)).final_output


async def stream(question) -> str:
    answer = Runner.run_streamed(agent(question), rig.MESSAGE)
    said = [
        event.data.delta
        async for event in answer.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    return "".join(said)


async def tools(question) -> str:
    made = agent(question, thinks=True, tools=[function_tool(rig.weather), function_tool(rig.now)])
    return (await Runner.run(made, rig.MESSAGE)).final_output


async def tools_stream(question) -> str:
    made = agent(question, thinks=True, tools=[function_tool(rig.weather), function_tool(rig.now)])
    answer = Runner.run_streamed(made, rig.MESSAGE)
    async for _ in answer.stream_events():
        pass
    return answer.final_output


async def tools_stored(question) -> str:
    """Each turn names the response before it, and sends what is new alone."""
    made = agent(question, thinks=True, tools=[function_tool(rig.weather), function_tool(rig.now)])
    with rig.storing(question):
        return (await Runner.run(made, rig.MESSAGE, auto_previous_response_id=True)).final_output


async def tools_session(question) -> str:
    """The turns lie in a conversation of the gateway, from which a second run reads them."""
    made = agent(question, thinks=True, tools=[function_tool(rig.weather), function_tool(rig.now)])
    with rig.storing(question):
        session = OpenAIConversationsSession(openai_client=client(question))
        said = (await Runner.run(made, rig.MESSAGE, session=session)).final_output
        kept = await session.get_items()
        calls = [item["name"] for item in kept if item.get("type") == "function_call"]
        await session.clear_session()
    return said if sorted(calls) == ["now", "weather", "weather", "weather"] else f"the session has {calls}"


async def structured(question) -> dict:
    return (await Runner.run(agent(question, output_type=Weather), rig.MESSAGE)).final_output.model_dump()


def failure(error) -> int | None:
    return getattr(error, "status_code", None)


rig.serve(
    failure=failure,
    plain=plain,
    stream=stream,
    tools=tools,
    tools_stream=tools_stream,
    tools_stored=tools_stored,
    tools_session=tools_session,
    structured=structured,
    refused=plain,
)
