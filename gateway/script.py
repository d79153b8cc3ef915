"""Render the edge's one Lua file from the table of dialects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from moa.common.v1 import error_pb2
from moa.common.v1.error_pb2 import Reason
from services.common.dialects import DIALECTS, FIELD, MESSAGE, PARAM, REQUEST_ID, STATUS, Dialect
from services.common.errors import HTTP_STATUS, RULES, word

CALLERS_ID: Final = "x-moa-callers-request-id"
"""The header in which the script finds the `x-request-id` that a caller gave."""

DEPLOYMENT: Final = "moa-deployment"
"""The header in which the script tells the model that one of Azure's paths names."""

_NAME: Final = re.compile(r"\{[a-z0-9_.]+(?:=([^}]*))?\}")
"""A name in a path, and what it may hold."""
_MAGIC: Final = re.compile(r"[\^$()%.\[\]*+\-?]")
"""What Lua's patterns do not take for itself."""
_TEMPLATE = Path(__file__).with_name("errors.lua")
_PATHS = Path(__file__).with_name("paths.lua")
_ARRIVAL = Path(__file__).with_name("arrival.lua")

_BY_STATUS: Mapping[int, Reason.ValueType] = {
    400: error_pb2.REASON_MALFORMED,
    401: error_pb2.REASON_UNAUTHENTICATED,
    403: error_pb2.REASON_PERMISSION_DENIED,
    404: error_pb2.REASON_NOT_FOUND,
    405: error_pb2.REASON_METHOD_NOT_ALLOWED,
    408: error_pb2.REASON_DEADLINE_EXCEEDED,
    413: error_pb2.REASON_TOO_LARGE,
    415: error_pb2.REASON_UNSUPPORTED_MEDIA,
    429: error_pb2.REASON_RATE_LIMITED,
    # A transfer coding that Envoy does not know.
    501: error_pb2.REASON_MALFORMED,
    # A transcoder that cannot bind, or a buffer that overflowed on the way out: ours, not the caller's.
    500: error_pb2.REASON_INTERNAL,
    502: error_pb2.REASON_UNAVAILABLE,
    503: error_pb2.REASON_UNAVAILABLE,
    504: error_pb2.REASON_DEADLINE_EXCEEDED,
}
"""What Envoy's own statuses mean."""

_BY_GRPC: Mapping[int, Reason.ValueType] = {
    1: error_pb2.REASON_CANCELLED,
    3: error_pb2.REASON_MALFORMED,
    4: error_pb2.REASON_DEADLINE_EXCEEDED,
    5: error_pb2.REASON_NOT_FOUND,
    7: error_pb2.REASON_PERMISSION_DENIED,
    # gRPC's own library says this of a message over its size limit; services always give a reason.
    8: error_pb2.REASON_TOO_LARGE,
    12: error_pb2.REASON_NOT_FOUND,
    14: error_pb2.REASON_UNAVAILABLE,
    16: error_pb2.REASON_UNAUTHENTICATED,
}
"""What a gRPC status without a reason means."""

SENTENCES: Mapping[Reason.ValueType, str] = {
    error_pb2.REASON_MALFORMED: "the request could not be read; compare its path, query and body with /docs",
    error_pb2.REASON_UNAUTHENTICATED: "an API key is required; send Authorization: Bearer, X-API-Key or x-goog-api-key",
    error_pb2.REASON_PERMISSION_DENIED: "this is not permitted",
    error_pb2.REASON_NOT_FOUND: "no such path",
    error_pb2.REASON_METHOD_NOT_ALLOWED: "this path does not take that method",
    error_pb2.REASON_TOO_LARGE: "the request body is too large",
    error_pb2.REASON_UNSUPPORTED_MEDIA: "this content type is not taken here",
    error_pb2.REASON_RATE_LIMITED: "too many requests",
    error_pb2.REASON_UNAVAILABLE: "a part of the gateway is not reachable; try again",
    error_pb2.REASON_DEADLINE_EXCEEDED: "the gateway did not finish in time",
    error_pb2.REASON_CANCELLED: "the request was cancelled",
    error_pb2.REASON_INTERNAL: "internal error",
}

NOT_ASCII: Final = "<name> takes printable ASCII characters alone; write it in them"
"""What is told of a header that gRPC cannot carry, though it says what to do; `<name>` is the header's."""

_SLOTS = {MESSAGE: "v.message", PARAM: "v.param", FIELD: "v.field", STATUS: "v.status", REQUEST_ID: "v.request_id"}
"""Placeholders that are known at run time only, as the script names them."""


