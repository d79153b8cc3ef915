"""Put the document together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, Final, get_args, get_origin

import msgspec
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2

from deploy.build.openapi import bodies
from deploy.build.openapi.messages import Contracts, Json, Schemas
from gateway.routes import DIALECTS
from services.common import dialects, idempotency
from services.common.dialects.anthropic import VERSION_KEY
from services.router.idempotency.calls import PAID

HTTP_BODY = ".google.api.HttpBody"
_REF = "#/components/schemas/{name}"
_UNNAMED: Final = "deployment"
"""What a part of a path is called that the edge tells in a header: Azure's form names the model there."""
_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=([^}]*))?\}")

_SECURITY = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer"},
    "GoogleKey": {"type": "apiKey", "in": "header", "name": "x-goog-api-key"},
    "QueryKey": {"type": "apiKey", "in": "query", "name": "key"},
}


def document(descriptors: bytes) -> Json:
    """Return the OpenAPI 3.1 document of every REST binding in a descriptor set that the edge serves."""
    contracts = Contracts(descriptors)
    schemas = Schemas(contracts)
    raw, components = _models()
    paths: dict[str, Json] = {}
    for service, described in contracts.services:
        if service not in DIALECTS:
            continue
        for method in described.method:
            maker = _Operation(contracts, schemas, raw, service, method)
            for path, verb, operation in maker.operations():
                paths.setdefault(path, {})[verb] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Moa",
            "version": "0.1.0",
            "description": "One gateway to every generative model. Each dialect reaches every model.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name.rpartition(".")[2], "description": contracts.comments[name]} for name in DIALECTS],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": _SECURITY,
            "schemas": {**components, **schemas.components, **dict(_errors())},
        },
    }


def _models() -> tuple[Mapping[Any, Json], Mapping[str, Json]]:
    """Return the schema of each raw body's model, and the components that they refer to."""
    methods = bodies.METHODS.values()
    given = (*(method.reads for method in methods), *(method.answers for method in methods))
    wanted: list[Any] = [each for each in dict.fromkeys(given) if each is not None]
    single = list(dict.fromkeys(one for each in wanted for one in _alternatives(each)))
    made, components = msgspec.json.schema_components(single, ref_template=_REF)
    by_type = dict(zip(single, made, strict=True))
    results = {
        each: by_type[each] if each in by_type else {"anyOf": [by_type[one] for one in _alternatives(each)]}
        for each in wanted
    }
    return results, components


def _alternatives(model: Any) -> Iterable[Any]:
    """A union of structs, which msgspec cannot tell apart, is described one by one."""
    # `a | b` is a `UnionType`, which is `Union` from Python 3.14 on.
    return get_args(model) if get_origin(model) is UnionType else (model,)


def _errors() -> Iterator[tuple[str, Json]]:
    for name, dialect in dialects.DIALECTS.items():
        shapes = [dialect.envelope, *dialect.variants.values()]
        schemas = [_shape(shape) for shape in shapes]
        unique = [each for at, each in enumerate(schemas) if each not in schemas[:at]]
        yield f"Error_{name}", unique[0] if len(unique) == 1 else {"anyOf": unique}


def _shape(shape: Any) -> Json:
    """Return the schema of an error's envelope."""
    if isinstance(shape, Mapping):
        return {
            "type": "object",
            "properties": {key: _shape(value) for key, value in shape.items()},
            "required": list(shape),
        }
    if isinstance(shape, list):
        items = [_shape(value) for value in shape]
        return {"type": "array", "items": items[0] if len(items) == 1 else {"anyOf": items}}
    if shape == dialects.STATUS:
        return {"type": "integer"}
    if shape == dialects.MESSAGE:
        return {"type": "string"}
    if isinstance(shape, str) and shape.startswith("$"):
        return {"type": ["string", "integer", "null"]}
    return {"const": shape}


_ANSWERED = {path.removeprefix("/").replace("/", "."): bodies.ANSWERED_ONCE for path in PAID}
_IDEMPOTENT = _ANSWERED | {name: bodies.CREATED_ONCE for name, method in bodies.METHODS.items() if method.creates_task}
"""What the header does, by the methods that take it."""

_ANTHROPICS: Final = {
    VERSION_KEY: "The version of the API that its caller speaks; any is taken, and answers are those of 2023-06-01.",
    "anthropic-beta": "Betas that Anthropic's own models are asked with, parted by commas; others ignore them.",
}
"""Headers of Anthropic's dialect."""


