"""Servers of one's own by what they answer, as their documentation and source tell it.

vLLM: docs.vllm.ai, "OpenAI-compatible server"; SGLang: `python/sglang/srt/entrypoints/http_server.py`
and `docs/diffusion/openai_api.md`; Ollama: `docs/api.md`; llama.cpp: `tools/server/README.md`; llama-cpp-python: its
server, asked; TGI: its API reference; LM Studio: lmstudio.ai/docs/developer/rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from services.catalogue import ListedModel

Json = Any


def models(*ids: str, owner: str, **more: Json) -> Json:
    """Return a list of OpenAI's form."""
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 1790000000, "owned_by": owner, **more} for name in ids],
    }


def paths(*names: str) -> Json:
    """Return a description of a server that has some paths."""
    return {"openapi": "3.1.0", "paths": {name: {"post": {}} for name in names}}


@dataclass(frozen=True)
class Recorded:
    """What a server answers by path, and what is known of its models then."""

    answers: Mapping[str, Json]
    known: tuple[ListedModel, ...]


def known(name: str, makes: str, context: int = 0, can: str = "", lacks: str = "") -> ListedModel:
    """Return what is known of a model."""
    return ListedModel(
        id=name,
        makes=makes,
        context_tokens=context,
        capabilities=frozenset(can.split()),
        lacks=frozenset(lacks.split()),
    )


CHAT: Final = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
QWEN: Final = "Qwen/Qwen3-8B"
SHOWN: Final = {
    "qwen3:8b": {
        "parameters": 'num_ctx                        16384\nstop                           "<|im_end|>"',
        "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40960},
        "capabilities": ["completion", "tools", "thinking"],
    },
    "gemma3:4b": {"model_info": {"gemma3.context_length": 131072}, "capabilities": ["completion", "vision"]},
    "nomic-embed-text:latest": {"model_info": {"nomic-bert.context_length": 2048}, "capabilities": ["embedding"]},
    "old:latest": {"details": {"family": "llama"}},
}

