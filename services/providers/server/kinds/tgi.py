"""Text Generation Inference: `/info` tells how long prompt and answer may be together.

https://huggingface.co/docs/text-generation-inference/reference/api_reference
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from services.catalogue import ListedModel
from services.providers.listing import whole
from services.providers.server.asking import Asking, asked


class _Info(Struct):
    model_id: str
    max_total_tokens: Any
    model_pipeline_tag: Any = None


def facts_of(root: str, models: Mapping[str, ListedModel]) -> Asking[Mapping[str, ListedModel] | None]:
    """Return the models, which are one."""
    info = yield from asked(f"{root}/info", _Info)
    if info is None:
        return None
    sees = frozenset({"vision"}) if info.model_pipeline_tag == "image-text-to-text" else frozenset[str]()
    context = whole(info.max_total_tokens)
    return {
        name: msgspec.structs.replace(model, makes="text", context_tokens=context, capabilities=sees)
        for name, model in models.items()
    }
