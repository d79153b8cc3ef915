"""What the contracts say about HTTP: every REST binding, read from the protos' descriptor set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2

from moa.common.v1 import call_pb2


@dataclass(frozen=True, kw_only=True)
class Binding:
    """One way to reach one method over REST.

    `fields` are bound by the path: a query parameter of the same name would override them, so the edge ignores it.
    `streams`: the answer is sent piece by piece. `repeat`: what may be done with a call whose answer was lost.
    """

    service: str
    method: str
    verb: str
    template: str
    takes_body: bool
    streams: bool
    repeat: call_pb2.Repeat.ValueType = call_pb2.REPEAT_UNSPECIFIED

    @property
    def repeatable(self) -> bool:
        """Return whether a call may be made twice."""
        return self.repeat in (call_pb2.REPEAT_READS, call_pb2.REPEAT_SAME)

    @property
    def keyed(self) -> bool:
        """Return whether a call that has an idempotency key may be."""
        return self.repeat == call_pb2.REPEAT_KEYED

    @property
    def fields(self) -> frozenset[str]:
        """Return the fields that the path binds."""
        return frozenset(result[1] for result in _VARIABLE.finditer(self.template))

    @property
    def regex(self) -> str:
        """Return the RE2 expression of the whole path."""
        out, at = "", 0
        for result in _VARIABLE.finditer(self.template):
            out += _segments(self.template[at : result.start()]) + _segments(result[2] or "*")
            at = result.end()
        return out + _segments(self.template[at:])

    @property
    def match(self) -> dict[str, object]:
        """Return how a route of the edge finds the path: by comparing it where no part of it varies."""
        if _VARIABLE.search(self.template) or "*" in self.template:
            return {"safe_regex": {"regex": self.regex}}
        return {"path": self.template}

    @property
    def specificity(self) -> tuple[int, int, str]:
        """Return a rank: sorted by it, a path is before a wider one that would swallow it, and beside its like."""
        literal = _VARIABLE.sub("", self.template)
        return (self.template.count("*") + self.template.count("{"), -len(literal), self.regex)


_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=([^}]*))?\}")
_WILD = {"**": ".*", "*": "[^/]+"}


def _segments(template: str) -> str:
    return "".join(_WILD.get(piece) or re.escape(piece) for piece in re.split(r"(\*\*|\*)", template) if piece)


def read(descriptors: Path) -> list[Binding]:
    """List every REST binding of the descriptor set at `descriptors`, most specific path first."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    bindings = [
        binding
        for file in files.file
        for service in file.service
        for method in service.method
        for binding in _of_method(f"{file.package}.{service.name}", method)
    ]
    return sorted(bindings, key=lambda binding: binding.specificity)


def _of_method(service: str, method: descriptor_pb2.MethodDescriptorProto) -> Iterator[Binding]:
    if not method.options.HasExtension(annotations_pb2.http):
        return
    rule: http_pb2.HttpRule = method.options.Extensions[annotations_pb2.http]
    for each in (rule, *rule.additional_bindings):
        kind = each.WhichOneof("pattern")
        if kind is None:
            continue
        if kind == "custom":
            verb, template = each.custom.kind, each.custom.path
        else:
            verb, template = kind.upper(), getattr(each, kind)
        yield Binding(
            service=service,
            method=method.name,
            verb=verb,
            template=template,
            takes_body=bool(each.body),
            streams=method.server_streaming,
            repeat=method.options.Extensions[call_pb2.repeat],
        )
