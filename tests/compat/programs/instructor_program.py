"""instructor, in the modes that it has for OpenAI's chat API."""

from __future__ import annotations

import instructor
import openai
import rig
from pydantic import BaseModel


class Weather(BaseModel):
    city: str
    degrees: int


def _asked(question, mode: instructor.Mode) -> dict:
    client = openai.OpenAI(base_url=question.url + "/v1", api_key=question.key, max_retries=0)
    made = instructor.from_openai(client, mode=mode)
    answer = made.chat.completions.create(
        model=question.model,
        messages=[{"role": "user", "content": rig.MESSAGE}],
        response_model=Weather,
        max_retries=1,
    )
    return answer.model_dump()


def structured(question) -> dict:
    return _asked(question, instructor.Mode.JSON_SCHEMA)


def structured_tool(question) -> dict:
    return _asked(question, instructor.Mode.TOOLS)


def structured_json(question) -> dict:
    return _asked(question, instructor.Mode.JSON)


def failure(error) -> int | None:
    while error is not None:
        if isinstance(getattr(error, "status_code", None), int):
            return error.status_code
        for attempt in getattr(error, "failed_attempts", None) or ():
            if isinstance(getattr(attempt.exception, "status_code", None), int):
                return attempt.exception.status_code
        error = error.__cause__
    return None


rig.serve(
    failure=failure,
    structured=structured,
    structured_tool=structured_tool,
    structured_json=structured_json,
    refused=structured_tool,
)
