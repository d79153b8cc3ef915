"""Which id that a provider lists is meant by one that it does not list.

Clients carry ids inside: previews that have ended, `-latest`, snapshots of a day, Bedrock's ids without their region.
Such an id means what its provider has of the same model now, and nothing of another family: that is a successor's,
which somebody has to declare. Names are compared by what is left of them without these parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

_LATEST: Final = "-latest"
_REGION: Final = re.compile(r"(us-gov|us|eu|apac|ap|au|ca|in|jp|sa|global)\.(?=[a-z0-9]+\.[a-z])")
"""Of an inference profile: where it may be served from."""
_VERSION: Final = re.compile(r"-v\d+(?::\d+)?$")
_STAGE: Final = r"preview|experimental|exp|beta|alpha"
_DAY: Final = r"20\d\d-\d\d-\d\d|20\d{6}|00\d|0[1-9][0-3]\d|1[0-2][0-3]\d|2\d(?:0[1-9]|1[0-2])"
_TAIL: Final = re.compile(
    rf"(?:-(?P<stage>{_STAGE})(?:[-@](?P<after>{_DAY}|\d\d-\d\d|\d\d-20\d\d))?|[-@](?P<day>{_DAY}))$"
)
"""A stage, and the day of a snapshot. A day before a stage (`gpt-4-1106-preview`) is a part of the name: that one is of
another family than the name without it."""


class Name(NamedTuple):
    """A name in its parts."""

    stem: str
    """The model."""
    region: str
    version: str
    stage: str
    day: str
    """Digits by which a later day is greater among those of one form; empty: no snapshot."""


@lru_cache(maxsize=8192)
def parted(name: str) -> Name:
    """Return a name in its parts."""
    region = _REGION.match(name)
    rest = name[region.end() :] if region else name
    version = _VERSION.search(rest)
    rest = (rest[: version.start()] if version else rest).removesuffix(_LATEST)
    tail = _TAIL.search(rest)
    if tail is None or not tail.start():
        return Name(rest, region[1] if region else "", version[0] if version else "", "", "")
    return Name(
        rest[: tail.start()],
        region[1] if region else "",
        version[0] if version else "",
        tail["stage"] or "",
        _digits(tail["after"] or tail["day"] or ""),
    )


def _digits(day: str) -> str:
    month, _, year = day.partition("-")
    if len(month) == 2 and len(year) == 4:
        return f"{year}{month}00"  # preview-09-2025
    return day.replace("-", "")


class Ids:
    """The ids of a list, by what they are names of."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._by_stem: dict[str, list[str]] = {}
        for each in ids:
            stem = parted(each).stem
            vendor, _, rest = stem.partition(".")
            for key in (stem, rest) if rest and vendor.isalnum() and rest[0].isalpha() else (stem,):
                self._by_stem.setdefault(key, []).append(each)

    def meant(self, name: str) -> str:
        """Return the id that a name means which is not among them; empty for none.

        Of several: one that is no preview, the one without a day, the latest day; an inference profile of a region
        before the global one. A name with a region means that region alone.
        """
        asked = parted(name)
        found = [(parted(each), each) for each in self._by_stem.get(asked.stem, ())]
        fitting = [(part, each) for part, each in found if asked.region in ("", part.region)]
        return min(fitting, key=lambda pair: _rank(pair[0], asked))[1] if fitting else ""


def _rank(part: Name, asked: Name) -> tuple[object, ...]:
    latest = int(part.day) if part.day else 0
    return (
        bool(part.stage),
        bool(part.day),
        -latest,
        part.version != asked.version if asked.version else False,
        ("", "global").index(part.region) * 2 if part.region in ("", "global") else 1,
    )
