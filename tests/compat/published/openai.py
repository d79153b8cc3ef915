"""The tests that OpenAI publishes: each asks a method with few or all parameters, and checks the answer's types."""

from __future__ import annotations

from typing import Final

from tests.compat.published.suite import Suite
from tests.emulators.embeddings import OpenAIEmbeddings
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.openai_images import OpenAIImagesEmulator
from tests.emulators.openai_responses import ResponsesEmulator


def _chats() -> OpenAIEmulator:
    """Return the fake of chats, which has the model that the tests name, and is asked for it as its row says."""
    made = ResponsesEmulator()
    made.newer = {"gpt-6-astra"}
    return made


_PLUGIN: Final = '''
"""The tests know one key, ask for a response by an id that nobody has, and make some of no model."""

import json
import os
import sys
import urllib.request

from openai._base_client import BaseClient

KEY, URL = os.environ["MOA_API_KEY"], os.environ["TEST_API_BASE_URL"]
IDS = ("resp_677efb5139a88190b512bc3fef8e535d", "response_id")
ASKED = {"model": "gpt-4o-mini", "input": "hi"}
built = BaseClient._build_request


def asked(method, url, body):
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        data = answer.read()
    if data.startswith(b"event: "):
        # A stream, whose events tell the response.
        return json.loads(next(line for line in data.splitlines() if line.startswith(b"data: "))[6:])["response"]
    return json.loads(data)


def stored(**more):
    return asked("POST", f"{URL}/responses", {**ASKED, "store": True, **more})["id"]


def build(self, options, **more):
    parts = options.url.strip("/").split("/")
    if parts[0] == "responses" and len(parts) > 1 and parts[1] in IDS:
        streams = (options.params or {}).get("stream") is True
        background = {"background": True, "stream": streams} if parts[-1] == "cancel" or streams else {}
        parts[1] = stored(**background)
        options.url = "/" + "/".join(parts)
    if options.method == "post" and options.url in ("/responses", "/responses/input_tokens"):
        options.json_data = {**ASKED, **(options.json_data or {})}
    return built(self, options, **more)


def pytest_collection_finish(session):
    sys.modules["tests.conftest"].api_key = KEY
    asked("PATCH", URL.removesuffix("/v1") + "/account/me", {"stores_responses": True})
    BaseClient._build_request = build
'''


SUITE: Final = Suite(
    client="openai",
    under="tests/api_resources",
    files=(
        *("chat/test_completions.py", "test_embeddings.py", "test_images.py", "test_models.py", "test_responses.py"),
        *("responses/test_input_items.py", "responses/test_input_tokens.py"),
    ),
    path="src",
    hosts=lambda: {
        "openai-text": (_chats(), "/v1"),
        "openai-embedding": (OpenAIEmbeddings(), "/v1"),
        "openai-image": (OpenAIImagesEmulator(), "/v1"),
    },
    names={"gpt-image-1": ["gpt-image-1.5"]},
    credentials={"OPENAI_API_KEY": "sk-good"},
    plugin=_PLUGIN,
    environment=lambda stack: {"TEST_API_BASE_URL": f"{stack.url}/v1"},
    options=("-n", "0"),
    refused={
        r"test_completions.*(method|response)_(retrieve|update|list|delete)": "refused: answers are not kept here",
        r"test_completions.*create_with_all_params": "refused: no tokens, audio and a web search in one",
        r"test_embeddings.*response_create\[(strict|aiohttp)|test_embeddings.*method_create\[(strict|aiohttp)": (
            "failed: the client asks for base64 and its strict type has numbers alone"
        ),
        r"test_images.*(edit|variation)": "refused: the image is the text 'Example data'",
        r"test_images.*generate_with_all_params": "refused: moving pictures, which no model makes",
        r"test_responses.*create_with_all_params|test_input_tokens.*with_all_params": (
            "refused: an earlier response, a conversation and a prompt that nobody has"
        ),
        r"test_responses.*compact": "refused: conversations are not shortened here",
        r"test_input_items.*with_all_params": "refused: an item that nobody has",
        r"test_models.*(method|response)_delete": "refused: models are the operator's",
    },
)
