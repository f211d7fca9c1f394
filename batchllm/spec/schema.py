"""The JSON Schema of a spec, for editors and for the messages about unknown keys.

It is pydantic's schema of the forms a user may write, plus what pydantic doesn't know of: null means absent everywhere, `simulated` needs no model id, several
models need routes, and some values are for later versions.
"""

from __future__ import annotations

from typing import Any

from batchllm.spec.findings import Path
from batchllm.spec.unsupported import REFUSED


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a job spec."""
    from batchllm.spec.job import JobSpec

    schema = JobSpec.model_json_schema(mode="validation", by_alias=True)
    _leave_out_later_versions(schema)
    for part in [schema, *schema["$defs"].values()]:
        _allow_null(part)
    model = schema["$defs"]["ModelSpec"]
    model["required"] = ["provider"]
    model["if"] = {"properties": {"provider": {"const": "simulated"}}}
    nothing = {"type": "null"}
    model["then"] = {"properties": dict.fromkeys(("base_url", "api_key_env", "api_key_command", "api_key_file"), nothing)}
    model["else"] = {
        "required": ["model"],
        "properties": {"simulator": nothing, "model": {"type": "string"}},
        "if": {"properties": {"provider": {"const": "openai-compatible"}}},
        "then": {"anyOf": [{"required": [key], "properties": {key: {"type": "string"}}} for key in ("base_url", "host")]},
        "else": {"properties": {"host": nothing}},
    }
    # One message or the messages: `{}` would be a prompt that says nothing.
    schema["$defs"]["PromptSpec"]["anyOf"] = [
        {"required": [key], "properties": {key: {"not": {"type": "null"}}}} for key in ("user", "file", "messages")
    ]
    schema["properties"]["models"] |= {"minProperties": 1, "propertyNames": {"pattern": r"^[^.\s]([^.]*[^.\s])?$"}}
    schema["if"] = {"properties": {"models": {"minProperties": 2}}, "required": ["models"]}
    schema["then"] = {"required": ["routes"], "properties": {"routes": {"type": "array", "minItems": 1}}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "batchllm job"}


def _allow_null(part: dict[str, Any]) -> None:
    required = part.get("required", [])
    for name, value in part.get("properties", {}).items():
        value.pop("title", None)  # pydantic's titles only repeat the key
        if isinstance(value.get("default"), dict):
            del value["default"]  # the defaults of its keys say it
        if name in required or _takes_null(value):
            continue
        notes = {key: value.pop(key) for key in ("description", "default") if key in value}
        options = value["anyOf"] if set(value) == {"anyOf"} else [dict(value)]
        value.clear()
        value |= {**notes, "anyOf": [*options, {"type": "null"}]}


def _takes_null(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "null" or None in schema.get("enum", []) or any(_takes_null(option) for option in schema.get("anyOf", []))


def _leave_out_later_versions(schema: dict[str, Any]) -> None:
    for refused in REFUSED:
        *steps, name = refused.path.split(".")
        for node in nodes_at(schema, tuple(steps)):
            target = node.get("properties", {}).get(name)
            if target is None:
                continue
            later = ", ".join(refused.values) or refused.name
            note = "Not supported by this version yet" + (f": {later.replace('`', '')}." if later else ".")
            target["description"] = f"{target.get('description', '')} {note}".strip()
            if refused.leaves is not None:
                notes = {key: target[key] for key in ("description", "default") if key in target}
                target.clear()
                target |= {**refused.leaves, **notes}
            elif refused.values:
                target["enum"] = [value for value in target["enum"] if value not in refused.values]


def nodes_at(schema: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The object schemas that a path of keys leads to; `*` or an index is any key or item."""
    nodes = _options(schema, schema)
    for step in path:
        found: list[dict[str, Any]] = []
        for node in nodes:
            inner = node.get("properties", {}).get(step)
            if inner is None and (step == "*" or isinstance(step, int)):
                inner = node.get("items")
            if inner is None and isinstance(node.get("additionalProperties"), dict):
                inner = node["additionalProperties"]
            if inner is not None:
                found.extend(_options(schema, inner))
        nodes = found
    return nodes


def _options(root: dict[str, Any], node: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        return _options(root, root["$defs"][node["$ref"].rsplit("/", 1)[1]])
    if "anyOf" in node:
        return [option for each in node["anyOf"] for option in _options(root, each)]
    return [node]
