"""Find every message that a caller can get, as a template, in the code that raises it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.build.protos import REPOSITORY
from deploy.syntax import parsed
from moa.common.v1.error_pb2 import Reason
from services.common import errors
from services.common.body import field_error

FOLDERS: Final = ("services", "inference")
_LEFT_OUT: Final = ("inference/training", "inference/bench")
_BASE: Final = "MoaError"
_SAME_AS: Final = {"Violation": ("InvalidField", 1)}
"""Exceptions that become one of the errors, and which of their arguments is the message."""
_RENDERED: Final = field_error.__name__
"""A function that words others' sentences: what it makes of them stands in `rendered`."""


@dataclass(frozen=True, order=True, kw_only=True)
class Message:
    """One message."""

    reason: Reason.ValueType
    template: str
    """`<name>` stands for what differs from call to call."""
    source: str
    """The service or engine that says it."""


class UnreadableMessage(Exception):
    """A message whose words cannot be read from the code. It says where, and what to write instead."""


def messages(root: Path = REPOSITORY) -> list[Message]:
    """Return every message of the services and engines, sorted. Raises UnreadableMessage."""
    files = [
        path
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*.py"))
        if not str(path.relative_to(root)).startswith(_LEFT_OUT)
    ]
    trees = {str(path.relative_to(root)): parsed(path.read_text(encoding="utf-8")) for path in files}
    reasons = reasons_of(trees.values())
    results: set[Message] = set()
    for name, tree in trees.items():
        for kind, template in _Module(name, tree, frozenset(reasons)).templates():
            if has_words(template):
                results.add(Message(reason=reasons[kind], template=template, source=_source(name)))
    return sorted(results)


def has_words(template: str) -> bool:
    """Return whether a message has words of its own: what only joins others' tells a reader nothing."""
    return re.search("[A-Za-z]", re.sub(r"<[^<>]*>", "", template)) is not None


def _source(path: str) -> str:
    parts = path.split("/")
    return parts[1] if parts[0] == "services" else parts[0]


