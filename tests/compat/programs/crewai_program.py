"""crewAI: a crew of one, with tools."""

from __future__ import annotations

import os

import rig

os.environ["CREWAI_DISABLE_TELEMETRY"] = os.environ["OTEL_SDK_DISABLED"] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"

from crewai import LLM, Agent, Crew, Task  # it reads the environment as it is imported
from crewai.tools import tool
from pydantic import BaseModel


class Weather(BaseModel):
    city: str
    degrees: int


@tool("weather")
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return rig.weather(city)


@tool("now")
def now() -> str:
    """Tell the time."""
    return rig.now()


def crew(question, *, stream: bool = False, with_tools: bool = False, **more) -> Crew:
    llm = LLM(
        model=f"openai/{question.model}",
        base_url=question.url + "/v1",
        api_key=question.key,
        stream=stream,
        max_retries=0,
        **({"reasoning_effort": "medium"} if with_tools else {}),
    )
    agent = Agent(
        role="Forecaster",
        goal="Tell the weather",
        backstory="You know the weather.",
        llm=llm,
        tools=[weather, now] if with_tools else [],
        max_retry_limit=0,
    )
    task = Task(description=rig.MESSAGE, expected_output="A sentence.", agent=agent, **more)
    return Crew(agents=[agent], tasks=[task], verbose=False)


def plain(question) -> str:
    return crew(question).kickoff().raw


def stream(question) -> str:
    return crew(question, stream=True).kickoff().raw


def tools(question) -> str:
    return crew(question, with_tools=True).kickoff().raw


def tools_stream(question) -> str:
    return crew(question, with_tools=True, stream=True).kickoff().raw


def structured(question) -> dict:
    return crew(question, output_pydantic=Weather).kickoff().pydantic.model_dump()


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
