"""Whatever a server leaves out or writes as another type: every word of it is delivered, or the answer fails."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws import tries
from tests.router.passage import ALL, DIALECTS, outcome
from tests.router.recordings import Json, Recording

_WORD: Final = re.compile(r"w\d+x")
_BESIDE: Final = frozenset(
    (
        *("annotations", "native_finish_reason", "finish_reason", "finishReason", "finishMessage", "role", "type"),
        *("reasoning_details", "extra_content", "content_filter_results", "logprobs", "logprobsResult", "citation"),
        *("citations", "citationMetadata", "groundingMetadata", "urlContextMetadata", "safetyRatings", "stopReason"),
        *("stop_reason", "stop_sequence"),
        *("thoughtSignature", "signature", "mimeType", "format", "toolUseId", "id", "index", "channel", "error"),
    )
)
"""What stands beside what is said, or is not text."""
_ROOTS: Final = (
    *("choices", "candidates", "output", "contentBlockDelta", "contentBlockStart"),
    *("content", "content_block", "delta"),
)
"""Where an answer's pieces say something."""


def _planted(recording: Recording) -> Recording:
    """Return a recording with a word of its own in the place of every text that says something."""
    count = itertools.count()

    def plant(value: Any, name: str) -> Any:
        if name in _BESIDE:
            return value
        if isinstance(value, dict):
            return {key: plant(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [plant(inner, name) for inner in value]
        # Arguments stay JSON: a word among them is a text.
        if isinstance(value, str) and value and not re.search(r'[{}":]', value):
            return f"w{next(count)}x"
        return value

    pieces = [
        {key: plant(value, key) if key in _ROOTS else value for key, value in piece.items()}
        if isinstance(piece, dict)
        else piece
        for piece in recording.pieces
    ]
    return recording._replace(pieces=pieces)


PLANTED: Final = {name: _planted(recording) for name, recording in ALL.items() if not recording.ends}


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to everything in an object."""
    if place:
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from _places(each, (*place, key))


_DROP: Final = object()
_WAYS: Final[dict[str, Callable[[Any], Any]]] = {
    "dropped": lambda _: _DROP,
    "null": lambda _: None,
    "a number": lambda _: 7,
    "a fraction": lambda _: 0.5,
    "false": lambda _: False,
    "an empty text": lambda _: "",
    "an empty list": lambda _: [],
    "an empty object": lambda _: {},
    "in a list": lambda value: [value],
    "in an object": lambda value: {"value": value},
    "twice": lambda value: [value, value],
    "as text": lambda value: value if isinstance(value, str) else json.dumps(value),
}


def _mutate(pieces: list[Any], place: tuple[Any, ...], way: str) -> None:
    """Change what is at a place, if it is still there."""
    at: Any = pieces
    try:
        for key in place[:-1]:
            at = at[key]
        found = at[place[-1]]
    except (LookupError, TypeError):
        return
    if not isinstance(at, dict | list):
        return
    made = _WAYS[way](found)
    if made is _DROP:
        del at[place[-1]]
    else:
        at[place[-1]] = made


_PLACES: Final = {
    name: [place for place in _places(recording.pieces) if len(place) > 1] for name, recording in PLANTED.items()
}


def _said(value: Any, name: str = "") -> Iterator[str]:
    """Yield the words of pieces that stand where something is said."""
    if name in _BESIDE:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _said(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _said(inner, name)
    elif isinstance(value, str):
        yield from _WORD.findall(value)


def check(name: str, mutations: list[tuple[int, str]], dialect: str, *, stream: bool) -> None:
    """Mutate a recording; hold that a caller is shown its words, or an error."""
    recording = PLANTED[name]
    pieces = copy.deepcopy(recording.pieces)
    places = _PLACES[name]
    for number, way in mutations:
        _mutate(pieces, places[number % len(places)], way)
    pieces = [piece for piece in pieces if isinstance(piece, bytes) or _is_event(recording, piece)]
    shown, error = asyncio.run(outcome(recording._replace(pieces=pieces), dialect, stream=stream))
    if error is None:
        missing = set(_said(pieces)) - set(_WORD.findall(json.dumps(shown)))
        assert not missing, (missing, pieces)


def _is_event(recording: Recording, piece: Json) -> bool:
    """Return whether a piece can still be written as an event: Converse's have a name each."""
    return recording.vendor != "aws" or not recording.streamed or len(piece) == 1


@given(
    name=st.sampled_from(sorted(PLANTED)),
    mutations=st.lists(st.tuples(st.integers(0, 999), st.sampled_from(sorted(_WAYS))), min_size=1, max_size=3),
    dialect=st.sampled_from(DIALECTS),
    stream=st.booleans(),
)
@settings(max_examples=tries(150))
def test_no_success_lacks_a_word(name: str, mutations: list[tuple[int, str]], dialect: str, stream: bool) -> None:
    """However a server's pieces are mutated."""
    check(name, mutations, dialect, stream=stream)


def test_recordings_as_they_are_have_words_that_arrive() -> None:
    """The property is about something: recordings that say anything have words, and those arrive."""
    for name, recording in PLANTED.items():
        says = any(recording.says) or "a sound" in name
        assert bool(list(_said(recording.pieces))) == says, name
        check(name, [], recording.vendor, stream=recording.streamed)
