"""Two keys that are more than one plain value: the schema of `output`, inline or in a file of its own, and the models under `use`, in order or by weight.

A schema's file is read when the spec is, as a prompt's is, so that its content counts for what was asked. Whether it is a JSON Schema is the engine's to say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationInfo

from batchllm.core import json
from batchllm.core.errors import SpecError
from batchllm.spec.findings import shown
from batchllm.spec.values import Names, Text, wrong


def _schema(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, dict):
        return value or wrong("an empty schema says nothing about the answer; leave it out")
    return _read(value, info) if isinstance(value, str) else wrong(f"expected a JSON Schema or the path of one, got {shown(value)}")


def _read(name: str, info: ValidationInfo) -> dict[str, Any]:
    folder: Path = (info.context or {}).get("folder") or Path.cwd()
    try:
        text = (folder / name).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        wrong(f"no such file: {name} (looked for in {folder})")
    except UnicodeDecodeError as error:
        wrong(f"{name} is not UTF-8 (byte {error.start})")
    except OSError as error:
        wrong(f"{name} can't be read: {error.strerror or error}")
    data = _yaml(text, name) if name.lower().endswith((".yaml", ".yml")) else _json(text, name)
    if not isinstance(data, dict) or not data:
        wrong(f"{name}: a JSON Schema is an object with keys such as `type` and `properties`, got {shown(data)}")
    return data


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        wrong(f"{name}:{error.lineno}:{error.colno}: not JSON: {error.msg}")


def _yaml(text: str, name: str) -> Any:
    from batchllm.spec.reading import read

    try:
        found = read(text, file=name)
    except SpecError as error:
        wrong(str(error.problems[0]))
    if found.problems:
        wrong(str(found.problems[0]))
    return found.data


AnswerSchema = Annotated[dict[str, Any], BeforeValidator(_schema, json_schema_input_type=Text | dict[str, Any])]
"""A JSON Schema, read."""


def _weight(value: Any) -> Any:
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        wrong(f"expected a weight such as 80 (0 or more), got {shown(value)}")
    return float(value)


def _weights(value: dict[str, float]) -> dict[str, float]:
    if not any(value.values()):
        wrong("needs at least one weight above 0")
    return value


_Weights = Annotated[dict[Text, Annotated[float, BeforeValidator(_weight)]], AfterValidator(_weights), Field(min_length=1)]
_WeightsSchema = Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(min_length=1)]
Use = Annotated[
    # The steps that the tags add to an error's path are in no spec, and are left out there.
    Annotated[Names, Tag("\0names")] | Annotated[_Weights, Tag("\0weights")],
    Discriminator(lambda value: "\0weights" if isinstance(value, dict) else "\0names"),
    BeforeValidator(lambda value: value, json_schema_input_type=Text | Annotated[list[Text], Field(min_length=1)] | _WeightsSchema),
]
"""Names in order, or a mapping of names to weights."""
