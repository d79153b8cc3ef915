"""What a server of one's own has: its list of models, and what it tells of them in its own words.

`/v1/models` names the models, and often the server by `owned_by`. What else it tells is asked where that server has it,
or at each place in turn where nobody knows which server it is; a place that is not there is one answer more. What no
server tells stays unknown: its own refusal decides then.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Struct

from services.catalogue import ListedModel, Provider, is_name
from services.common.errors import MoaError
from services.providers.listing import KEPT_S, Steps, entries, whole
from services.providers.server.address import root_of
from services.providers.server.asking import Asking, asked, get
from services.providers.server.kinds import llama_cpp, lm_studio, ollama, sglang, tgi

EVERY_S: Final = 15.0
"""How often a server is asked: it is near, and may be started again with another model, or not at all."""

Kind = Callable[[str, Mapping[str, ListedModel]], Asking[Mapping[str, ListedModel] | None]]
"""Returns the models with what a server of that kind tells of them; None where it is of another kind."""

_KINDS: Final[Mapping[str, tuple[Kind, ...]]] = {
    "vllm": (),
    "sglang": (sglang.facts_of,),
    "llamacpp": (llama_cpp.facts_of,),
    "library": (ollama.facts_of,),
    "organization_owner": (lm_studio.facts_of,),
}
"""By `owned_by`; vLLM tells the context in its list and nothing else."""
_OTHERS: Final = (ollama.facts_of, lm_studio.facts_of, sglang.facts_of, llama_cpp.facts_of, tgi.facts_of)
_STEP: Final = re.compile(r"[/\\]")
_Row = dict[str, Any]
_MOST_KEPT: Final = 256
_LONGEST_PATH: Final = 4096
_TASKS: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "T2I": ("image", frozenset()),
    "I2I": ("image", frozenset({"edit"})),
    "TI2I": ("image", frozenset({"edit"})),
}
"""What SGLang's image servers call what they do; all else is of videos."""


class _Model(Struct):
    id: str
    owned_by: Any = None
    max_model_len: Any = None
    task_type: Any = None


class _Models(Struct):
    data: list[msgspec.Raw]


@dataclass(frozen=True)
class _Kept:
    """What a server told beside a list of its models."""

    rows: bytes
    """The list, but for when it was made: servers write the time of the question there."""
    until: float
    models: Sequence[ListedModel]


class _OneModel(Struct):
    """What SGLang's image servers tell of the only one that they have."""

    model_path: str
    task_type: str


class _Described(Struct):
    paths: dict[str, msgspec.Raw] = {}


class Discovery:
    """Lists servers' models. What a server tells beside its list is asked again when the list changes, or is old.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    def list_models(self, provider: Provider) -> Steps:
        """List the models with what is told of them; each has what it makes."""
        root = root_of(provider.base_url)
        try:
            page = yield from get(f"{root}/v1/models", _Models)
        except MoaError as error:
            only = yield from asked(f"{root}/models", _OneModel)
            if only is None:
                raise error
            page = _Models([msgspec.Raw(msgspec.json.encode({"id": only.model_path, "task_type": only.task_type}))])
        rows = entries(page.data, _Row)
        encoded = msgspec.json.encode([{**row, "created": None} for row in rows])
        kept = self._kept.get(root)
        if kept is None or kept.rows != encoded or self._clock() >= kept.until:
            models = yield from _details(root, entries(page.data, _Model))
            kept = _Kept(encoded, self._clock() + KEPT_S, models)
            if root not in self._kept and len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[root] = kept
        return list(kept.models)


def _details(root: str, rows: list[_Model]) -> Asking[list[ListedModel]]:
    """Return a server's models with what it tells of them beside its list."""
    found = {model.id: _listed(model) for model in rows}
    owners = {model.owned_by for model in rows if isinstance(model.owned_by, str)}
    owner = owners.pop() if len(owners) == 1 else ""
    for kind in _KINDS.get(owner, _OTHERS) if not any(each.makes for each in found.values()) else ():
        facts = yield from kind(root, found)
        if facts is not None:
            found = dict(facts)
            break
    listed = [_named(model) for model in found.values()]
    if all(model.makes for model in listed):
        return listed
    made = yield from _made(root, owner)
    return [model if model.makes else msgspec.structs.replace(model, makes=_of(made, model)) for model in listed]


def _named(model: ListedModel) -> ListedModel:
    """Return a model by a name that can be asked for: of one that is called by its file's path, the file's."""
    file = _STEP.split(model.id[:_LONGEST_PATH])[-1]
    if is_name(model.id) or not is_name(file):
        return model
    return msgspec.structs.replace(model, id=file, upstream=model.id)


def _listed(model: _Model) -> ListedModel:
    makes, can = "", frozenset[str]()
    if isinstance(model.task_type, str):
        makes, can = _TASKS.get(model.task_type, ("video", frozenset()))
    return ListedModel(
        id=model.id,
        makes=makes,
        context_tokens=whole(model.max_model_len),
        capabilities=can,
    )


def _made(root: str, owner: str) -> Generator[Any, bytes, frozenset[str]]:
    """Return what the paths that a server describes are for; only vLLM's differ by what it serves."""
    described = (yield from asked(f"{root}/openapi.json", _Described)) if owner == "vllm" else None
    paths = described.paths if described is not None else {}
    known = {"text": "/v1/chat/completions", "embedding": "/v1/embeddings", "image": "/v1/images/generations"}
    return frozenset(made for made, path in known.items() if path in paths)


def _of(made: frozenset[str], model: ListedModel) -> str:
    """Return what a model of which only the server's paths tell makes: one of images has no context."""
    if "image" in made and not model.context_tokens:
        return "image"
    return "embedding" if "embedding" in made and "text" not in made else "text"


list_models: Final = Discovery().list_models
"""For all adapters of a process, which ask the same servers."""
