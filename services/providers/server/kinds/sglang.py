"""SGLang: `/model_info` (`/get_model_info` before) tells whether its model writes, and what it sees.

https://docs.sglang.ai/basic_usage/native_api.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from services.catalogue import ListedModel
from services.providers.server.asking import Asking, asked, words


class _Info(Struct):
    is_generation: bool
    has_image_understanding: Any = None
    reasoning_parser: Any = None
    tool_call_parser: Any = None


def facts_of(root: str, models: Mapping[str, ListedModel]) -> Asking[Mapping[str, ListedModel] | None]:
    """Return the models, which are one, and what is tuned of it."""
    info = yield from asked(f"{root}/model_info", _Info)
    if info is None:
        info = yield from asked(f"{root}/get_model_info", _Info)
    if info is None:
        return None
    can, lacks = words({"vision": info.has_image_understanding})
    can |= {"tools"} if info.tool_call_parser else frozenset()
    can |= {"reasoning"} if info.reasoning_parser else frozenset()
    makes = "text" if info.is_generation else "embedding"
    return {
        name: msgspec.structs.replace(model, makes=makes, capabilities=can, lacks=lacks)
        for name, model in models.items()
    }
