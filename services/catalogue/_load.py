"""Read the catalogue's file and check that it holds together."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from services.catalogue import prepared
from services.catalogue._compact import Checked, Compact, compact_of, read_apart, read_apart_now, row_of
from services.catalogue._defaults import fault_of
from services.catalogue._environment import Environment
from services.catalogue._error import CatalogueError
from services.catalogue._facts import Book, shipped_facts
from services.catalogue._faults import misread, nearest
from services.catalogue._kept import document_in
from services.catalogue._known import filled
from services.catalogue._model import Model, Provider
from services.catalogue._price import ordered
from services.catalogue._prices import price_list
from services.catalogue._route import Route
from services.catalogue._route_faults import fault_of as route_fault
from services.catalogue._servers import VARIABLE, Server, named_in, rows_of
from services.catalogue._snapshot import SLICE, Catalogue, finished
from services.catalogue._virtual import variants_of
from services.catalogue._wildcards import fault_in, is_covered
from services.common import limits
from services.common.operations import CONTRACTS

_LARGE_BYTES: Final = 128 * 1024
"""A file of so many bytes is read by another process at the start too, for the memory that parsing leaves behind."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    providers: list[Provider]
    models: list[Model]
    routes: list[Route] = []
    servers: list[Server] = []


_DIFFUSION = frozenset(
    (
        "aspect_ratio",
        "guidance_scale",
        "negative_prompt",
        "output_format",
        "quality",
        "scheduler",
        "seed",
        "size",
        "steps",
        "strength",
    )
)
"""What the diffusion engine does for every model of one's own."""

_CAPABILITIES: Final = frozenset(
    (
        *(word for each in CONTRACTS.values() for word in limits.words(each.request.DESCRIPTOR)),
        # What is known of a model without a field that asks for it.
        *("prefill", "preview", "reasoning", "references", "search", "variation"),
        # What models do that look at images for Moa's own services.
        *("caption", "detect", "judge"),
    )
)
"""Every word that a model's capabilities may have."""

_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(?::-([^}]*))?\}")


Check = Callable[[Catalogue], str]
"""Returns what is wrong with a catalogue for the process that reads it, like an option that none of its adapters knows,
by row and field; empty when nothing is."""


def _no_fault(catalogue: Catalogue) -> str:
    return ""


Kept = tuple[Path, str]
"""Where an operator's document of facts is kept, and the address that it came from."""


def load(
    path: Path,
    environment: Mapping[str, str] = os.environ,
    check: Check = _no_fault,
    kept: Kept | None = None,
    *,
    text: bytes | None = None,
) -> Catalogue:
    """Read the catalogue at `path`; which providers are configured is decided by `environment`.

    `text` is read as what the file has, if given. Raises CatalogueError with the place of the fault.
    """
    if text is not None:
        return _approved(path, finished(assembled(compact_of(*read_with_facts(path, kept, text)), environment)), check)
    try:
        large = path.stat().st_size >= _LARGE_BYTES
    except OSError as error:
        raise CatalogueError(f"{path}: {error.strerror}") from None
    compact = prepared.rows_of(path, kept[0] if kept is not None else None)
    if compact is None:
        compact = read_apart_now(path, *_words(kept)) if large else compact_of(*read_with_facts(path, kept))
    return _approved(path, finished(assembled(compact, environment)), check)


async def reload(
    path: Path, environment: Mapping[str, str] = os.environ, check: Check = _no_fault, kept: Kept | None = None
) -> Catalogue:
    """As `load`, for a process that serves meanwhile: another one parses, and rows are taken in a few at a time."""
    assembling = assembled(await read_apart(path, *_words(kept)), environment)
    while True:
        try:
            next(assembling)
        except StopIteration as end:
            return _approved(path, end.value, check)
        await asyncio.sleep(0)


def _words(kept: Kept | None) -> tuple[str, ...]:
    return (str(kept[0]), kept[1]) if kept is not None else ()


def read_with_facts(path: Path, kept: Kept | None, text: bytes | None = None) -> tuple[Checked, bytes, str]:
    """Return the file's rows, the kept document that they were filled in with, and why it was left out if it was.

    What is kept was found right when it came: it is left out where it was broken since, or the catalogue has changed so
    that both do not hold together. Raises CatalogueError where the file alone is bad.
    """
    fault = ""
    if kept is not None:
        try:
            if facts := document_in(*kept):
                return checked(path, Book(shipped_facts(), facts), text), facts, ""
        except CatalogueError as error:
            fault = str(error)
    return checked(path, text=text), b"", fault


