"""llama.cpp's server: `/props` tells the context of a slot, what its model sees and what its template knows.

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from services.catalogue import ListedModel
from services.providers.listing import whole
from services.providers.server.asking import Asking, asked, words


class _Settings(Struct):
    n_ctx: Any = None


class _Modalities(Struct):
    vision: Any = None


class _Template(Struct):
    supports_tools: Any = None


class _Props(Struct):
    default_generation_settings: _Settings
    modalities: _Modalities = msgspec.field(default_factory=_Modalities)
    chat_template_caps: _Template = msgspec.field(default_factory=_Template)


def facts_of(root: str, models: Mapping[str, ListedModel]) -> Asking[Mapping[str, ListedModel] | None]:
    """Return the models, which are one by all its names."""
    props = yield from asked(f"{root}/props", _Props)
    if props is None:
        return None
    can, lacks = words({"vision": props.modalities.vision, "tools": props.chat_template_caps.supports_tools})
    # A template that does not know tools is told of them in words.
    lacks -= {"tools"}
    context = whole(props.default_generation_settings.n_ctx)
    return {
        name: msgspec.structs.replace(model, makes="text", context_tokens=context, capabilities=can, lacks=lacks)
        for name, model in models.items()
    }
