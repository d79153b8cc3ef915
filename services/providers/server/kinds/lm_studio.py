"""LM Studio: `/api/v1/models`, and `/api/v0/models` of versions before 0.4, tell kinds, abilities and loaded contexts.

https://lmstudio.ai/docs/developer/rest
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from services.catalogue import ListedModel
from services.providers.listing import whole
from services.providers.server.asking import Asking, asked, words


class _Config(Struct):
    context_length: Any = None


class _Instance(Struct):
    config: _Config = msgspec.field(default_factory=_Config)


class _Abilities(Struct):
    vision: Any = None
    trained_for_tool_use: Any = None
    reasoning: Any = None


class _Model(Struct):
    key: str
    type: str = "llm"
    loaded_instances: list[_Instance] = []
    capabilities: _Abilities = msgspec.field(default_factory=_Abilities)


class _Models(Struct):
    models: list[_Model]


class _OldModel(Struct):
    id: str
    type: str = "llm"
    loaded_context_length: Any = None
    capabilities: list[Any] | None = None


class _OldModels(Struct):
    data: list[_OldModel]


def facts_of(root: str, models: Mapping[str, ListedModel]) -> Asking[Mapping[str, ListedModel] | None]:
    """Return the models with what is told of them; the context of one that is not loaded is not known."""
    page = yield from asked(f"{root}/api/v1/models", _Models)
    if page is not None:
        return _joined(models, map(_with_facts, page.models))
    old = yield from asked(f"{root}/api/v0/models", _OldModels)
    return _joined(models, map(_with_older_facts, old.data)) if old is not None else None


def _joined(models: Mapping[str, ListedModel], more: Iterable[ListedModel]) -> Mapping[str, ListedModel]:
    known = {model.id: model for model in more}
    return {name: known.get(name, model) for name, model in models.items()}


def _with_facts(model: _Model) -> ListedModel:
    tells = model.capabilities
    reasons = tells.reasoning if isinstance(tells.reasoning, bool) else True if tells.reasoning else None
    can, lacks = words({"vision": tells.vision, "tools": tells.trained_for_tool_use, "reasoning": reasons})
    contexts = [length for each in model.loaded_instances if (length := whole(each.config.context_length))]
    makes = "embedding" if model.type.startswith("embedding") else "text"
    # One that is not trained for tools is told of them in words, and may use them.
    lacks -= {"tools"}
    return ListedModel(
        id=model.key, makes=makes, context_tokens=min(contexts, default=0), capabilities=can, lacks=lacks
    )


def _with_older_facts(model: _OldModel) -> ListedModel:
    sees = {"vision"} if model.type == "vlm" else frozenset()
    calls = {"tools"} if "tool_use" in (model.capabilities or ()) else frozenset()
    return ListedModel(
        id=model.id,
        makes="embedding" if model.type.startswith("embedding") else "text",
        context_tokens=whole(model.loaded_context_length),
        capabilities=frozenset(sees | calls),
        lacks=frozenset() if sees else frozenset({"vision"}),
    )
