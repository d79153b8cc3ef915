"""One rig a dialect, in a module named as the dialect is: all that the matrices of the tests need to know of it.

Another dialect is another module here; a registered one without its rig fails every matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from services.common.dialects import DIALECTS, Dialect
from services.common.dialects.registrations import Registration, registrations
from services.router import dialects as answered
from tests.dialects.rig import AnswerRig, DialectRig


def _rig(name: str) -> DialectRig:
    try:
        rig = import_module(f"tests.dialects.{name}").RIG
    except ModuleNotFoundError as error:
        raise LookupError(f"the dialect {name} has no rig: write tests/dialects/{name}.py") from error
    assert isinstance(rig, DialectRig)
    assert rig.name == name
    return rig


def _answering() -> dict[str, AnswerRig]:
    services = {service for each in registrations(answered, Registration) for service in each.services}
    names = [name for name, dialect in DIALECTS.items() if services & set(dialect.services)]
    rigs = {name: rig for name in names if isinstance(rig := RIGS[name], AnswerRig)}
    if missing := set(names) - rigs.keys():
        raise LookupError(f"the router answers in {', '.join(sorted(missing))}: its rig has to be an AnswerRig")
    return rigs


RIGS: Final[Mapping[str, DialectRig]] = {name: _rig(name) for name in DIALECTS}
"""Of every registered dialect, by name."""
ANSWERING: Final[Mapping[str, AnswerRig]] = _answering()
"""Of those that the router answers in."""
PAINTING: Final[Mapping[str, AnswerRig]] = {name: rig for name, rig in ANSWERING.items() if rig.image is not None}
"""Of those that can ask for images."""

SPOKEN: Final[Mapping[str, Dialect]] = {
    dialect.name: dialect
    for each in registrations(answered, Registration)
    for dialect in each.dialects.values()
    if dialect.name in ANSWERING
}
"""The same dialects, with the names of the fields that their methods read."""