class _Operation:
    """One method's operations: one for each of its bindings."""

    def __init__(
        self,
        contracts: Contracts,
        schemas: Schemas,
        raw: Mapping[Any, Json],
        service: str,
        method: descriptor_pb2.MethodDescriptorProto,
    ) -> None:
        self._contracts = contracts
        self._schemas = schemas
        self._raw = raw
        self._service = service
        self._method = method
        self._name = f"{service}.{method.name}"
        self._registered = bodies.registered(self._name)

    def operations(self) -> Iterator[tuple[str, str, Json]]:
        """Return path, verb and operation of each binding."""
        if not self._method.options.HasExtension(annotations_pb2.http):
            return
        rule: http_pb2.HttpRule = self._method.options.Extensions[annotations_pb2.http]
        for number, each in enumerate((rule, *rule.additional_bindings)):
            kind = each.WhichOneof("pattern") or ""
            verb, template = (each.custom.kind, each.custom.path) if kind == "custom" else (kind, getattr(each, kind))
            path = _VARIABLE.sub(lambda match: _literal(match[2]) + "{" + match[1] + "}", template)
            path = path.replace("/*/", f"/{{{_UNNAMED}}}/")
            yield path, verb.lower(), self._operation(each, template, number)

    def _operation(self, rule: http_pb2.HttpRule, template: str, number: int) -> Json:
        short = self._service.rpartition(".")[2]
        comment = self._contracts.comments.get(self._name, "")
        summary, _, _ = comment.partition(". ")
        operation: Json = {
            "operationId": f"{short}_{self._method.name}" + (f"_{number + 1}" if number else ""),
            "tags": [short],
            "summary": summary.rstrip("."),
            "description": comment,
            "responses": self._responses(),
        }
        if self._name in bodies.SESSION_ENDS:
            operation["security"] = [{"Bearer": []}, {}]
        else:
            keyless = not self._registered.needs_key or self._name in bodies.KEYLESS
            operation["security"] = [] if keyless else [{name: []} for name in _SECURITY]
        bound = {result[1] for result in _VARIABLE.finditer(template)}
        parameters = [*self._path_parameters(template), *self._query_parameters(rule, bound), *self._headers()]
        if parameters:
            operation["parameters"] = parameters
        if rule.body:
            operation["requestBody"] = {"required": True, "content": self._request(rule, bound)}
        return operation

    def _path_parameters(self, template: str) -> Iterator[Json]:
        for result in _VARIABLE.finditer(template):
            schema: Json = {"type": "string", "minLength": 1}
            if "**" not in (result[2] or ""):
                schema["pattern"] = "^[^/]+$"
            description = self._contracts.comments.get(f"{self._method.input_type}.{result[1]}", "")
            yield {"name": result[1], "in": "path", "required": True, "schema": schema, "description": description}
        if "/*/" in template:
            described = "The model, where the body names none."
            schema = {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}
            yield {"name": _UNNAMED, "in": "path", "required": True, "schema": schema, "description": described}

    def _query_parameters(self, rule: http_pb2.HttpRule, bound: set[str]) -> Iterator[Json]:
        if rule.body == "*" or self._method.input_type == HTTP_BODY:
            return
        for name, schema in self._schemas.fields(self._method.input_type, without=bound | {rule.body}):
            referred = self._schemas.components.get(schema.get("$ref", "").rpartition("/")[2], schema)
            if referred.get("type") not in (None, "object"):
                yield {"name": name, "in": "query", "schema": schema}

    def _headers(self) -> Iterator[Json]:
        if description := _IDEMPOTENT.get(self._name):
            schema = {"type": "string", "minLength": 1, "maxLength": idempotency.MOST_CHARS}
            yield {"name": idempotency.HEADER, "in": "header", "schema": schema, "description": description}
        for name, description in _ANTHROPICS.items() if DIALECTS[self._service] == "anthropic" else ():
            yield {"name": name, "in": "header", "schema": {"type": "string"}, "description": description}

    def _request(self, rule: http_pb2.HttpRule, bound: set[str]) -> Json:
        model = self._registered.reads
        if model is not None:
            content = {"application/json": {"schema": self._raw[model]}}
            if self._registered.takes_form:
                files = {name: {"type": "string", "contentMediaType": "image/*"} for name in ("image", "mask")}
                form = {"allOf": [{"type": "object", "properties": files}], "type": "object"}
                content["multipart/form-data"] = {"schema": form}
            return content
        if self._method.input_type == HTTP_BODY or rule.body != "*":
            return {"application/json": {"schema": {"type": "object"}}}
        schema = self._schemas.object(self._method.input_type, without=frozenset(bound))
        return {"application/json": {"schema": schema | {"additionalProperties": False}}}

    def _responses(self) -> Json:
        dialect = DIALECTS[self._service]
        names = {dialect}
        if self._method.name in ("ListModels", "GetModel"):
            names |= {each.name for each in dialects.DIALECTS.values() if each.header}
        refs = [{"$ref": _REF.format(name=f"Error_{name}")} for name in sorted(names)]
        error = refs[0] if len(refs) == 1 else {"anyOf": refs}
        failed = {
            "description": "A failure, in the dialect's words.",
            "content": {"application/json": {"schema": error}},
        }
        done = {"description": "Done.", "content": self._answer()}
        responses: Json = {"2XX": done, "4XX": failed, "5XX": failed}
        if self._name in bodies.REDIRECTS:
            moved = {"location": {"schema": {"type": "string"}, "description": "Where the browser goes on."}}
            responses = {"302": {"description": "Sent elsewhere.", "headers": moved}, "4XX": failed, "5XX": failed}
        if self._registered.degrades:
            responses["503"] = {"description": "A part is down; the body tells which.", "content": self._answer()}
        if self._name in _IDEMPOTENT:
            responses["422"] = failed | {
                "description": "The Idempotency-Key was given to another request, or a field is bad."
            }
        if self._name in _ANSWERED:
            responses["409"] = failed | {
                "description": "The request with this Idempotency-Key is worked at (ask again after Retry-After), or "
                "was made and its answer cannot be given."
            }
            mark = {"schema": {"const": "true"}, "description": "The answer was given before, and costs nothing."}
            done["headers"] = {idempotency.REPLAYED: mark}
        return responses

    def _answer(self) -> Json:
        if self._name in bodies.FILES:
            return {"*/*": {"schema": {}}}
        if self._name in bodies.TABLES:
            return {"text/csv": {"schema": {"type": "string"}}}
        if self._method.output_type != HTTP_BODY:
            content: Json = {"application/json": {"schema": self._schemas.ref(self._method.output_type)}}
        else:
            model = self._registered.answers
            content = {"application/json": {"schema": {"type": "object"} if model is None else self._raw[model]}}
        if self._registered.streams:
            content["text/event-stream"] = {"schema": {"type": "string"}}
        return content


def _literal(pattern: str | None) -> str:
    """Return the fixed beginning of a variable's pattern: `models/` of `models/**`."""
    return (pattern or "").rstrip("*")
