"""One look at all that a message has: for what is outside its limits, and for what it needs of a model.

What is to be looked for is found out once a message type, from its descriptor, and written as a function: one that
finds it in tables at each message takes twice the time. Fields that a message does not have cost nothing, but for the
few that it must have.
"""

from __future__ import annotations

import functools
import keyword
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services.common.limits.checks import Required, Violation, checks_of
from services.common.limits.fields import is_map, of
from services.common.limits.needs import Need, needs_of

Look = Callable[[Any], Sequence[Need]]
"""Returns what a message needs, in the order of its fields. Raises Violation for the first outside its limits."""

_INDENT: Final = "    "


@functools.cache
def look_of(descriptor: Descriptor, *, checked: bool, above: frozenset[str] = frozenset()) -> Look | None:
    """Return what looks at messages of a type; None: there is nothing to look for.

    `checked`: for limits too, not for needs alone.
    """
    written = _Written(descriptor, checked=checked, above=above)
    return written.compiled() if written.lines else None


class _Written:
    """The function that looks at messages of a type.

    `HasField` takes a thirtieth of the time of `ListFields`, which makes an object of each value.
    """

    def __init__(self, descriptor: Descriptor, *, checked: bool, above: frozenset[str]) -> None:
        self._name = descriptor.full_name
        self._checked = checked
        self._above = above
        self._names: dict[str, Any] = {"Violation": Violation, "under": _under}
        """What its lines name."""
        self.lines = list(self._lines(descriptor))

    def compiled(self) -> Look:
        """Return the function."""
        body = "\n".join(_indented(("needs = ()", *self.lines, "return needs")))
        code = compile(f"def look(message):\n{body}\n", f"{__file__}: {self._name}", "exec")
        exec(code, self._names)  # noqa: S102  # its lines are made here, of the contract's names alone
        result: Look = self._names["look"]
        return result

    def _lines(self, descriptor: Descriptor) -> Iterator[str]:
        for field in descriptor.fields:
            if self._checked and of(field).required:
                yield f"if not {_value_of(field)}:"
                yield f"{_INDENT}raise {self._named(Required(field))}.violation()"
        unions: dict[str, list[FieldDescriptor]] = {}
        for field in descriptor.fields:
            union = field.containing_oneof
            if union is not None and len(union.fields) > 1:
                unions.setdefault(union.name, []).append(field)
                continue
            if not (lines := list(self._looking(field))):
                continue
            if field.has_presence:
                yield f"if message.HasField({field.name!r}):"
                yield f"{_INDENT}value = {_value_of(field)}"
            else:
                yield f"if value := {_value_of(field)}:"
            yield from _indented(lines)
        for name, fields in unions.items():
            yield from self._lines_of_union(name, fields)

    def _lines_of_union(self, name: str, fields: Iterable[FieldDescriptor]) -> Iterator[str]:
        """Yield what looks at fields of which a message has one: it is asked once which."""
        members = {field.name: lines for field in fields if (lines := list(self._looking(field)))}
        if not members:
            return
        yield f"if (kind := message.WhichOneof({name!r})) in {self._named(frozenset(members))}:"
        yield f"{_INDENT}value = getattr(message, kind)"
        for member, lines in members.items():
            yield f"{_INDENT}if kind == {member!r}:"
            yield from _indented(_indented(lines))

    def _looking(self, field: FieldDescriptor) -> Iterator[str]:
        """Yield what looks at the value of a field, where a message has it."""
        for check in checks_of(field) if self._checked else ():
            yield f"{self._named(check)}(message, value)"
        for find in needs_of(field):
            yield f"if (need := {self._named(find)}(message, value)) is not None:"
            yield f"{_INDENT}needs = (*needs, need)"
        if field.message_type is None or is_map(field) or self._name in self._above:
            return
        below = look_of(field.message_type, checked=self._checked, above=self._above | {self._name})
        if below is None:
            return
        indent = ""
        if field.is_repeated:
            yield "for index, value in enumerate(value):"
            indent, prefix = _INDENT, f"f'{field.name}[{{index}}].'"
        else:
            prefix = repr("" if of(field).group else f"{field.name}.")
        yield f"{indent}try:"
        yield f"{indent}{_INDENT}found = {self._named(below)}(value)"
        yield f"{indent}except Violation as violation:"
        yield f"{indent}{_INDENT}violation.under({prefix})"
        yield f"{indent}{_INDENT}raise"
        yield f"{indent}if found:"
        yield f"{indent}{_INDENT}needs = (*needs, *under({prefix}, found))"

    def _named(self, value: object) -> str:
        name = f"of_{len(self._names)}"
        self._names[name] = value
        return name


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (_INDENT + line for line in lines)


def _value_of(field: FieldDescriptor) -> str:
    return f"getattr(message, {field.name!r})" if keyword.iskeyword(field.name) else f"message.{field.name}"


def _under(prefix: str, needs: Sequence[Need]) -> Iterator[Need]:
    """Yield needs of a message that is in another one."""
    return (Need(prefix + need.param, need.capability) for need in needs)