SERVERS: Final[Mapping[str, Recorded]] = {
    "vLLM": Recorded(
        {
            "/v1/models": models(QWEN, "tuned", owner="vllm", root=QWEN, parent=None, max_model_len=40960),
            "/openapi.json": paths(*CHAT),
        },
        (known(QWEN, "text", 40960), known("tuned", "text", 40960)),
    ),
    "vLLM with vectors": Recorded(
        {"/v1/models": models("e5", owner="vllm", max_model_len=512), "/openapi.json": paths("/v1/embeddings")},
        (known("e5", "embedding", 512),),
    ),
    "vLLM-Omni": Recorded(
        {
            "/v1/models": models("Qwen/Qwen-Image", owner="vllm", max_model_len=None),
            "/openapi.json": paths(*CHAT, "/v1/images/generations", "/v1/images/edits"),
        },
        (known("Qwen/Qwen-Image", "image"),),
    ),
    "vLLM that describes nothing": Recorded(
        {"/v1/models": models(QWEN, owner="vllm", max_model_len=40960)}, (known(QWEN, "text", 40960),)
    ),
    "SGLang": Recorded(
        {
            "/v1/models": models("Qwen/Qwen2.5-VL-7B", owner="sglang", root="x", max_model_len=128000),
            "/model_info": {"model_path": "x", "is_generation": True, "has_image_understanding": True},
        },
        (known("Qwen/Qwen2.5-VL-7B", "text", 128000, "vision"),),
    ),
    "SGLang before": Recorded(
        {
            "/v1/models": models(QWEN, owner="sglang", max_model_len=40960),
            "/get_model_info": {
                "model_path": QWEN,
                "is_generation": True,
                "has_image_understanding": False,
                "reasoning_parser": "qwen3",
                "tool_call_parser": "qwen25",
            },
        },
        (known(QWEN, "text", 40960, "reasoning tools", "vision"),),
    ),
    "SGLang with vectors": Recorded(
        {"/v1/models": models("e5", owner="sglang", max_model_len=512), "/model_info": {"is_generation": False}},
        (known("e5", "embedding", 512),),
    ),
    "SGLang behind its router": Recorded(
        {"/v1/models": models(QWEN, owner="local"), "/model_info": {"is_generation": True}}, (known(QWEN, "text"),)
    ),
    "SGLang's images": Recorded(
        {"/models": {"model_path": "Qwen/Qwen-Image-Edit", "task_type": "TI2I", "pipeline_name": "x", "num_gpus": 1}},
        (known("Qwen/Qwen-Image-Edit", "image", 0, "edit"),),
    ),
    "SGLang's videos": Recorded(
        {"/models": {"model_path": "Wan-AI/Wan2.1", "task_type": "T2V"}}, (known("Wan-AI/Wan2.1", "video"),)
    ),
    "Ollama": Recorded(
        {
            "/v1/models": models(*SHOWN, owner="library"),
            "/api/version": {"version": "0.12.0"},
            "/api/ps": {"models": [{"name": "gemma3:4b", "model": "gemma3:4b", "context_length": 8192}]},
            "/api/show": SHOWN,
        },
        (
            known("qwen3:8b", "text", 16384, "tools reasoning", "vision"),
            known("gemma3:4b", "text", 8192, "vision", "tools reasoning"),
            known("nomic-embed-text:latest", "embedding", 0, "", "tools reasoning vision"),
            known("old:latest", "text"),
        ),
    ),
    "llama.cpp": Recorded(
        {
            "/v1/models": models("/models/gemma-3-4b.gguf", "gemma", owner="llamacpp", meta={"n_ctx_train": 131072}),
            "/props": {
                "default_generation_settings": {"id": 0, "n_ctx": 8192, "params": {}},
                "total_slots": 4,
                "modalities": {"vision": True, "audio": False},
                "chat_template_caps": {"supports_tools": True},
            },
        },
        (
            msgspec.structs.replace(
                known("gemma-3-4b.gguf", "text", 8192, "vision tools"), upstream="/models/gemma-3-4b.gguf"
            ),
            known("gemma", "text", 8192, "vision tools"),
        ),
    ),
    "llama-cpp-python": Recorded(
        {"/v1/models": models("tiny", owner="me", permissions=[]), "/openapi.json": paths(*CHAT)},
        (known("tiny", "text"),),
    ),
    "TGI": Recorded(
        {
            "/v1/models": models("HuggingFaceH4/zephyr-7b-beta", owner="HuggingFaceH4/zephyr-7b-beta"),
            "/info": {
                "model_id": "HuggingFaceH4/zephyr-7b-beta",
                "model_pipeline_tag": "text-generation",
                "max_input_tokens": 1024,
                "max_total_tokens": 2048,
                "router": "text-generation-router",
            },
        },
        (known("HuggingFaceH4/zephyr-7b-beta", "text", 2048),),
    ),
    "LM Studio": Recorded(
        {
            "/v1/models": models("google/gemma-3-4b", "qwen3-8b", "nomic", owner="organization_owner"),
            "/api/v1/models": {
                "models": [
                    {
                        "type": "llm",
                        "key": "google/gemma-3-4b",
                        "loaded_instances": [{"id": "a", "config": {"context_length": 8192}}],
                        "max_context_length": 131072,
                        "capabilities": {"vision": True, "trained_for_tool_use": False},
                    },
                    {
                        "type": "llm",
                        "key": "qwen3-8b",
                        "loaded_instances": [],
                        "max_context_length": 40960,
                        "capabilities": {
                            "vision": False,
                            "trained_for_tool_use": True,
                            "reasoning": {"allowed_options": ["off", "low"]},
                        },
                    },
                    {"type": "embedding", "key": "nomic", "max_context_length": 2048},
                ]
            },
        },
        (
            known("google/gemma-3-4b", "text", 8192, "vision"),
            known("qwen3-8b", "text", 0, "tools reasoning", "vision"),
            known("nomic", "embedding"),
        ),
    ),
    "LM Studio before 0.4": Recorded(
        {
            "/v1/models": models("qwen2-vl-7b", "nomic", owner="organization_owner"),
            "/api/v0/models": {
                "object": "list",
                "data": [
                    {"id": "qwen2-vl-7b", "type": "vlm", "state": "loaded", "loaded_context_length": 4096},
                    {"id": "nomic", "type": "embeddings", "state": "not-loaded", "max_context_length": 2048},
                ],
            },
        },
        (
            known("qwen2-vl-7b", "text", 4096, "vision"),
            known("nomic", "embedding", 0, "", "vision"),
        ),
    ),
    "another": Recorded({"/v1/models": models("m", owner="somebody")}, (known("m", "text"),)),
}
"""By name."""
