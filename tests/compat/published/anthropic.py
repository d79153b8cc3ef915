"""The tests that Anthropic publishes: each asks a method with few or all parameters, and checks the answer's types."""

from __future__ import annotations

from typing import Final

from tests.compat.published.suite import Suite
from tests.emulators import anthropic_requests
from tests.emulators.anthropic import AnthropicEmulator

_ENDING: Final = ("claude-mythos-preview", "claude-opus-4-5", "claude-opus-4-5-20251101")
"""Models of which the client warns."""

_PLUGIN: Final = '''
"""The tests know one key, and ask for a model and a batch by ids that nobody has."""

import json
import os
import sys
import time
import urllib.request

from anthropic._base_client import BaseClient

KEY, URL = os.environ["MOA_API_KEY"], os.environ["TEST_API_BASE_URL"]
ID = "message_batch_id"
PARAMS = {"model": "claude-opus-4-5", "max_tokens": 16, "messages": [{"role": "user", "content": "hi"}]}
built = BaseClient._build_request


def asked(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    request = urllib.request.Request(URL + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def ended():
    """Return the id of a batch that has ended."""
    made = asked("POST", "/v1/messages/batches", {"requests": [{"custom_id": "a", "params": PARAMS}]})["id"]
    until = time.monotonic() + 30
    while asked("GET", f"/v1/messages/batches/{made}")["processing_status"] != "ended":
        assert time.monotonic() < until
        time.sleep(0.05)
    return made


def build(self, options, **more):
    if f"/batches/{ID}" in options.url:
        options.url = options.url.replace(ID, ended())
    return built(self, options, **more)


def pytest_collection_finish(session):
    sys.modules["tests.conftest"].api_key = KEY
    BaseClient._build_request = build
'''


SUITE: Final = Suite(
    client="anthropic",
    lock="anthropic-tests",
    under="tests/api_resources",
    files=(
        *("test_messages.py", "test_models.py", "beta/test_messages.py", "beta/test_models.py"),
        *("messages/test_batches.py", "beta/messages/test_batches.py"),
    ),
    path="src",
    hosts=lambda: {"anthropic-text": (AnthropicEmulator(), "")},
    # Models that no row has.
    names={
        anthropic_requests.NEWEST: ["model_id", "claude-mythos-preview", "claude-opus-4-5", "claude-opus-4-5-20251101"]
    },
    credentials={"ANTHROPIC_API_KEY": anthropic_requests.KEY},
    plugin=_PLUGIN,
    environment=lambda stack: {"TEST_API_BASE_URL": stack.url},
    options=("-n", "0"),
    refused={
        r"list_with_all_params": "refused: pages before and behind models and batches that there are not",
        r"beta\.test_messages.*create_with_all_params": "refused by the vendor: servers of tools, without their beta",
    },
    elsewhere={r"test_batches.*(method|response)_results\[": "the tests answer themselves in the server's place"},
)
