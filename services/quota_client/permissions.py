"""Whether rules permit a request: the one meaning of a rule, for auth and for whoever caches its grants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from moa.quota.v1 import quota_pb2
from services.common.errors import PermissionDenied


def permitted(
    rules: Sequence[quota_pb2.Rule],
    scopes: Sequence[quota_pb2.Rule],
    operation: quota_pb2.Operation.ValueType,
    provider: str,
    model: str,
) -> bool:
    """Return whether a rule of the account matches, and one of the key's scopes where it has any.

    An unspecified operation and an empty provider or model ask for nothing particular: any rule's will do.
    """
    return _any(rules, operation, provider, model) and (not scopes or _any(scopes, operation, provider, model))


def refused(what: str, *, param: str = "") -> PermissionDenied:
    """Return the refusal of what a key may not use: a model or a provider, as its caller is told of it."""
    return PermissionDenied(f"this key may not use {what}; GET /v1/models lists those that it may", param=param)


def covers(rule: quota_pb2.Rule, other: quota_pb2.Rule) -> bool:
    """Return whether a rule permits whatever another one does, as can be seen from their patterns."""
    operations = not rule.operations or (bool(other.operations) and set(other.operations) <= set(rule.operations))
    return (
        operations
        and _pattern_covers(rule.provider or "*", other.provider or "*")
        and _pattern_covers(rule.model or "*", other.model or "*")
    )


def _pattern_covers(pattern: str, other: str) -> bool:
    """Return whether a glob matches whatever another one does. Never wrongly so; it may miss that they say the same.

    The other is read as a text in which `*` stands for what only `*` matches, one step of all positions at a time.
    """
    if pattern in ("*", other):
        return True
    ours = _pieces(pattern)
    stars = sum(1 << at for at, piece in enumerate(ours) if piece == "*")
    taking: dict[str, int] = {}

    def settled(places: int) -> int:
        return places | (places & stars) << 1

    places = settled(1)
    for piece in _pieces(other):
        if piece not in taking:
            taking[piece] = sum(1 << at for at, mine in enumerate(ours) if _piece_covers(mine, piece))
        places = settled((places & stars) | (places & taking[piece]) << 1)
    return bool(places >> len(ours) & 1)


def _piece_covers(mine: str, piece: str) -> bool:
    if piece == "*" or mine == "*":
        return False
    return mine in ("?", piece) or (len(piece) == 1 and piece != "?" and fnmatchcase(piece, mine))


def matches(pattern: str, name: str) -> bool:
    """Return whether a rule's glob matches a catalogue id. Case counts."""
    return pattern == "*" or fnmatchcase(name, pattern)


def _pieces(pattern: str) -> list[str]:
    """Return the parts of a glob, each of which matches one character, or any number where it is `*`."""
    found: list[str] = []
    at = 0
    while at < len(pattern):
        end = at + 1
        if pattern[at] == "[":
            start = at + 2 if pattern[at + 1 : at + 2] == "!" else at + 1
            closed = pattern.find("]", start + 1)
            end = closed + 1 if closed >= 0 else end
        piece = pattern[at:end]
        if piece != "*" or found[-1:] != ["*"]:
            found.append(piece)
        at = end
    return found


def _any(rules: Iterable[quota_pb2.Rule], operation: quota_pb2.Operation.ValueType, provider: str, model: str) -> bool:
    return any(
        (not operation or not rule.operations or operation in rule.operations)
        and (not provider or matches(rule.provider or "*", provider))
        and (not model or matches(rule.model or "*", model))
        for rule in rules
    )