def _approved(path: Path, catalogue: Catalogue, check: Check) -> Catalogue:
    if fault := check(catalogue):
        raise CatalogueError(f"{path}: {fault}")
    return catalogue


def checked(path: Path, book: Book | None = None, text: bytes | None = None) -> Checked:
    """Return the file's rows, which hold together, with what `book` knows of their models; none: what ships.

    `text` is what the file has; None: it is read. Raises CatalogueError with the place of the fault.
    """
    try:
        text = path.read_bytes() if text is None else text
    except OSError as error:
        raise CatalogueError(f"{path}: {error.strerror}") from None
    try:
        raw = msgspec.yaml.decode(text)
        file = msgspec.convert(raw, _File, builtin_types=(dt.datetime, dt.date))
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise CatalogueError(f"{path}: {misread(text, _File, error)}") from None
    more_providers, more_models = rows_of(file.servers)
    file = msgspec.structs.replace(
        file, providers=[*file.providers, *more_providers], models=[*file.models, *more_models]
    )
    _check(path, file.providers, file.models)
    if fault := route_fault(file.routes, {p.id: p for p in file.providers}, file.models, _CAPABILITIES):
        raise CatalogueError(f"{path}: {fault}")
    providers = {p.id: p for p in file.providers}
    written = [*(row.keys() for row in raw["models"]), *([] for _ in more_models)]
    rows = filled(file.models, written, providers, Book(shipped_facts()) if book is None else book)
    return file.providers, [_located(_able(m, providers[m.provider].makes), path.parent) for m in rows], file.routes


def assembled(compact: Compact, environment: Mapping[str, str]) -> Generator[None, None, Catalogue]:
    """Make the snapshot, `SLICE` rows at a time: it yields between, and returns the snapshot."""
    shared: dict[Any, Any] = {}
    models = []
    for number, raw in enumerate(compact.models, 1):
        models.append(row_of(raw, shared))
        if number % SLICE == 0:
            yield
    more_providers, more_models = rows_of(named_in(environment))
    if taken := {p.id for p in compact.providers} & {p.id for p in more_providers}:
        raise CatalogueError(f"{VARIABLE}: the catalogue has a provider {min(taken)} already; write name=URL")
    models += more_models
    providers = [_settled(p, environment) for p in variants_of((*compact.providers, *more_providers))]
    configured = frozenset(
        p.id for p in providers if _all_set(p.credentials, environment) and (p.adapter == "inference" or p.base_url)
    )
    documents = (shipped_facts(), compact.facts) if compact.facts else (shipped_facts(),)
    book = Book(*documents, fault=compact.facts_fault)
    return (yield from Catalogue.assembled(providers, models, configured, compact.routes, book))


def _able(model: Model, makes: str) -> Model:
    """Return a model with what its engine does for every model."""
    if model.load is None or makes != "image":
        return model
    return msgspec.structs.replace(model, capabilities=model.capabilities | _DIFFUSION)


def _settled(provider: Provider, environment: Mapping[str, str]) -> Provider:
    """Return a provider with its address written out, and with the first credentials that are all set.

    Those that the process itself is told come before stored ones.
    """
    ways = (provider.credentials, *provider.alternatives)
    own = environment.own if isinstance(environment, Environment) else environment
    chosen = next((way for known in (own, environment) for way in ways if _all_set(way, known)), provider.credentials)
    return msgspec.structs.replace(provider, base_url=_expanded(provider.base_url, environment), credentials=chosen)


def _all_set(credentials: Mapping[str, str], environment: Mapping[str, str]) -> bool:
    return all(environment.get(name) or environment.get(f"{name}_FILE") for name in credentials.values())


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda m: environment.get(m[1]) or m[2] or "", text)


def _located(model: Model, folder: Path) -> Model:
    """Make a model's local source absolute, so that every process finds it from wherever it runs."""
    if model.load is None or not (folder / model.load.source).exists():
        return model
    source = str((folder / model.load.source).resolve())
    return msgspec.structs.replace(model, load=msgspec.structs.replace(model.load, source=source))


