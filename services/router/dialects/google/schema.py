"""From Google's `Schema` (a subset of OpenAPI 3.0 with upper-case types) to JSON Schema."""

from __future__ import annotations

from typing import Any

_LISTS = ("anyOf", "any_of", "prefixItems")
_NAMES = {"any_of": "anyOf", "min_items": "minItems", "max_items": "maxItems"} | {
    "min_properties": "minProperties",
    "max_properties": "maxProperties",
    "min_length": "minLength",
    "max_length": "maxLength",
    "additional_properties": "additionalProperties",
}
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_DROPPED = frozenset({"propertyOrdering", "property_ordering", "example"})
"""What JSON Schema has no word for and what changes no answer's validity."""


def to_json_schema(schema: Any) -> Any:
    """Translate; what is JSON Schema already comes through as it is."""
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        name = str(_NAMES.get(key, key))
        if name == "properties" and isinstance(value, dict):
            out[name] = {field: to_json_schema(inner) for field, inner in value.items()}
        elif name in _LISTS and isinstance(value, list):
            out[name] = [to_json_schema(inner) for inner in value]
        elif name in ("items", "additionalProperties", "not"):
            out[name] = to_json_schema(value)
        elif name == "type" and isinstance(value, str):
            out[name] = value.lower()
        elif name in _COUNTS and isinstance(value, str) and value.isdecimal():
            # Proto JSON prints 64-bit integers as strings.
            out[name] = int(value)
        elif name not in _DROPPED and name != "nullable":
            out[name] = value
    if schema.get("type") == "TYPE_UNSPECIFIED":
        out.pop("type")
    return _nullable(out) if schema.get("nullable") else out


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        if isinstance(schema.get("enum"), list):
            schema["enum"] = [*schema["enum"], None]
        return schema
    if "anyOf" in schema:
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    return schema
