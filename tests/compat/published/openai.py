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


SUITE: Final = Suite(
    client="openai",
    under="tests/api_resources",
    files=("chat/test_completions.py", "test_embeddings.py", "test_images.py", "test_models.py"),
    path="src",
    hosts=lambda: {
        "openai-text": (_chats(), "/v1"),
        "openai-embedding": (OpenAIEmbeddings(), "/v1"),
        "openai-image": (OpenAIImagesEmulator(), "/v1"),
    },
    names={"gpt-image-1": ["gpt-image-1.5"]},
    credentials={"OPENAI_API_KEY": "sk-good"},
    # The tests know one key, which no gateway has.
    plugin=(
        "import os, sys\n"
        "def pytest_collection_finish(session):\n"
        "    sys.modules['tests.conftest'].api_key = os.environ['MOA_API_KEY']\n"
    ),
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
        r"test_models.*(method|response)_delete": "refused: models are the operator's",
    },
)
