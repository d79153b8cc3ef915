"""smolagents: agents that call tools, and agents that write Python."""

from __future__ import annotations

import rig
from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool

QUIET = -1


@tool
def weather(city: str) -> str:
    """Tell the weather of a city.

    Args:
        city: The city's name.
    """
    return rig.weather(city)


@tool
def now() -> str:
    """Tell the time."""
    return rig.now()


def model(question) -> OpenAIModel:
    return OpenAIModel(
        model_id=question.model,
        api_base=question.url + "/v1",
        api_key=question.key,
        client_kwargs={"max_retries": 0},
        retry=False,
        reasoning_effort="medium",
    )


def tools(question) -> str:
    return ToolCallingAgent(tools=[weather, now], model=model(question), verbosity_level=QUIET).run(rig.MESSAGE)


def tools_stream(question) -> str:
    agent = ToolCallingAgent(tools=[weather, now], model=model(question), verbosity_level=QUIET, stream_outputs=True)
    return agent.run(rig.MESSAGE)


def code(question) -> str:
    """The model writes Python, with stop strings and text for the results of what it ran."""
    return CodeAgent(tools=[weather, now], model=model(question), verbosity_level=QUIET).run(rig.MESSAGE)


def failure(error) -> int | None:
    while error is not None:
        if isinstance(getattr(error, "status_code", None), int):
            return error.status_code
        error = error.__cause__ or error.__context__
    return None


rig.serve(failure=failure, tools=tools, tools_stream=tools_stream, code=code, refused=tools)
