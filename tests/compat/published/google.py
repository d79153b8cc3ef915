"""The tests that Google publishes: each asks a method as a user would, and checks what came back.

They are made for replays of Google's own answers; here they ask a gateway over a fake that reads what it is asked.
"""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Final

from PIL import Image

from tests.compat.published.attentive import AttentiveGemini
from tests.compat.published.suite import Suite
from tests.emulators.embeddings import GeminiEmbeddings
from tests.emulators.gemini_images import GeminiImagesEmulator

_PLUGIN: Final = """
import os
from google.genai import _replay_api_client, types

begun = _replay_api_client.ReplayApiClient.__init__

def begin(self, *arguments, vertexai=False, http_options=None, **more):
    if not vertexai:
        http_options = types.HttpOptions.model_validate(http_options or {}).model_copy()
        http_options.base_url = os.environ["GOOGLE_GEMINI_BASE_URL"]
    begun(self, *arguments, vertexai=vertexai, http_options=http_options, **more)

_replay_api_client.ReplayApiClient.__init__ = begin
"""
"""Let the tests' client ask the gateway, which it would do only for some of them."""


def _files(source: Path) -> None:
    """Make the files that the tests send: the source package has none."""
    folder = source / "google/genai/tests/data"
    folder.mkdir(exist_ok=True)
    picture = Image.effect_noise((64, 64), 50).convert("RGB")
    for name in ("google.png", "google_homepage.png", "checkerboard.png", "google.jpg"):
        picture.save(folder / name)
    Image.new("RGB", (64, 64)).save(folder / "story.pdf")
    with wave.open(str(folder / "voice_sample.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    (folder / "animal.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(20))
    (folder / "pixel.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(20))
    (folder / "story.txt").write_text("Once.")


SUITE: Final = Suite(
    client="google-genai",
    lock="google-genai-tests",
    under="google/genai/tests",
    files=(
        "chats/test_continuation_token.py",
        "chats/test_get_history.py",
        "chats/test_send_message.py",
        "chats/test_validate_response.py",
        "models/test_count_tokens.py",
        "models/test_embed_content.py",
        "models/test_function_call_streaming.py",
        "models/test_generate_content.py",
        "models/test_generate_content_cached_content.py",
        "models/test_generate_content_config_zero_value.py",
        "models/test_generate_content_from_apikey.py",
        "models/test_generate_content_http_options.py",
        "models/test_generate_content_image_generation.py",
        "models/test_generate_content_mcp.py",
        "models/test_generate_content_media_resolution.py",
        "models/test_generate_content_model.py",
        "models/test_generate_content_part.py",
        "models/test_generate_content_thought.py",
        "models/test_generate_content_tools.py",
        "models/test_generate_images.py",
        "models/test_get.py",
        "models/test_list.py",
    ),
    hosts=lambda: {
        "gemini-text": (AttentiveGemini(), "/v1beta"),
        "gemini-embedding": (GeminiEmbeddings(), "/v1beta"),
        "gemini-image": (GeminiImagesEmulator(), "/v1beta"),
    },
    names={
        "gemini-2.5-flash": ["gemini-2.0-flash-001"],
        "gemini-3.8-flash": ("gemini-flash-latest", "gemini-3-flash-preview", "gemini-3-pro-preview"),
        "gemini-3.5-flash": ("gemini-3.1-pro-preview",),
        "gemini-embedding-001": ["text-embedding-005", "gemini-embedding-2", "gemini-embedding-2-preview"],
    },
    credentials={"GEMINI_API_KEY": "AIza-good"},
    plugin=_PLUGIN,
    environment=lambda stack: {
        "GOOGLE_GEMINI_BASE_URL": stack.url,
        "GOOGLE_API_KEY": stack.api_key,
        "GOOGLE_GENAI_RUN_GEMINI_ONLY_IN_API_MODE": "1",
        "GOOGLE_GENAI_REPLAYS_DIRECTORY": str(stack.root / "replays"),
        "GOOGLE_CLOUD_PROJECT": "none",
        "GOOGLE_CLOUD_LOCATION": "none",
    },
    options=(
        *("-o", "asyncio_mode=auto", "-o", "consider_namespace_packages=true", "-o", "junit_family=xunit1"),
        *("-W", "ignore", "--tb=short", "--continue-on-collection-errors", "--mode", "api", "-k", "not True-"),
    ),
    prepare=_files,
    elsewhere={
        r"test_stream_parts|start_with_models_stream_async": "other: they count pieces, and what comes together is one",
        r"custom_url": "other: they ask a host of Google's own",
        r"test_(image_(png|jpg)|external|uploaded)_file_uri": "other: pictures are fetched from hosts of Google",
    },
    refused={
        r"test_(get_mldev|async_get)_tuned_model|test_list.*tuned_models(\[|_with|_async)": (
            "refused: models are not tuned here"
        ),
        r"cached_content_(for_mldev|partial_mldev|partial_vertex_resource_name_[12])": "refused: none are kept here",
        r"file_search|test_file\[|(pdf|video_mp4|audio_m4a)_file_uri|offset_and_fps": (
            "refused: files that are stored at Google are the operator's"
        ),
        r"test_from_(file|uploaded)|low_media_resolution": "refused: files are sent inside a request",
        r"google_maps_(tool|with_enable)": "refused: it costs more than tokens",
        r"speech|voice_config|transcription|audio_wav_input": "refused: no row has the model",
        r"test_new_api_(gcs|inline)|content_combination": "refused: only texts are embedded",
        r"test_sync_stream_with_non_text_modality": "refused: the model is retired",
        r"test_(extra_body|labels|service_tier|function_google_search\[)|with_response_logprobs_true": (
            "otherwise: the fake refuses more or less than Google"
        ),
        r"test_logprobs_zero\[": "otherwise: refused in the gateway's own words",
        r"test_publisher_model": "otherwise: a vendor's name before a model is taken",
        r"test_base_models_pager": "otherwise: answers are not compressed",
        r"non_empty_last_chunk|schema_with_streaming": (
            "otherwise: the last piece says how the answer ended, and has no words"
        ),
        r"2_function_with_history|test_generate_content_mcp.*test_mcp_tools_(async|with|synchronous)": (
            "otherwise: calls have ids here"
        ),
        r"test_send_message\.test_(async_)?mcp_tools": "otherwise: calls without answers, which the fake refuses",
        r"code_execution_tool|tool_call_echo|afc_thoughts|usage_metadata_part_types|optional_none|nested_list_of_p": (
            "otherwise: the fake runs no code, searches nothing, counts no kinds, and fills every field"
        ),
    },
)
