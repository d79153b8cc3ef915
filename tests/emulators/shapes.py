"""Check a JSON value against a type hint as strictly as a provider's own API does: unknown keys are wrong."""

from __future__ import annotations

import collections.abc
import types
import typing
from typing import Any, Literal, NotRequired, Required, get_args, get_origin

import typing_extensions


class Wrong(Exception):
    """A value does not fit. `kind` is `unknown`, `missing`, `type` or `value`; `path` names the place."""

    def __init__(self, kind: str, path: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.path = path
        self.message = message


_REQUIRED: tuple[Any, ...] = (Required, typing_extensions.Required)
_WRAPPERS: tuple[Any, ...] = (Required, NotRequired, typing_extensions.Required, typing_extensions.NotRequired)


def check(value: Any, hint: Any, path: str = "") -> None:
    """Raise Wrong unless `value` (decoded JSON) fits `hint`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in _WRAPPERS or origin is typing.Annotated:
        check(value, args[0], path)
    elif hint in (Any, object):
        return
    elif hint is None or hint is type(None):
        _expect(value is None, path, "null")
    elif origin is Literal or origin is typing_extensions.Literal:
        if value not in args:
            raise Wrong("value", path, f"expected one of {', '.join(map(repr, args))}, but got {value!r}")
    elif origin in (typing.Union, types.UnionType):
        _check_union(value, args, path)
    elif typing.is_typeddict(hint) or typing_extensions.is_typeddict(hint):
        _check_dict(value, hint, path)
    elif origin in (dict, collections.abc.Mapping):
        _expect(isinstance(value, dict), path, "an object")
        for key, inner in value.items():
            check(key, args[0], path)
            check(inner, args[1], f"{path}.{key}" if path else key)
    elif origin is not None and issubclass(origin, (collections.abc.Iterable, typing.Protocol)):
        _expect(isinstance(value, list), path, "an array")
        for index, inner in enumerate(value):
            check(inner, args[0], f"{path}[{index}]")
    elif hint is float:
        _expect(isinstance(value, int | float) and not isinstance(value, bool), path, "a number")
    elif hint is int:
        _expect(isinstance(value, int) and not isinstance(value, bool), path, "an integer")
    elif isinstance(hint, type):
        _expect(isinstance(value, hint), path, hint.__name__)
    else:
        raise TypeError(f"no rule for {hint!r}")


def _expect(fits: bool, path: str, what: str) -> None:
    if not fits:
        raise Wrong("type", path, f"expected {what}")


def _check_dict(value: Any, hint: Any, path: str) -> None:
    _expect(isinstance(value, dict), path, "an object")
    hints = typing_extensions.get_type_hints(hint, include_extras=True)
    for key in value:
        if key not in hints:
            raise Wrong("unknown", f"{path}.{key}" if path else key, "unknown parameter")
    required = {key for key, inner in hints.items() if get_origin(inner) in _REQUIRED or key in hint.__required_keys__}
    for key in sorted(required):
        if key not in value:
            raise Wrong("missing", f"{path}.{key}" if path else key, "missing required parameter")
    for key, inner in value.items():
        check(inner, hints[key], f"{path}.{key}" if path else key)


def _check_union(value: Any, options: tuple[Any, ...], path: str) -> None:
    failures: list[Wrong] = []
    wrong_tags: list[Wrong] = []
    for option in options:
        tag = _wrong_tag(value, option, path)
        if tag is not None:
            wrong_tags.append(tag)
            continue
        try:
            check(value, option, path)
        except Wrong as wrong:
            failures.append(wrong)
        else:
            return
    # Of several, the one that came deepest into the value tells most.
    raise max(failures or wrong_tags, key=lambda wrong: wrong.path.count(".") + wrong.path.count("["))


def _wrong_tag(value: Any, option: Any, path: str) -> Wrong | None:
    """Tell that `option` is not meant: its tag ("role", "type") has a fixed value that the object's is not."""
    if not isinstance(value, dict) or not typing_extensions.is_typeddict(option):
        return None
    for key, hint in typing_extensions.get_type_hints(option, include_extras=True).items():
        inner = get_args(hint)[0] if get_origin(hint) in _WRAPPERS else hint
        if key in value and get_origin(inner) is Literal:
            where = f"{path}.{key}" if path else key
            try:
                check(value[key], inner, where)
            except Wrong as wrong:
                return wrong
    return None
