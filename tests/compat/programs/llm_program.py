"""The command `llm`, with the gateway's models as its manual adds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import rig

FUNCTIONS = """
def weather(city: str) -> str:
    "Tell the weather of a city."
    return {"Seoul": "21 degrees", "Busan": "23 degrees", "Jeju": "25 degrees"}[city]

def now() -> str:
    "Tell the time."
    return "12:00"
"""


def ask(question, *options: str) -> str:
    home = Path("llm").absolute()
    home.mkdir(exist_ok=True)
    model = {
        "model_id": "asked",
        "model_name": question.model,
        "api_base": question.url + "/v1",
        "api_key_name": "moa",
        "supports_tools": True,
        "supports_schema": True,
        "reasoning": True,
    }
    (home / "extra-openai-models.yaml").write_text(json.dumps([model]))
    (home / "keys.json").write_text(json.dumps({"moa": question.key}))
    program = Path(sys.executable).with_name("llm")
    done = subprocess.run(
        [str(program), "-m", "asked", *options, rig.MESSAGE],
        env={**os.environ, "LLM_USER_PATH": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-500:])
    return done.stdout.removesuffix("\n")


def plain(question) -> str:
    return ask(question, "--no-stream")


def stream(question) -> str:
    return ask(question)


def tools(question) -> str:
    return ask(question, "--no-stream", "--functions", FUNCTIONS, "-o", "reasoning_effort", "medium")


def tools_stream(question) -> str:
    return ask(question, "--functions", FUNCTIONS, "-o", "reasoning_effort", "medium")


def structured(question) -> dict:
    return json.loads(ask(question, "--no-stream", "--schema", json.dumps(rig.SCHEMA)))


def failure(error) -> int | None:
    return 429 if "429" in str(error) else None


rig.serve(
    failure=failure,
    plain=plain,
    stream=stream,
    tools=tools,
    tools_stream=tools_stream,
    structured=structured,
    refused=plain,
)
