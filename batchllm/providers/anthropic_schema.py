"""A JSON Schema as Anthropic's grammar takes it.

The trap: objects must be closed, and numbers and lengths can't be limited there. What is dropped goes into the description, so that the model may follow it; the engine
holds every answer against the whole schema anyway. Source: protocols B.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_KEPT = frozenset({
    "type", "enum", "const", "anyOf", "allOf", "$ref", "$defs", "definitions", "properties", "required", "items", "title", "description", "default",
})  # fmt: skip
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_SAID = frozenset({
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern", "format",
    "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties",
})  # fmt: skip
"""Limits that the grammar can't hold: the description tells the model of them."""


def closed_schema(schema: Any, warn: Callable[[str], None]) -> Any:
    """A JSON Schema as Anthropic's grammar takes it: closed objects, no limits of numbers and lengths (they go into the description), `oneOf` as `anyOf`."""
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    limits: list[str] = []
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            made[key] = {name: closed_schema(inner, warn) for name, inner in value.items()}
        elif key in ("anyOf", "allOf", "oneOf") and isinstance(value, Sequence):
            made["anyOf" if key == "oneOf" else key] = [closed_schema(inner, warn) for inner in value]
        elif key == "items":
            made[key] = closed_schema(value, warn)
        elif key in _KEPT or (key == "format" and value in _FORMATS) or (key == "minItems" and value in (0, 1)):
            made[key] = value
        elif key in _SAID:
            limits.append(f"{key}: {value}")
    types = schema.get("type")
    if types == "object" or (isinstance(types, Sequence) and "object" in types) or "properties" in schema:
        if schema.get("additionalProperties") not in (None, False):
            warn("Claude's structured output knows closed objects only: `additionalProperties` of the schema is sent as false")
        made["additionalProperties"] = False
    if limits:
        said = f"({', '.join(limits)})"
        made["description"] = f"{made['description']} {said}" if made.get("description") else said
    return made
