"""Read the data of a Python module that only builds literals, without running any of it."""

from __future__ import annotations

import ast
import datetime as dt
from decimal import Decimal
from typing import Any, Final

from deploy.syntax import parsed

Node = dict[str, Any]
"""A call of a class: its name under `kind`, its keyword arguments by name."""

KIND: Final = "kind"


class Unreadable(ValueError):
    """The module is not made of literals alone."""


def value_of(module: str, name: str) -> Any:
    """Return what the module text binds `name` to: lists, numbers, text, dates, and a `Node` for each call of a class.

    Raises Unreadable.
    """
    try:
        tree = parsed(module)
    except SyntaxError as error:
        raise Unreadable(f"no Python: {error.msg}") from None
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return _value(statement.value)  # type: ignore[attr-defined]  # both kinds of assignment have one
    raise Unreadable(f"it binds no {name}")


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple():
            return [_value(item) for item in node.elts]
        case ast.Dict() if None not in node.keys:
            return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.Call(func=ast.Name(id="Decimal"), args=[ast.Constant(value=str(text))], keywords=[]):
            return Decimal(text)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="datetime"), attr="date"), keywords=[]):
            return dt.date(*(_value(argument) for argument in node.args))
        case ast.Call(func=ast.Attribute(value=ast.Name(id="datetime"), attr="time"), keywords=keywords):
            zoned = {keyword.arg for keyword in keywords} <= {"tzinfo"}
            if zoned:
                return dt.time(*(_value(argument) for argument in node.args))
        case ast.Call(func=ast.Name(id=kind), args=[]):
            return {KIND: kind, **{keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg}}
    raise Unreadable(f"line {node.lineno} is no literal")
