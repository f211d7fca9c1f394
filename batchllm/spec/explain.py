"""pydantic's errors in words for the person who wrote the spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from batchllm.spec.findings import Finding, Path, did_you_mean, shown, written_path
from batchllm.spec.schema import json_schema, nodes_at

_SECRET_KEYS = frozenset({"headers", "api_key_env", "api_key_command", "api_key_file"})


def explain(error: ValidationError, data: Mapping[str, Any]) -> list[Finding]:
    """One finding per error. A key that is missing because it was misspelt is told once, at the misspelt key."""
    findings = []
    guessed: set[Path] = set()
    schema: dict[str, Any] | None = None
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "extra_forbidden":
            schema = schema or json_schema()
            message, meant = _unknown_key(detail["loc"], schema)
            guessed |= {(*written_path(data, detail["loc"][:-1]), meant)} if meant else set()
            findings.append(Finding(path=detail["loc"], at="key", message=message))
    for detail in details:
        path = detail["loc"]
        if detail["type"] == "missing":
            if (*written_path(data, path[:-1]), path[-1]) not in guessed:
                findings.append(Finding(path=path, at="missing", message="this key is required"))
        elif detail["type"] == "too_short" and any(other["loc"][: len(path)] == path != other["loc"] for other in details):
            pass  # pydantic counts the good items only
        elif detail["type"] == "spec_at":
            findings.append(Finding(path=(*path, *detail["ctx"]["path"]), message=words(detail)))
        elif detail["type"] != "extra_forbidden":
            findings.append(Finding(path=path, message=words(detail)))
    return findings


def _unknown_key(path: Path, schema: dict[str, Any]) -> tuple[str, str | None]:
    """The message, and the key of the same level that was probably meant."""
    name = str(path[-1])
    here = {key: node for option in nodes_at(schema, path[:-1]) for key, node in option.get("properties", {}).items()}
    close = did_you_mean(name, here)
    inner = [key for key in here if any(name in option.get("properties", {}) for option in nodes_at(schema, (*path[:-1], key)))]
    if inner and name not in close:
        return f"unknown key; did you mean `{inner[0]}.{name}`?", None
    if close:
        return f"unknown key{close}", close.split("`")[1]
    top = schema["properties"]
    outer = (
        [name]
        if name in top
        else [f"{key}.{name}" for key in top if any(name in option.get("properties", {}) for option in nodes_at(schema, (key,)))]
    )
    if outer and len(path) > 1:
        return f"unknown key here; `{outer[0]}` belongs to the top level", None
    return f"unknown key; possible here: {', '.join(here)}" if here else "unknown key", None


_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "list_type": "a list",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def words(detail: ErrorDetails) -> str:
    """What one of pydantic's errors means, without its place."""
    kind, value, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    got = "" if _SECRET_KEYS & set(detail["loc"]) else f", got {shown(value)}"
    if kind in ("spec", "spec_at"):
        return str(context["text"])
    if kind in _EXPECTED:
        quotes = " (put it in quotes)" if kind == "string_type" and isinstance(value, int | float) else ""
        return f"expected {_EXPECTED[kind]}{got}{quotes}"
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"must be {words} {context[name]:,.12g}{got}"
    if kind == "literal_error":
        choices = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        return f"expected {' or '.join([', '.join(choices[:-1]), choices[-1]]) if len(choices) > 1 else choices[0]}{got}" + (
            did_you_mean(value, choices) if isinstance(value, str) else ""
        )
    if kind in {"string_too_short", "too_short"}:
        return "must not be empty"
    return f"{detail['msg']}{got}"
