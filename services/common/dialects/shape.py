"""What a dialect is to the gateway: which services speak it, how it words a failure, and how its streams end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from moa.common.v1 import error_pb2
from moa.common.v1.error_pb2 import Reason
from services.common.errors import HTTP_STATUS, MoaError, word
from services.common.limits import OutsideLimits

Header = tuple[str, str]

_INDEX: Final = re.compile(r"\[[^\]]*\]")
_PLACED: Final = (
    error_pb2.REASON_INVALID_FIELD,
    error_pb2.REASON_UNSUPPORTED,
    error_pb2.REASON_UNSUPPORTED_MEDIA,
)
"""Reasons whose errors are about one field."""
MESSAGE: Final = "$message"
"""Placeholder for the sentence."""
PARAM: Final = "$param"
"""Placeholder for the field at fault; null when there is none."""
FIELD: Final = "$field"
"""As PARAM, but an empty string when there is none."""
STATUS: Final = "$status"
"""Placeholder for the HTTP status, a number."""
REQUEST_ID: Final = "$request_id"
"""Placeholder for the request's id."""


@dataclass(frozen=True, kw_only=True)
class StreamEnd:
    """How a dialect's streams of server-sent events end.

    `mark` is the data of an event behind the whole answer; empty where the stream just ends. `failure_field` is the
    field in which a failure stands in the last event of its own; empty where the error's envelope is that event.
    `failure_event` is that event's name; empty where it has none. The mark stands behind a failure only where
    `marks_failure` says so.
    """

    mark: str = ""
    failure_field: str = ""
    failure_event: str = ""
    marks_failure: bool = False


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One dialect.

    `services` are the full names of the gRPC services whose REST bindings speak it; `large` are those whose requests
    may hold pictures. `strays` are the prefixes of paths that nobody serves and that are refused in it; `unserved` says
    what to do instead, by the beginnings of paths that the vendor has and this gateway has not.

    `envelope` is nested dicts and lists whose leaves are literals, the placeholders above, or `"$<word>"` naming an
    entry of `words`. `words[name]` maps a reason to a literal; `defaults[name]` is the literal of every other reason.
    `variants` are envelopes of other shapes, for the reasons that a dialect words apart. `fields` gives this dialect's
    names of the contract's fields where they differ and its errors name fields. `listed` is what lists its callers'
    models. `header` is the request's header by which a call of a path that several dialects share means this one;
    empty: none does. `request_id_header` is what its answers call the request's id beside `x-request-id`, and `limits`
    makes its own headers of those that tell what is left of limits. `places_faults`: its errors have no field for
    the place of a fault, so that the sentence begins with it.
    """

    name: str
    services: tuple[str, ...] = ()
    large: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    unserved: Mapping[str, str] = field(default_factory=dict)
    envelope: Mapping[str, Any]
    statuses: Mapping[Reason.ValueType, int] = field(default_factory=dict)
    words: Mapping[str, Mapping[Reason.ValueType, str | int | None]] = field(default_factory=dict)
    defaults: Mapping[str, str | int | None] = field(default_factory=dict)
    variants: Mapping[Reason.ValueType, Mapping[str, Any]] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    listed: str = "GET /v1/models"
    header: str = ""
    request_id_header: str = ""
    places_faults: bool = False
    limits: Callable[[Iterable[Header]], list[Header]] | None = None
    stream_end: StreamEnd = StreamEnd()

    def spelled(self, param: str) -> str:
        """Return the caller's name of a field at fault, whose path is the contract's (`messages[1].parts[0]`).

        A field that is called otherwise here stands for the whole path; `head.name` renames what is below a head, or
        a whole path; `messages.parts.image` what lies so deep, and its name takes the path's first indices (`[]`).
        """
        if param in self.fields:
            return self.fields[param]
        deep = self._deep(param)
        if deep:
            return deep
        head, *below = param.split(".")
        head_name = head.partition("[")[0]
        if head_name in self.fields:
            return self.fields[head_name]
        if below:
            name, bracket, index = below[0].partition("[")
            below[0] = self.fields.get(f"{head_name}.{name}", name) + bracket + index
        return ".".join((head, *below))

    def _deep(self, param: str) -> str:
        """Return the caller's name of a field that is renamed with all that it is in; empty where it is not."""
        names = _INDEX.sub("", param).split(".")
        for count in range(len(names), 1, -1):
            name = self.fields.get(".".join(names[:count]), "")
            if "[]" in name or (name and count > 2):
                head, *rest = name.split("[]")
                indices = _INDEX.findall(param)
                return head + "".join(index + piece for index, piece in zip(indices, rest, strict=False))
        return ""

    def in_its_words(self, error: MoaError) -> MoaError:
        """Return an error with the caller's names of fields, in what it says too."""
        if isinstance(error, OutsideLimits):
            error.message = error.worded(self.spelled)
        param = error.param
        error.param = self.spelled(param)
        if param and error.message.startswith(f"{param}: "):
            error.message = error.param + error.message.removeprefix(param)
        if self.places_faults and _is_unplaced(error):
            error.message = f"{error.param}: {error.message}"
        return error

    def with_limits(self, headers: Iterable[Header]) -> list[Header]:
        """Return headers, and what this dialect calls those of them that tell what is left of limits."""
        given = list(headers)
        return given if self.limits is None else [*given, *self.limits(given)]

    def status(self, reason: Reason.ValueType) -> int:
        """Return the HTTP status of a reason in this dialect."""
        return self.statuses.get(reason) or HTTP_STATUS[reason]

    def render(self, error: MoaError, *, request_id: str = "") -> dict[str, Any]:
        """Return the error as this dialect's JSON object."""
        values: dict[str, Any] = {
            MESSAGE: error.message,
            PARAM: error.param or None,
            FIELD: error.param,
            STATUS: self.status(error.reason),
            REQUEST_ID: request_id,
        }
        for name, table in self.words.items():
            values[f"${name}"] = table.get(error.reason, self.defaults.get(name))
        return _filled(self.variants.get(error.reason, self.envelope), values)


def _is_unplaced(error: MoaError) -> bool:
    """Whether an error is about one field that its sentence does not name."""
    return error.reason in _PLACED and not isinstance(error, OutsideLimits) and error.param not in error.message


def _filled(shape: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _leaf(value, values) for key, value in shape.items()}


def _leaf(shape: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(shape, Mapping):
        return _filled(shape, values)
    if isinstance(shape, list):
        return [_leaf(each, values) for each in shape]
    return values[shape] if isinstance(shape, str) and shape.startswith("$") else shape


CODES: Final[Mapping[Reason.ValueType, str]] = {reason: word(reason) for reason in HTTP_STATUS}
"""The gateway's own code of each reason."""

BAD_REQUEST: Final = (
    error_pb2.REASON_INVALID_FIELD,
    error_pb2.REASON_UNSUPPORTED,
    error_pb2.REASON_UNSUPPORTED_MEDIA,
)
"""Reasons that many APIs answer with 400."""
