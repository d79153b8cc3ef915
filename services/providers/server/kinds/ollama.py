"""Ollama: `/api/show` tells what a model can do, `/api/ps` with how long a context it runs.

https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from services.catalogue import ListedModel
from services.providers.listing import whole
from services.providers.server.asking import Asking, asked

MOST_SHOWN: Final = 40
"""Of how many models more is asked; a list takes so many requests at most."""
_CONTEXT: Final = re.compile(r"^num_ctx\s+(\d{1,9})\s*$", re.MULTILINE)
_WORDS: Final = {"tools": "tools", "vision": "vision", "thinking": "reasoning"}


class _Version(Struct):
    version: str


class _Running(Struct):
    name: str
    context_length: Any = None


class _Runs(Struct):
    models: list[_Running] = []


class _Shown(Struct):
    capabilities: list[Any] | None = None
    parameters: Any = None


def facts_of(root: str, models: Mapping[str, ListedModel]) -> Asking[Mapping[str, ListedModel] | None]:
    """Return the models with what they can do. A model's own longest context is none that it runs with."""
    if (yield from asked(f"{root}/api/version", _Version)) is None:
        return None
    runs = yield from asked(f"{root}/api/ps", _Runs)
    contexts = {each.name: whole(each.context_length) for each in runs.models} if runs is not None else {}
    found = dict(models)
    for name in list(models)[:MOST_SHOWN]:
        shown = yield from asked(f"{root}/api/show", _Shown, {"model": name})
        if shown is not None:
            found[name] = _with_facts(models[name], shown, contexts.get(name, 0))
    return found


def _with_facts(model: ListedModel, shown: _Shown, context: int) -> ListedModel:
    given = _CONTEXT.search(shown.parameters) if isinstance(shown.parameters, str) else None
    context = context or (int(given[1]) if given is not None else 0)
    words = shown.capabilities
    if not words:
        return msgspec.structs.replace(model, context_tokens=context)
    can = frozenset(ours for theirs, ours in _WORDS.items() if theirs in words)
    return msgspec.structs.replace(
        model,
        makes="embedding" if "embedding" in words and "completion" not in words else "text",
        context_tokens=context,
        capabilities=can,
        lacks=frozenset(_WORDS.values()) - can,
    )
