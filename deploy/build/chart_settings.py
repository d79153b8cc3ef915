"""What the chart's schema says of each setting: its kind, its bounds, and what it is, from the classes that read it."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from services.common.settings import Settings

TRACES: Final = {
    "OTEL_BSP_EXPORT_TIMEOUT": "^[0-9]*$",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "^[0-9]*$",
    "OTEL_BSP_MAX_QUEUE_SIZE": "^[0-9]*$",
    "OTEL_BSP_SCHEDULE_DELAY": "^[0-9]*$",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "^(/\\S+)?$",
    "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE": "^(/\\S+)?$",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "^(https?://[^\\s/]+/?)?$",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "^(grpc)?$",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "^(grpc)?$",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "^(/\\S+)?$",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "^(https?://[^\\s/]+/?)?$",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "^(grpc)?$",
    "OTEL_LOGS_EXPORTER": "^(otlp|none)?$",
    "OTEL_RESOURCE_ATTRIBUTES": "",
    "OTEL_SDK_DISABLED": "^(true|false)?$",
    "OTEL_TRACES_EXPORTER": "^(otlp|none)?$",
}
"""Of docs/observability.md, for all processes, with what their text must be like; a value of the chart's own says where
traces go and how many."""
TRACE_SECRETS: Final = (
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
)

_URL: Final = r"^(https?://[^\s]+)?$"
_PATH: Final = r"^(/\S+)?$"
"""Of a mounted file: a pod's working folder holds the code."""
_SERVER: Final = r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}=)?https?://[^\s,]+"
_PATTERNS: Final = {
    "MOA_OIDC_ISSUER": _URL,
    "MOA_PUBLIC_URL": _URL,
    "MOA_REQUEST_LOG_ENDPOINT": _URL,
    "MOA_SERVERS": rf"^[\s,]*({_SERVER}(\s*,[\s,]*{_SERVER})*)?[\s,]*$",
}
"""What the classes say by code."""
_TRUTH: Final = [True, False, 0, 1, "", *("true", "false", "0", "1", "yes", "no", "on", "off")]
_OF_LIBRARIES: Final[dict[str, dict[str, Any]]] = {
    "HF_ENDPOINT": {"type": "string", "pattern": _URL, "description": "A mirror of the hub, by its address."},
    "HF_HUB_OFFLINE": {"enum": _TRUTH, "description": "Whether the hub is never asked: models are what the cache has."},
    "HTTPS_PROXY": {
        "type": "string",
        "pattern": _URL,
        "description": "A proxy for addresses with https; never between services.",
    },
    "HTTP_PROXY": {
        "type": "string",
        "pattern": _URL,
        "description": "A proxy for addresses with http; never between services.",
    },
    "NO_PROXY": {"type": "string", "description": "Hosts that are asked without a proxy, with commas between."},
    "SSL_CERT_FILE": {
        "type": "string",
        "pattern": _PATH,
        "description": "A mounted file with the authorities to trust in place of the system's.",
    },
}
"""What no class reads: libraries do."""
_OF_LAUNCHER: Final = {
    "MOA_COLOCATE": {
        "enum": ["", "none", "text"],
        "description": "`text`: each router asks text providers itself, in one process less.",
    },
}
"""What no process reads: which processes there are."""


def settings_schema(names: Iterable[str], kinds: Iterable[type[Settings]]) -> dict[str, Any]:
    """Return the schema of `settings`: each of `names` by the first class of `kinds` that has it. Unknown ones are
    left to the chart's templates, which say where they belong."""
    kinds = tuple(kinds)
    known = {name: _OF_LIBRARIES.get(name) or _setting(name, kinds) for name in names}
    traces = {name: {"type": ["string", "integer", "boolean"], **_pattern(text)} for name, text in TRACES.items()}
    return {
        "type": "object",
        "properties": dict(sorted({**known, **traces, **_OF_LAUNCHER}.items())),
        "additionalProperties": {"type": ["string", "integer", "number", "boolean"]},
    }


def bounds(names: Iterable[str], kinds: Iterable[type[Settings]]) -> dict[str, dict[str, float]]:
    """Return the bounds of those of `names` that are numbers: a schema holds a number against them, not a text."""
    kinds = tuple(kinds)
    found = {name: _bounds(_read_by(name, kinds)[1]) for name in names if name.startswith("MOA_")}
    return {name: given for name, given in found.items() if given}


def _setting(name: str, kinds: tuple[type[Settings], ...]) -> dict[str, Any]:
    kind, field = _read_by(name, kinds)
    found = _of_field(field) | _pattern(_PATTERNS.get(name, ""))
    return {**found, "description": descriptions(kind)[name.removeprefix("MOA_").lower()]}


def _read_by(name: str, kinds: tuple[type[Settings], ...]) -> tuple[type[Settings], FieldInfo]:
    attribute = name.removeprefix("MOA_").lower()
    for kind in kinds:
        if attribute in kind.model_fields:
            return kind, kind.model_fields[attribute]
    raise LookupError(f"{name}: no process has such a setting")


def _of_field(field: FieldInfo) -> dict[str, Any]:
    """Return what a value may be. An empty text is one that is not set."""
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return {"enum": ["", *get_args(annotation)]}
    kinds = set(get_args(annotation) or (annotation,))
    if bool in kinds:
        return {"enum": _TRUTH}
    if kinds & {int, float}:
        number, after = ("number", "[0-9]+") if float in kinds else ("integer", "0+")
        return {"type": [number, "string"], "pattern": rf"^(-?[0-9]+(\.{after})?)?$", **_bounds(field)}
    if Path in kinds:
        return {"type": "string", "pattern": _PATH}
    patterns = [each.pattern for each in field.metadata if getattr(each, "pattern", None)]
    return {"type": ["string", "integer", "number"], **_pattern(f"^$|{patterns[0]}" if patterns else "")}


def _bounds(field: FieldInfo) -> dict[str, Any]:
    names = {Ge: "minimum", Gt: "exclusiveMinimum", Le: "maximum", Lt: "exclusiveMaximum"}
    return {
        names[kind]: getattr(each, kind.__name__.lower())
        for each in field.metadata
        for kind in names
        if type(each) is kind
    }


def _pattern(text: str) -> dict[str, Any]:
    return {"pattern": text} if text else {}


@functools.cache
def descriptions(kind: type[Settings]) -> dict[str, str]:
    """Return what a class and those before it say of each field, in the text that stands under it."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if issubclass(each, Settings):
            found.update(_descriptions_in(ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]))
    return found


def _descriptions_in(tree: ast.AST) -> Iterator[tuple[str, str]]:
    body = getattr(tree, "body", [])
    for one, after in itertools.pairwise(body):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            text = getattr(getattr(after, "value", None), "value", None)
            if isinstance(text, str):
                yield one.target.id, " ".join(text.split())


def described(values: Path) -> dict[tuple[str, ...], str]:
    """Return the comment over each key of a file of values, by the keys that lead to it."""
    found: dict[tuple[str, ...], str] = {}
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in values.read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.lstrip("# "))
            continue
        key, colon, _ = text.partition(":")
        if colon and not text.startswith("-"):
            indent = len(line) - len(line.lstrip())
            path = [*(each for each in path if each[0] < indent), (indent, key)]
            if comment:
                found[tuple(name for _, name in path)] = " ".join(comment)
        comment = []
    return found
