"""What the programs for Python share: questions come as lines of JSON, each is answered with one.

It runs in the clients' environments, so that only the standard library is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import sys
import traceback
import urllib.request

MESSAGE = "What is the weather like in Seoul, Busan and Jeju, and what time is it?"
WEATHER = {"Seoul": "21 degrees", "Busan": "23 degrees", "Jeju": "25 degrees"}
NOW = "12:00"
TOOLS = [
    {
        "name": "weather",
        "description": "Tell the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city's name."}},
            "required": ["city"],
        },
    },
    {"name": "now", "description": "Tell the time.", "parameters": {"type": "object", "properties": {}}},
]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}
TEXTS = ["a", "bcd"]
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR42mP8z0AaYGIY1TCqYdhqAABALgEfFO4+AgAAAABJRU5ErkJggg=="
"""A red square, PNG in base64."""

called: list = []
"""What the tools were called with, since the question came."""


def weather(city: str) -> str:
    """Tell the weather of a city.

    Args:
        city: The city's name.
    """
    called.append(["weather", {"city": city}])
    return WEATHER[city]


def now() -> str:
    """Tell the time."""
    called.append(["now", {}])
    return NOW


def call(name: str, arguments: str | dict) -> str:
    """Call a tool as a hand-written loop does."""
    given = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    return {"weather": weather, "now": now}[name](**given)


def serve(*, failure=None, **scenarios) -> None:
    """Answer questions until the input ends.

    Each scenario is a function of the question, an object with `url`, `key`, `model`, `vendor`, `dialect`, that returns
    what is said. `failure` returns the status of an exception that the client raises, None where it raises another.
    """
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        question = type("Question", (), json.loads(line))
        called.clear()
        try:
            scenario = scenarios[question.scenario.replace("-", "_")]
            made = scenario(question)
            said = asyncio.run(made) if inspect.iscoroutine(made) else made
            answer = {"said": said, "called": called}
        except BaseException as error:  # what any client raises is told
            status = failure(error) if failure else None
            words = "".join(traceback.format_exception(error)[-1:])[-600:]
            answer = {"status": status, "failed": words, "called": called}
            if status is None or question.scenario != "refused":
                traceback.print_exc()
        out.write(json.dumps(answer) + "\n")
        out.flush()


@contextlib.contextmanager
def storing(question):
    """Have the account's responses stored meanwhile."""
    _store(question, True)
    try:
        yield
    finally:
        _store(question, False)


def _store(question, stores: bool) -> None:
    _sent(question, "PATCH", "/account/me", {"stores_responses": stores})


def _sent(question, method: str, path: str, body: dict | None) -> dict:
    headers = {"authorization": f"Bearer {question.key}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(question.url + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def picture(data: bytes) -> str:
    """Return what kind of file the bytes are."""
    return "png" if data.startswith(b"\x89PNG\r\n\x1a\n") else f"{data[:12]!r}"


def fetched(url: str) -> bytes:
    """Return what a link leads to."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()
