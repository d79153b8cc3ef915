"""Read the counts that providers report: one reader for all of them, that no wrong count makes fail.

A provider's usage may be missing, of another type, negative, larger than any count, or contradict itself. The answer
that it belongs to is good all the same: what can be read is kept, what cannot, or cannot be true, is left to the
gateway's estimate, and the whole is marked as not exact. A number that no answer comes to must not cost a caller the
day's quota.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
from prometheus_client import Counter

from services.common.errors import UpstreamBroken
from services.common.estimate import MOST, ReportedUsage

Raw: Final = msgspec.Raw
_NOTHING: Final = (b"", b"null")

WRONG = Counter(
    "moa_upstream_usage_wrong_total",
    "Answers whose usage the provider got wrong, by how: type, missing, fraction, negative, range, cached, cache_write,"
    " reasoning, images, audio.",
    ["provider", "fault"],
)

Path = tuple[str, ...]
"""Where a count stands: names from the outside in."""


class Spelling(NamedTuple):
    """Where a protocol writes its counts. Those of one total are added up; the first of them is its main part."""

    prompt: tuple[Path, ...]
    """Cached tokens included."""
    completion: tuple[Path, ...]
    """None where a protocol has no completions, so that nothing is missing."""
    """Reasoning included."""
    cached: tuple[Path, ...] = ()
    """The part of `prompt` that came from the provider's cache, at the first of these places that has one."""
    total: Path | None = None
    """Prompt and completion together: where it has room for the reasoning beside both, that was left out of the
    completion (xAI)."""
    reasoning: Path | None = None
    """The part of `completion` that was reasoning."""
    cache_write: tuple[Path, ...] = ()
    """The part of `prompt`, beside `cached`, that the provider wrote to its cache, likewise."""
    prompt_images: Path | None = None
    """The part of `prompt` that was images."""
    completion_images: Path | None = None
    """The part of `completion` that was images."""
    prompt_audio: Path | None = None
    """The part of `prompt` that was sound."""
    omits_zeros: bool = False
    """Whether a main part that is missing is 0, as in JSON made of protobuf."""


def read_usage(raw: msgspec.Raw, spelling: Spelling) -> ReportedUsage | None:
    """Return what a usage object says, as it stands in an answer; None where there is none."""
    data = bytes(raw)
    if data in _NOTHING:
        return None
    try:
        given = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError):
        given = None  # a number of thousands of digits, text that is no UTF-8
    return usage_in(given, spelling)


def usage_in(given: Any, spelling: Spelling) -> ReportedUsage:
    """Return what a usage object says that has been decoded."""
    faults: set[str] = set()
    if not isinstance(given, dict):
        return ReportedUsage(None, None, 0, 0, frozenset(("type",)))
    prompt = _total(given, spelling.prompt, spelling, faults)
    completion = _total(given, spelling.completion, spelling, faults) if spelling.completion else 0
    if spelling.total is not None:
        completion = _with_reasoning(given, spelling, spelling.total, prompt, completion)
    cached, reasoning, cache_write, prompt_images, completion_images, prompt_audio = [
        # Most servers have none of most names: looking for the first part of one is cheap.
        _part(given, path, whole, name, faults) if path is not None and path[0] in given else 0
        for path, whole, name in (
            (_first(given, spelling.cached), prompt, "cached"),
            (spelling.reasoning, completion, "reasoning"),
            (_first(given, spelling.cache_write), prompt, "cache_write"),
            (spelling.prompt_images, prompt, "images"),
            (spelling.completion_images, completion, "images"),
            (spelling.prompt_audio, prompt, "audio"),
        )
    ]
    return ReportedUsage(
        prompt,
        completion,
        cached,
        reasoning,
        frozenset(faults),
        cache_write,
        prompt_images,
        completion_images,
        prompt_audio,
    )


def _with_reasoning(
    given: Any, spelling: Spelling, total: Path, prompt: int | None, completion: int | None
) -> int | None:
    """Return the completion, with the reasoning where that was counted beside it."""
    if spelling.reasoning is None or prompt is None or completion is None:
        return completion
    if spelling.reasoning[0] not in given:
        return completion
    reasoning = _count(_at(given, spelling.reasoning), set()) or 0
    beside = prompt + completion + reasoning
    return completion + reasoning if reasoning and _count(_at(given, total), set()) == beside else completion


def _first(given: Any, paths: tuple[Path, ...]) -> Path | None:
    for path in paths:
        if path[0] in given and _at(given, path):
            return path
    return None


def count_in(body: bytes, path: Path) -> int | None:
    """Return the one count that a whole answer is about; None where it cannot be read as one."""
    try:
        given = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError):
        return None
    faults: set[str] = set()
    written = _at(given, path)
    count = _count(written, faults)
    return None if written is None or count is None or faults else min(count, MOST)


def count_of(*path: str) -> Callable[[bytes], int]:
    """Return what reads an answer that is one count, from where that stands. It raises UpstreamBroken."""

    def read(body: bytes) -> int:
        count = count_in(body, path)
        if count is None:
            raise UpstreamBroken("the provider's count cannot be read")
        return count

    return read


def note(provider: str, reported: ReportedUsage | None) -> None:
    """Count what was wrong with the usage of one answer."""
    for fault in reported.faults if reported is not None else ():
        WRONG.labels(provider, fault).inc()


def _total(given: Any, paths: tuple[Path, ...], spelling: Spelling, faults: set[str]) -> int | None:
    main, *others = paths
    written = given.get(main[0]) if len(main) == 1 else _at(given, main)
    if written is None and not (spelling.omits_zeros and main[-1] not in given):
        faults.add("missing")
        return None
    total = _count(written, faults)
    if total is None:
        return None
    for path in others:
        total += _count(_at(given, path), faults) or 0
    if total > MOST:
        faults.add("range")
        return None
    return total


def _part(given: Any, path: Path, whole: int | None, name: str, faults: set[str]) -> int:
    count = _count(_at(given, path), faults)
    if count is None:
        return 0
    if count > (MOST if whole is None else whole):
        faults.add(name)
    return min(count, MOST if whole is None else whole)


def _at(given: Any, path: Path) -> Any:
    for name in path:
        if isinstance(given, list):
            # Google tells the kinds of tokens apart in a list.
            found = next((each for each in given if isinstance(each, dict) and each.get("modality") == name), {})
            given = found.get("tokenCount")
        else:
            given = given.get(name) if isinstance(given, dict) else None
    return given


def _count(written: Any, faults: set[str]) -> int | None:
    """Return a count as it is written; None where it is none. Nothing written is 0."""
    if written is None:
        return 0
    if isinstance(written, str) and written.isascii() and written.isdecimal() and len(written) < 20:
        faults.add("type")
        written = int(written)
    if isinstance(written, float) and math.isfinite(written):
        faults.add("fraction")
        written = math.ceil(written)
    if not isinstance(written, int) or isinstance(written, bool):
        faults.add("type")
        return None
    if written < 0:
        faults.add("negative")
        return None
    return written
