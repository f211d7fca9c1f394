"""A JSON Schema: whether it is one, what providers are sent of it, and how an error in an answer is told.

Traps: the validator would fetch a remote `$ref` at the time it is built (here nothing is ever fetched), and providers' strict modes know a part of the
language only - a schema outside of it is refused with 400, so it is sent without `strict` and the answer is held against the whole of it here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs

_SHOWN_ERRORS = 3
_SHOWN = 200
"""Characters of one error; the validator quotes the value that is wrong, however long it is."""


class BadSchema(ValueError):  # noqa: N818 - the engine makes a SpecError of it
    """No schema that can be used; the text says why, and the mend."""


class Schema:
    """A compiled schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises `BadSchema`."""
        self.source = dict(schema)
        asked: list[str] = []

        def refuse(uri: str) -> Any:
            asked.append(uri)
            raise ValueError("nothing is fetched")

        try:
            self._validator = jsonschema_rs.validator_for(self.source, validate_formats=True, retriever=refuse)
        except (ValueError, TypeError) as error:
            raise BadSchema(_why(error, asked, self.source)) from None

    def is_valid(self, value: Any) -> bool:
        """Whether a value is what the schema describes."""
        return bool(self._validator.is_valid(value))

    def errors(self, value: Any) -> str:
        """What is wrong with a value: paths and rules, the first few."""
        told: list[str] = []
        more = 0
        for error in self._validator.iter_errors(value):
            if len(told) < _SHOWN_ERRORS:
                told.append(f"{_path(error.instance_path)}: {_cut(error.message)} ({_rule(error.schema_path)})")
            else:
                more += 1
        return "; ".join(told) + (f"; and {more} more" if more else "")


def _why(error: Exception, asked: list[str], schema: Mapping[str, Any]) -> str:
    if asked and asked[0] == schema.get("$schema"):
        return f"`$schema: {asked[0]}` is no draft of JSON Schema; leave it out, or write https://json-schema.org/draft/2020-12/schema"
    if asked:
        # A relative one comes with a base that the validator makes up.
        return f"`$ref: {asked[0].removeprefix('json-schema:///')}` is not fetched: put that schema under `$defs` and refer to it as `#/$defs/NAME`"
    words = (str(getattr(error, "message", "")) or str(error)).strip().partition("\n")[0]
    path = "/".join(str(step) for step in getattr(error, "instance_path", ()))
    if path == "type" or path.endswith("/type"):
        words = f"{words.partition(' is ')[0]} is no type; there are array, boolean, integer, null, number, object and string"
    return f"not a JSON Schema: {f'at {path}: ' if path else ''}{_cut(words)}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"


def _path(steps: Any) -> str:
    """`$.items[0].price`."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _rule(steps: Any) -> str:
    names = [step for step in steps if isinstance(step, str)]
    return names[-1] if names else "schema"


# What providers are sent.

_STRICT_KEYS = frozenset(
    [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "const",
        "anyOf",
        "$ref",
        "$defs",
        "definitions",
        "title",
        "description",
        "format",
        "pattern",
        "multipleOf",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minItems",
        "maxItems",
    ]
)
"""What strict modes take (OpenAI's list, the narrowest that says so)."""
_STRICT_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_META = frozenset({"$schema", "$id", "$comment"})
_OWN_REF = re.compile(r"#/(\$defs|definitions)/")
_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def is_strict(schema: Mapping[str, Any]) -> bool:
    """Whether every object of the schema names all its properties as required and allows no others, and nothing is outside of what strict modes know."""
    return schema.get("type") == "object" and all(_strict_node(node) for node in _nodes(schema))


def _strict_node(node: Any) -> bool:
    if not isinstance(node, Mapping) or not node:
        return False
    if not set(node) <= _STRICT_KEYS or node.get("format", "date") not in _STRICT_FORMATS:
        return False
    kind = node.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in node:
        return node.get("additionalProperties") is False and set(node.get("required", ())) == set(node.get("properties", {}))
    return True


def _nodes(schema: Any) -> Iterator[Any]:
    """A schema and all those inside it."""
    yield schema
    if not isinstance(schema, Mapping):
        return
    for key in ("properties", "$defs", "definitions"):
        inner = schema.get(key)
        for child in inner.values() if isinstance(inner, Mapping) else ():
            yield from _nodes(child)
    if "items" in schema:
        yield from _nodes(schema["items"])
    for child in schema.get("anyOf", ()) if isinstance(schema.get("anyOf"), list) else ():
        yield from _nodes(child)


def wire_name(schema: Mapping[str, Any], default: str) -> str:
    """The schema's title as providers take names: up to 64 of `[A-Za-z0-9_-]` (protocols A.2)."""
    title = schema.get("title")
    return (_NAME.sub("_", title).strip("_")[:64] if isinstance(title, str) else "") or default


def is_object(schema: Mapping[str, Any]) -> bool:
    """Whether answers are objects, as far as the schema's own top says so."""
    return schema.get("type") == "object" or ("type" not in schema and "properties" in schema)


def wrapped(schema: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """The schema of an object that holds the value under `key`, for providers that take objects only. None when references would point elsewhere then."""
    if any(isinstance(ref, str) and not _OWN_REF.match(ref) for ref in _refs(schema)):
        return None
    moved = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    inner = {name: value for name, value in schema.items() if name not in moved and name not in _META}
    return {"type": "object", "properties": {key: inner}, "required": [key], "additionalProperties": False, **moved}


def _refs(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in {"$ref", "$dynamicRef", "$recursiveRef"}:
                yield item
            yield from _refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from _refs(item)


def bare(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without its notes about itself."""
    return {name: value for name, value in schema.items() if name not in _META}