def _check(path: Path, providers: list[Provider], models: list[Model]) -> None:
    by_id = {p.id: p for p in providers}
    if len(by_id) != len(providers):
        raise CatalogueError(f"{path}: two providers share an id")
    for provider in providers:
        _check_words(f"{path}: provider {provider.id}", provider.capabilities)
        if provider.pool and (provider.adapter != "inference" or provider.makes == "vision"):
            whose = "the inference adapter's providers of models that callers see"
            raise CatalogueError(f"{path}: provider {provider.id}: pool: only {whose} have one")
    seen: set[str] = set()
    for model in models:
        owner = by_id.get(model.provider)
        if owner is None:
            hint = nearest(model.provider, by_id)
            raise CatalogueError(f"{path}: model {model.id}: provider: there is no {model.provider!r}{hint}")
        if model.full_id in seen:
            raise CatalogueError(f"{path}: model {model.full_id} stands twice")
        seen.add(model.full_id)
        if owner.makes == "vision" and owner.adapter != "inference":
            message = f"only the inference adapter has {owner.makes} models"
            raise CatalogueError(f"{path}: provider {owner.id}: {message}")
        if model.known_prices:
            raise CatalogueError(f"{path}: model {model.id}: known_prices is not a row's to say; say prices")
        if fault := ordered(price_list(model.prices)):
            raise CatalogueError(f"{path}: model {model.id}: {fault}")
        _check_words(f"{path}: model {model.id}", model.capabilities)
        if fault := fault_of(model.defaults, owner.makes):
            raise CatalogueError(f"{path}: model {model.id}: {fault}")
        if fault := fault_in(model, owner):
            raise CatalogueError(f"{path}: model {model.id}: {fault}")
        if (model.load is not None) != (owner.adapter == "inference"):
            raise CatalogueError(f"{path}: model {model.id}: `load` belongs to models of the inference adapter")
    _check_successors(path, models)
    _check_fallbacks(path, by_id, models)


def _check_words(where: str, words: Iterable[str]) -> None:
    for word in sorted(frozenset(words) - _CAPABILITIES):
        raise CatalogueError(f"{where}: capabilities: nobody knows {word!r}{nearest(word, _CAPABILITIES)}")


def _check_successors(path: Path, models: list[Model]) -> None:
    """A retired model's successor must be here, and the line of successors must end."""
    named = [model for model in models if not model.is_wildcard]
    by_name = {name: model for model in reversed(named) for name in (model.id, model.full_id)}
    for model in models:
        line, last = {model.full_id}, model
        while last.retirement is not None:
            successor = by_name.get(last.retirement.successor)
            if successor is None and is_covered(last.retirement.successor, models):
                break
            if successor is None:
                name = last.retirement.successor
                hint = nearest(name, by_name)
                raise CatalogueError(f"{path}: model {last.id}: retirement.successor: there is no {name!r}{hint}")
            if successor.full_id in line:
                raise CatalogueError(f"{path}: model {model.id}: its successors go round in a circle")
            line.add(successor.full_id)
            last = successor


def _check_fallbacks(path: Path, providers: Mapping[str, Provider], models: list[Model]) -> None:
    """A model's fallbacks must be here, make what it makes, be named without doubt, and stand once in its chain."""
    by_name: dict[str, list[Model]] = {}
    for model in (model for model in models if not model.is_wildcard):
        for name in (model.id, model.full_id):
            by_name.setdefault(name, []).append(model)
    for model in models:
        chain = {model.full_id}
        for name in model.fallback:
            result = by_name.get(name, [])
            if not result and is_covered(name, models):
                result = [Model(id=name.partition("/")[2], provider=name.partition("/")[0])]
            if not result:
                hint = nearest(name, by_name)
                raise CatalogueError(f"{path}: model {model.full_id}: fallback: there is no {name!r}{hint}")
            if len(result) > 1:
                ids = " or ".join(one.full_id for one in result)
                raise CatalogueError(f"{path}: model {model.full_id}: fallback {name!r} may be {ids}")
            (other,) = result
            if other.full_id in chain:
                raise CatalogueError(f"{path}: model {model.full_id}: its fallbacks come round to {other.full_id}")
            made, wanted = providers[other.provider].makes, providers[model.provider].makes
            if made != wanted:
                raise CatalogueError(
                    f"{path}: model {model.full_id} makes {wanted}, its fallback {other.full_id} {made}"
                )
            chain.add(other.full_id)
