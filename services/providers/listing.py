"""What a source of models is: how a protocol lists what its provider has, as steps over values.

An adapter does no I/O here either: it yields the requests and is sent their bodies, page by page and place by place,
and returns the models. Sending, waiting and bounds are `services.providers.hosting.lists`, once for all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from services.catalogue import MOST_LISTED, ListedModel, Provider, is_name
from services.common.errors import UpstreamBroken
from services.providers.http.client import Outgoing

T = TypeVar("T")

Steps = Generator[Outgoing, bytes, list[ListedModel]]
"""Yields what is asked, is sent each answer's body, or has its refusal raised (MoaError), and returns the models."""
Lister = Callable[[Provider], Steps]
"""Begins to list a provider's models."""

KEPT_S: Final = 300.0
"""How long a list is good, less a random tenth, so that processes do not ask together."""

_MOST_TOKENS: Final = 1_000_000_000
_LATEST: Final = 1 << 40
_MOST_WORDS: Final = 32


def read(body: bytes, shape: type[T]) -> T:
    """Return a page as `shape`. Raises UpstreamBroken for one that is none."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamBroken("the provider's list of models cannot be read") from error


def entries(rows: Sequence[msgspec.Raw], shape: type[T]) -> list[T]:
    """Return the entries of a list that are `shape`: one that cannot be read takes none of the others with it.

    Raises UpstreamBroken where there are entries and none can be read.
    """
    found = []
    for row in rows:
        with contextlib.suppress(UpstreamBroken):
            found.append(read(bytes(row), shape))
    if rows and not found:
        raise UpstreamBroken("the provider's list of models cannot be read")
    return found


def whole(value: Any) -> int:
    """Return a number of a list; 0 for what is none."""
    return int(value) if isinstance(value, int | float) and 0 < value < _LATEST else 0


def bounded(models: Iterable[ListedModel]) -> dict[str, ListedModel]:
    """Return a list's models by id: only ids that can be asked for, once each, with sane numbers."""
    found: dict[str, ListedModel] = {}
    for model in models:
        if len(found) >= MOST_LISTED:
            break
        if model.id in found or not is_name(model.id):
            continue
        found[model.id] = ListedModel(
            id=model.id,
            upstream=model.upstream,
            makes=model.makes,
            base=model.base if is_name(model.base) else "",
            created=whole(model.created),
            context_tokens=min(whole(model.context_tokens), _MOST_TOKENS),
            max_output_tokens=min(whole(model.max_output_tokens), _MOST_TOKENS),
            capabilities=frozenset(sorted(model.capabilities)[:_MOST_WORDS]),
            lacks=frozenset(sorted(model.lacks)[:_MOST_WORDS]),
        )
    return found
