"""What is known of providers' models from kept data: a document of facts, read whole or not at all.

The document that ships (`facts.json`) is made by `python -m deploy.facts` from pinned packages. Nothing in it is
guessed: what no source tells is absent.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from services.catalogue._error import CatalogueError
from services.catalogue._faults import misread, nearest
from services.catalogue._price import Price, ordered

SHIPPED_FACTS: Final = Path(__file__).with_name("facts.json")
"""The facts that ship."""
MOST_FACTS_BYTES: Final = 8 * 1024 * 1024
"""A longer document is refused."""
MOST_MODELS: Final = 20_000


class _Named(Struct, frozen=True):
    """A document's families, by their names."""

    families: dict[str, Raw]


_FAMILIES: Final = tuple(msgspec.json.decode(SHIPPED_FACTS.read_bytes(), type=_Named).families)
if TYPE_CHECKING:
    Family = str
else:
    Family = Literal[_FAMILIES]
    """Whose models they are: one of those that the document which ships has."""
Modality = Literal["text", "image", "audio", "video", "file"]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
Word = Literal["vision", "tools", "json_schema", "reasoning", "search", "prefill"]
Tokens = Annotated[int, Meta(ge=1, le=1_000_000_000)]

_SNAPSHOT: Final = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8})$")
"""The date that a snapshot's name ends with."""


class Facts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What is known of one model. Every field may be unknown (None, or empty), and is then nowhere guessed."""

    makes: Literal["text", "image", "embedding"] | None = None
    """What it makes."""
    method: Literal["responses"] | None = None
    """By which of its owner's APIs alone it is asked; None: by the usual one, or unknown."""
    context_tokens: Tokens | None = None
    """Longest prompt and answer together; where only the longest prompt is known, that."""
    max_output_tokens: Tokens | None = None
    """Longest answer."""
    inputs: tuple[Modality, ...] = ()
    """What it takes; empty: unknown."""
    outputs: tuple[Modality, ...] = ()
    """What it gives; empty: unknown."""
    capabilities: tuple[Word, ...] = ()
    """What it is known to do, in the catalogue's words."""
    lacks: tuple[Word, ...] = ()
    """What it is known not to do. A word that is in neither is unknown."""
    prices: tuple[Price, ...] = ()
    """What its owner asks, each from its date on, the oldest first; empty: unknown."""
    retires: dt.date | None = None
    """The day on which its owner stops it."""
    successor: str = ""
    """The id of the same family's model that its owner names instead; empty: unknown."""


class Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where facts were taken from."""

    name: Name
    version: Name
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    """Of the file that was read."""
    licence: Annotated[str, Meta(max_length=100)] = ""


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document of facts, whole."""

    format: Literal[1]
    taken: dt.date
    """The day on which it was made."""
    sources: tuple[Source, ...] = ()
    families: dict[Family, dict[Name, Facts]]
    """The models of each family by their owner's own ids."""


class _Outline(Struct, frozen=True):
    """A document that was checked before, whose models are read when they are asked for."""

    taken: dt.date
    families: dict[str, dict[str, Raw]]


_WHOLE: Final = msgspec.json.Decoder(Document)
_OUTLINE: Final = msgspec.json.Decoder(_Outline)
_ONE: Final = msgspec.json.Decoder(Facts)


class Book:
    """Facts by family and id, of documents that were checked; a later document's models stand before an earlier's.

    Models are kept as they are written and read when they are asked for: thousands cost a process what their text does.
    """

    def __init__(self, *documents: bytes, fault: str = "") -> None:
        self.fault = fault
        """Why a document that was kept is not among them; empty where none was left out."""
        outlines = [_OUTLINE.decode(document) for document in documents]
        self._families: dict[str, dict[str, Raw]] = {}
        for outline in outlines:
            for family, models in outline.families.items():
                self._families.setdefault(family, {}).update(models)
        self.taken: tuple[dt.date, ...] = tuple(outline.taken for outline in outlines)
        """The day on which each document was made."""

    def facts_of(self, family: str, model_id: str) -> Facts | None:
        """Return what is known of a model by its owner's own id; None where nothing is, or the family is unknown.

        `family` is a provider's `facts` (`openai`, `azure`, `gemini`, `bedrock`, `stability`). An id that is not known
        with its snapshot's date (`…-2026-10-26`, `…-20260101`) has the facts of the id without it.
        """
        models = self._families.get(family, {})
        raw = models.get(model_id) or models.get(_SNAPSHOT.sub("", model_id))
        return _ONE.decode(raw) if raw is not None else None

    def ids(self, family: str) -> Iterable[str]:
        """Return the ids of a family of which something is known."""
        return self._families.get(family, {}).keys()


def checked_document(text: bytes, where: str, *, known: Book | None = None) -> Document:
    """Return a document that is right as a whole. Raises CatalogueError with the place of the first fault.

    `known`: what stays known besides, whose models may be named as successors.
    """
    if len(text) > MOST_FACTS_BYTES:
        raise CatalogueError(f"{where}: {len(text)} bytes are more than the {MOST_FACTS_BYTES} that facts may have")
    try:
        document = _WHOLE.decode(text)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
        raise CatalogueError(f"{where}: {_misread(text, error)}") from None
    if sum(map(len, document.families.values())) > MOST_MODELS:
        raise CatalogueError(f"{where}: more than {MOST_MODELS} models")
    for family, models in document.families.items():
        ids = models.keys() | (known.ids(family) if known is not None else ())
        for name, facts in models.items():
            if fault := _fault(facts, ids):
                raise CatalogueError(f"{where}: {family} model {name}: {fault}")
    return document


def _misread(text: bytes, error: Exception) -> str:
    """Return what is wrong with a document, with the family and the model where it is one's."""
    try:
        families = _OUTLINE.decode(text).families
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
        return misread(text, Document, error)
    for family, models in families.items():
        if family not in _FAMILIES:
            return f"families: nobody knows {family[:200]!r}{nearest(family, _FAMILIES)}"
        for name, raw in models.items():
            try:
                _ONE.decode(raw)
            except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as fault:
                return f"{family} model {name[:200]}: {misread(raw, Facts, fault)}"
    return misread(text, Document, error)


def _fault(facts: Facts, ids: Collection[str]) -> str:
    """Return what is wrong with a model's facts though each is of its type; empty when nothing is."""
    if both := set(facts.capabilities) & set(facts.lacks):
        return f"lacks: {min(both)!r} is among its capabilities too"
    if facts.successor and facts.successor not in ids:
        return f"successor: there is no {facts.successor[:200]!r}{nearest(facts.successor, ids)}"
    return ordered(facts.prices)


def shipped_facts() -> bytes:
    """Return the document that ships."""
    return SHIPPED_FACTS.read_bytes()
