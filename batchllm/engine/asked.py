"""JSON Schemas inside of `request`: those of tools' arguments, and a `response_format` of the user's own. A provider would refuse each row for a wrong one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from batchllm.core.errors import Problem
from batchllm.spec import JobSpec
from batchllm.spec.findings import dotted
from batchllm.spec.tools import tool_schemas
from batchllm.validate.schema import BadSchema, Schema


def request_problems(spec: JobSpec) -> list[Problem]:
    """What is wrong with them: no schema, a `$ref` that would have to be fetched."""
    places: list[tuple[tuple[str | int, ...], Mapping[str, Any]]] = [(("request",), spec.request)]
    places += [(("models", name, "request"), model.request) for name, model in spec.models.items()]
    return [problem for path, params in places for problem in _problems(path, params)]


def _problems(path: tuple[str | int, ...], params: Mapping[str, Any]) -> Iterator[Problem]:
    schemas = list(tool_schemas(params))
    form = params.get("response_format")
    inner = form.get("json_schema") if isinstance(form, Mapping) else None
    if isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping):
        schemas.append((("response_format", "json_schema", "schema"), inner["schema"]))
    for inside, schema in schemas:
        try:
            Schema(schema)
        except BadSchema as error:
            yield Problem(path=dotted((*path, *inside)), message=str(error))