def render(bodies: str, served: Iterable[tuple[str, str]]) -> str:
    """Return the script's text. `bodies` is the part of it that watches bodies, `served` are methods and paths."""
    methods: dict[str, set[str]] = {}
    for method, path in served:
        methods.setdefault(path, set()).add(method)
    wide = [path for path in methods if _NAME.search(path) or "*" in path]
    tables = {
        "exact": _table({path: _methods(methods[path]) for path in sorted(methods.keys() - set(wide))}),
        # In the order in which the routes are tried.
        "patterns": "{" + ", ".join(f"{{{_text(_pattern(path))}, {_methods(methods[path])}}}" for path in wide) + "}",
        "unserved": _table(
            {prefix: _text(step) for each in DIALECTS.values() for prefix, step in each.unserved.items()}
        ),
        "lasting": _table({word(reason): "true" for reason, rule in RULES.items() if not rule.passing}),
        "dialects": _table({name: _dialect(dialect) for name, dialect in DIALECTS.items()}),
        "by_status": _words(_BY_STATUS),
        "by_grpc": _words(_BY_GRPC),
        "sentences": _table({word(reason): _text(sentence) for reason, sentence in SENTENCES.items()}),
        "not_ascii": _text(NOT_ASCII),
    }
    script = (
        _PATHS.read_text(encoding="utf-8")
        + _ARRIVAL.read_text(encoding="utf-8")
        + bodies
        + _TEMPLATE.read_text(encoding="utf-8")
    )
    for name, table in tables.items():
        script = script.replace("{{" + name + "}}", table)
    return script


def _methods(methods: Iterable[str]) -> str:
    return _text(f" {' '.join(sorted(methods))} ")


def _pattern(template: str) -> str:
    """Return the Lua pattern of a path with names in it."""
    out, at = "^", 0
    for name in _NAME.finditer(template):
        out += _literal(template[at : name.start()]) + _literal(name[1] or "*")
        at = name.end()
    return out + _literal(template[at:]) + "$"


def _literal(text: str) -> str:
    wild = {"**": ".+", "*": "[^/]+"}
    return "".join(wild.get(piece) or _MAGIC.sub(r"%\g<0>", piece) for piece in re.split(r"(\*\*|\*)", text) if piece)


def sentence(reason: Reason.ValueType) -> str:
    """Return the edge's own sentence for a reason."""
    return SENTENCES[reason]


def _dialect(dialect: Dialect) -> str:
    status = {word(reason): str(dialect.status(reason)) for reason in HTTP_STATUS}
    fields = {"status": _table(status)}
    for name, table in dialect.words.items():
        entries = {word(reason): _text(json.dumps(literal)) for reason, literal in table.items()}
        fields[f"w_{name}"] = _table(entries)
    locals_ = "".join(f"local {name} = {table} " for name, table in fields.items())
    variants = "".join(
        f"if reason == {_text(word(reason))} then return {_expression(envelope, dialect)} end "
        for reason, envelope in dialect.variants.items()
    )
    body = f"function(reason, v) {variants}return {_expression(dialect.envelope, dialect)} end"
    return f"(function() {locals_}return {{status = status, body = {body}}} end)()"


def _expression(envelope: Mapping[str, Any], dialect: Dialect) -> str:
    """Return the Lua expression that joins the envelope's fixed JSON with its placeholders."""
    pieces: list[str] = []
    fixed = ""

    def walk(shape: Any) -> None:
        nonlocal fixed
        if isinstance(shape, Mapping):
            for place, (key, value) in enumerate(shape.items()):
                fixed += ("," if place else "{") + json.dumps(key) + ":"
                walk(value)
            fixed += "}" if shape else "{}"
        elif isinstance(shape, list):
            for place, value in enumerate(shape):
                fixed += "," if place else "["
                walk(value)
            fixed += "]" if shape else "[]"
        elif isinstance(shape, str) and shape.startswith("$"):
            pieces.extend((_text(fixed), _slot(shape, dialect)))
            fixed = ""
        else:
            fixed += json.dumps(shape)

    walk(envelope)
    return " .. ".join([*pieces, _text(fixed)])


def _slot(placeholder: str, dialect: Dialect) -> str:
    if placeholder in _SLOTS:
        return _SLOTS[placeholder]
    name = placeholder.removeprefix("$")
    if name not in dialect.words:
        raise ValueError(f"dialect {dialect.name}: the edge cannot fill {placeholder}")
    default = _text(json.dumps(dialect.defaults.get(name)))
    return f"(w_{name}[reason] or {default})"


def _words(table: Mapping[int, Reason.ValueType]) -> str:
    return "{" + ", ".join(f"[{number}] = {_text(word(reason))}" for number, reason in table.items()) + "}"


def _table(entries: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"[{_text(key)}] = {value}" for key, value in entries.items()) + "}"


def _text(value: str) -> str:
    """Return a Lua string literal. JSON's escapes of ASCII text are Lua's too, but for `\\u` and `\\/`."""
    return (
        '"'
        + "".join(c if c.isprintable() and c not in '"\\' else "".join(f"\\{b:03d}" for b in c.encode()) for c in value)
        + '"'
    )
