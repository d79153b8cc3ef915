"""The tests that Anthropic publishes: each asks a method with few or all parameters, and checks the answer's types."""

from __future__ import annotations

from typing import Final

from tests.compat.published.suite import Suite
from tests.emulators import anthropic_requests
from tests.emulators.anthropic import AnthropicEmulator

_ENDING: Final = ("claude-mythos-preview", "claude-opus-4-5", "claude-opus-4-5-20251101")
"""Models of which the client warns."""

SUITE: Final = Suite(
    client="anthropic",
    lock="anthropic-tests",
    under="tests/api_resources",
    files=("test_messages.py", "test_models.py", "beta/test_messages.py", "beta/test_models.py"),
    path="src",
    hosts=lambda: {"anthropic-text": (AnthropicEmulator(), "")},
    # Models that no row has.
    names={
        anthropic_requests.NEWEST: ["model_id", "claude-mythos-preview", "claude-opus-4-5", "claude-opus-4-5-20251101"]
    },
    credentials={"ANTHROPIC_API_KEY": anthropic_requests.KEY},
    # The tests know one key, which no gateway has, and ask for a model by what is none.
    plugin=(
        "import os, sys\n"
        "def pytest_collection_finish(session):\n"
        "    sys.modules['tests.conftest'].api_key = os.environ['MOA_API_KEY']\n"
    ),
    environment=lambda stack: {"TEST_API_BASE_URL": stack.url},
    options=("-n", "0"),
    refused={
        r"list_with_all_params": "refused: pages before and behind models that there are not",
        r"beta\.test_messages.*create_with_all_params": "refused by the vendor: servers of tools, without their beta",
    },
)
