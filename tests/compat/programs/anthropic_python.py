"""Anthropic's client for Python. Each event of a stream is also held to the client's published types."""

from __future__ import annotations

import json
import time

import anthropic
import rig
from anthropic.types import RawMessageStreamEvent
from pydantic import BaseModel, TypeAdapter

TOOLS = [
    {"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]} for tool in rig.TOOLS
]
THINKS = {"tools": TOOLS, "thinking": {"type": "enabled", "budget_tokens": 2048}}
EVENT = TypeAdapter(RawMessageStreamEvent)


class Weather(BaseModel):
    city: str
    degrees: int


def client(question) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=question.url, api_key=question.key, max_retries=0)


def asked(question, messages, **more) -> dict:
    return {"model": question.model, "max_tokens": 8000, "messages": messages, **more}


def begun() -> list:
    return [{"role": "user", "content": rig.MESSAGE}]


def text_of(message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def plain(question) -> str:
    return text_of(client(question).messages.create(**asked(question, begun())))


def picture(question) -> str:
    """A picture is asked about."""
    image = {"type": "base64", "media_type": "image/png", "data": rig.PICTURE}
    content = [{"type": "image", "source": image}, {"type": "text", "text": rig.MESSAGE}]
    return text_of(client(question).messages.create(**asked(question, [{"role": "user", "content": content}])))


def stream(question) -> str:
    """As the client reads it, and each event as its types have it."""
    with client(question).messages.with_streaming_response.create(**asked(question, begun(), stream=True)) as raw:
        lines = [line.removeprefix("data: ") for line in raw.iter_lines() if line.startswith("data: ")]
    names = []
    for line in lines:
        if json.loads(line)["type"] != "ping":
            event = EVENT.validate_json(line)
            unknown(event)
            names.append(event.type)
    if names[:1] + names[-2:] != ["message_start", "message_delta", "message_stop"]:
        raise ValueError(f"the events are {names}")
    with client(question).messages.stream(**asked(question, begun())) as events:
        said = "".join(events.text_stream)
        message = events.get_final_message()
    if message.stop_reason != "end_turn" or not message.usage.output_tokens:
        raise ValueError(f"the message ended with {message.stop_reason}, {message.usage}")
    return said


def unknown(value) -> None:
    """Raise for fields that the published types have not."""
    if isinstance(value, BaseModel):
        if value.model_extra:
            raise ValueError(f"{type(value).__name__} has {sorted(value.model_extra)}")
        for name in type(value).model_fields:
            unknown(getattr(value, name))
    elif isinstance(value, list):
        for each in value:
            unknown(each)


def loop(question, ask) -> str:
    """The blocks of the client are handed back as they are."""
    messages = begun()
    while True:
        message = ask(asked(question, messages, **THINKS))
        calls = [block for block in message.content if block.type == "tool_use"]
        if not calls:
            return text_of(message)
        if message.stop_reason != "tool_use":
            raise ValueError(f"calls end with {message.stop_reason}")
        results = [
            {"type": "tool_result", "tool_use_id": each.id, "content": rig.call(each.name, each.input)}
            for each in calls
        ]
        messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]


def tools(question) -> str:
    return loop(question, lambda given: client(question).messages.create(**given))


def tools_stream(question) -> str:
    def ask(given):
        with client(question).messages.stream(**given) as events:
            return events.get_final_message()

    return loop(question, ask)


def structured(question) -> dict:
    made = client(question).messages.parse(**asked(question, begun(), output_format=Weather))
    return made.parsed_output.model_dump()


def structured_tool(question) -> dict:
    tool = {"name": "weather", "description": "Tell the weather.", "input_schema": rig.SCHEMA}
    choice = {"type": "tool", "name": "weather"}
    made = client(question).messages.create(**asked(question, begun(), tools=[tool], tool_choice=choice))
    (call,) = [block for block in made.content if block.type == "tool_use"]
    return call.input


def count(question) -> str:
    """A prompt is counted, and models are listed by pages, as the client's types have them."""
    asking = client(question)
    counted = asking.messages.count_tokens(model=question.model, messages=begun(), tools=TOOLS)
    names = [model.id for model in asking.models.list(limit=2)]
    described = asking.models.retrieve(question.model)
    unknown(described)
    return "counted" if counted.input_tokens > 0 and described.id in names and len(names) > 2 else f"{counted} {names}"


def batch(question) -> str:
    """Two requests in a batch, from its creation to its deletion; results are read by its link."""
    batches = client(question).messages.batches
    params = asked(question, begun())
    made = batches.create(requests=[{"custom_id": name, "params": params} for name in ("one", "two")])
    until = time.monotonic() + 60
    while (found := batches.retrieve(made.id)).processing_status != "ended":
        if time.monotonic() > until:
            raise TimeoutError(f"the batch is {found}")
        time.sleep(0.1)
    results = {each.custom_id: each for each in batches.results(made.id)}
    listed = [each.id for each in batches.list(limit=1)]
    cancelled, deleted = batches.cancel(made.id), batches.delete(made.id)
    for each in (made, found, cancelled, deleted, *results.values()):
        unknown(each)
    try:
        batches.retrieve(made.id)
    except anthropic.NotFoundError:
        said = {text_of(each.result.message) for each in results.values()}
        known = made.id in listed and found.request_counts.succeeded == 2 and list(results) == ["one", "two"]
        return "".join(said) if known else f"{found} {listed} {results}"
    return "the batch is still there"


def failure(error) -> int | None:
    """The error is the client's own class, with the request's id."""
    return error.status_code if isinstance(error, anthropic.RateLimitError) and error.request_id else None


rig.serve(
    failure=failure,
    plain=plain,
    picture=picture,
    stream=stream,
    tools=tools,
    tools_stream=tools_stream,
    structured=structured,
    structured_tool=structured_tool,
    count=count,
    batch=batch,
    refused=plain,
)
