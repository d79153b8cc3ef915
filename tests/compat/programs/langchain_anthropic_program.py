"""LangChain's agents, by Anthropic's API."""

from __future__ import annotations

import rig
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from pydantic import BaseModel

TOOLS = [tool(rig.weather), tool(rig.now)]


class Weather(BaseModel):
    city: str
    degrees: int


def model(question, *, thinks: bool = False) -> ChatAnthropic:
    more = {"thinking": {"type": "enabled", "budget_tokens": 2048}} if thinks else {}
    return ChatAnthropic(
        model=question.model, api_key=question.key, base_url=question.url, max_retries=0, max_tokens=8000, **more
    )


def plain(question) -> str:
    return model(question).invoke(rig.MESSAGE).text


def picture(question) -> str:
    seen = {"type": "image", "base64": rig.PICTURE, "mime_type": "image/png"}
    content = [{"type": "text", "text": rig.MESSAGE}, seen]
    return model(question).invoke([{"role": "user", "content": content}]).text


def stream(question) -> str:
    return "".join(chunk.text for chunk in model(question).stream(rig.MESSAGE))


def tools(question) -> str:
    agent = create_agent(model(question, thinks=True), TOOLS)
    return agent.invoke({"messages": [("user", rig.MESSAGE)]})["messages"][-1].text


def tools_stream(question) -> str:
    agent = create_agent(model(question, thinks=True), TOOLS)
    state = {}
    for mode, piece in agent.stream({"messages": [("user", rig.MESSAGE)]}, stream_mode=["messages", "values"]):
        if mode == "values":
            state = piece
    return state["messages"][-1].text


def structured(question) -> dict:
    return model(question).with_structured_output(Weather, method="json_schema").invoke(rig.MESSAGE).model_dump()


def structured_tool(question) -> dict:
    return model(question).with_structured_output(Weather, method="function_calling").invoke(rig.MESSAGE).model_dump()


def failure(error) -> int | None:
    return getattr(error, "status_code", None)


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