def reasons_of(trees: Iterable[ast.Module]) -> dict[str, Reason.ValueType]:
    """Return the reason of each error class that the modules define, by its name."""
    bases: dict[str, set[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases.setdefault(node.name, set()).update(_called(base) for base in node.bases)
    results = {kind.__name__: reason for reason, kind in errors.BY_REASON.items()}
    grown = True
    while grown:
        grown = False
        for name, above in bases.items():
            known = [results[each] for each in above if each in results]
            if name not in results and known:
                results[name] = known[0]
                grown = True
    return results


def _called(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


class _Module:
    """The messages of one module."""

    def __init__(self, name: str, tree: ast.Module, kinds: frozenset[str]) -> None:
        self._name = name
        self._tree = tree
        self._kinds = kinds
        self._constants = dict(_assigned(tree.body))

    def templates(self) -> Iterator[tuple[str, str]]:
        """Yield the class of each error that is made here, with its message."""
        for scope, node in _calls(self._tree, ()):
            if any(getattr(each, "name", "") == _RENDERED for each in scope):
                continue
            kind, at = _called(node.func), 0
            if kind in _SAME_AS:
                kind, at = _SAME_AS[kind]
            elif kind not in self._kinds:
                continue
            if len(node.args) > at:
                for template in self._of(node.args[at], scope):
                    yield kind, template
        yield from self._lengthened()
        # A table from classes to sentences, of which one is raised by its key.
        for table in ast.walk(self._tree):
            if isinstance(table, ast.Dict):
                for key, value in zip(table.keys, table.values, strict=True):
                    if key is not None and _called(key) in self._kinds and isinstance(value, ast.Constant):
                        yield _called(key), str(value.value)

    def _lengthened(self) -> Iterator[tuple[str, str]]:
        """Yield what functions add to the message of an error that they are given, behind a gap for the message."""
        for function in ast.walk(self._tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            given = {each.arg: _called(each.annotation) for each in function.args.args if each.annotation}
            for node in ast.walk(function):
                match node:
                    case ast.AugAssign(
                        target=ast.Attribute(value=ast.Name(id=name), attr="message"), op=ast.Add(), value=added
                    ) if given.get(name) in self._kinds:
                        for template in self._of(added, (function,)):
                            yield given[name], f"<message>{template}"

    def _of(self, node: ast.expr, scope: tuple[ast.AST, ...]) -> Iterator[str]:
        """Yield the templates that an expression comes to."""
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.JoinedStr(values=values):
                yield "".join(self._piece(each, scope) for each in values)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                yield from (one + other for one in self._part(left, scope) for other in self._part(right, scope))
            case ast.IfExp(body=body, orelse=orelse):
                yield from self._of(body, scope)
                yield from self._of(orelse, scope)
            case ast.Subscript(value=value, slice=ast.Slice()):
                yield from self._of(value, scope)
            case ast.Call(func=ast.Attribute(attr="format", value=value)):
                yield from (_without_braces(each) for each in self._of(value, scope))
            case ast.Subscript(value=ast.Name(id=name)) if isinstance(self._constants.get(name), ast.Dict):
                table = self._constants[name]
                assert isinstance(table, ast.Dict)
                for each in table.values:
                    yield from self._of(each, scope)
            case ast.Name(id=name):
                yield from self._named(name, scope, node)
            case ast.Attribute(attr=name):
                yield f"<{name.replace('_', ' ')}>"
            case _:
                raise self._unreadable(node)

    def _part(self, node: ast.expr, scope: tuple[ast.AST, ...]) -> list[str]:
        """Return what a part of a sum comes to; a part that is computed is a gap."""
        try:
            return list(self._of(node, scope))
        except UnreadableMessage:
            return [f"<{_word_of(node)}>"]

    def _named(self, name: str, scope: tuple[ast.AST, ...], node: ast.expr) -> Iterator[str]:
        for each in reversed(scope):
            assert isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            values = [value for target, value in _assigned(ast.walk(each)) if target == name]
            if values:
                for value in values:
                    yield from self._of(value, scope)
                return
            arguments = each.args
            if name in {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}:
                yield f"<{name.replace('_', ' ')}>"
                return
        if name not in self._constants:
            raise self._unreadable(node)
        yield from self._of(self._constants[name], scope)

    def _piece(self, node: ast.expr, scope: tuple[ast.AST, ...]) -> str:
        if isinstance(node, ast.Constant):
            return str(node.value)
        assert isinstance(node, ast.FormattedValue)
        return f"<{_word_of(node.value)}>"

    def _unreadable(self, node: ast.expr) -> UnreadableMessage:
        where = f"{self._name}:{node.lineno}"
        return UnreadableMessage(f"{where}: a message is a string, an f-string, or a name of one: {ast.unparse(node)}")


def _calls(node: ast.AST, scope: tuple[ast.AST, ...]) -> Iterator[tuple[tuple[ast.AST, ...], ast.Call]]:
    """Yield every call, with the functions around it from the outside in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield scope, child
        yield from _calls(
            child, (*scope, child) if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else scope
        )


def _assigned(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    for node in nodes:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value
        elif isinstance(node, ast.For) and isinstance(node.target, ast.Tuple) and isinstance(node.iter, ast.Tuple):
            for pair in node.iter.elts:
                if isinstance(pair, ast.Tuple):
                    for target, value in zip(node.target.elts, pair.elts, strict=False):
                        if isinstance(target, ast.Name):
                            yield target.id, value


def _word_of(node: ast.expr) -> str:
    """Return a word for what stands in a message's gap."""
    match node:
        case ast.Name(id=name):
            return name.strip("_").lower().replace("_", " ")
        case ast.Attribute(value=ast.Name(id=owner), attr="id" | "name" as what):
            return f"{owner} {what}"
        case ast.Attribute(attr=name):
            return name.strip("_").replace("_", " ")
        case ast.Call(func=ast.Attribute(attr="join")) if node.args:
            return _word_of(node.args[0])
        case ast.Call() if node.args:
            return _word_of(node.args[0])
        case ast.Call(func=ast.Attribute(value=value)) | ast.Subscript(value=value) | ast.BinOp(left=value):
            return _word_of(value)
        case ast.BoolOp(values=[first, *_]) | ast.IfExp(body=first) | ast.Starred(value=first):
            return _word_of(first)
        case ast.GeneratorExp(elt=first) | ast.ListComp(elt=first):
            return _word_of(first)
        case _:
            return "detail"


def _without_braces(text: str) -> str:
    return text.replace("{}", "<name>")
