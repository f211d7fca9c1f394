"""`map_frame`: a data frame in, the same frame with the answers' columns out. Pandas and polars, whichever the frame is; neither is imported here.

The trap is the index: answers are put beside their rows by order, never by label, so a filtered or shuffled frame of pandas keeps its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchllm.api.items import map_items
from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Result

COLUMNS = ("output", "status", "error", "cost_usd")


def map_frame(
    frame: Any,
    model: str | Mapping[str, Any],
    *,
    prompt: str | Mapping[str, Any],
    schema: Mapping[str, Any] | str | type[Any] | None = None,
    prefix: str = "",
    budget_usd: float | str | None = None,
    store: str | Path | None = None,
    request: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | str | None = None,
    concurrency: int | None = None,
) -> Any:
    """Asks a model about each row of a frame; returns a new frame of the same kind with the answers as further columns.

        frame = batchllm.map_frame(frame, "openai:gpt-6-luna", prompt="Label as positive or negative: {{ text }}", budget_usd=2)
        frame[frame.status == "ok"].output

    `frame`: of pandas or polars. Columns are names in the `prompt`; a missing value (NaN, NaT, null) is null. New columns: `output`, `status`, `error` (a code,
    or None) and `cost_usd`; with a `schema` also one for each of its top-level properties, or `parsed` where it is no object. `prefix` goes before each of these
    names. The other arguments are those of `map`: with a `store` a second call asks only what is new.

    Raises SpecError for what is no frame and for columns that would be replaced; Stopped when the run ends early (call again with the same `store` to go on).
    """
    rows = _rows(frame)
    taken = {str(name) for name in frame.columns}
    # Before anything is paid for.
    for name in (*COLUMNS, *_properties(schema)):
        if f"{prefix}{name}" in taken:
            raise _clash(f"{prefix}{name}")
    found = map_items(
        rows, model, prompt=prompt, schema=schema, budget_usd=budget_usd, store=store, request=request, limits=limits, concurrency=concurrency
    )
    columns = {f"{prefix}{name}": values for name, values in _columns(found, schema is not None).items()}
    return _with(frame, {f"{name}_" if name in taken else name: values for name, values in columns.items()})


def _properties(schema: Any) -> list[str]:
    """Names of the schema's top-level properties, as far as they are known beforehand."""
    if isinstance(schema, type) and hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    return [name for name in schema.get("properties", {}) if name not in COLUMNS] if isinstance(schema, Mapping) else []


def _clash(name: str) -> SpecError:
    return SpecError(
        Problem(file="frame", message=f"it has a column {name!r} already, which an answer's would replace; give a `prefix`, such as 'llm_'")
    )


def _kind(frame: Any) -> str:
    name = type(frame).__module__.partition(".")[0]
    if name not in {"pandas", "polars"} or type(frame).__name__ != "DataFrame":
        raise SpecError(
            Problem(file="frame", message=f"expected a DataFrame of pandas or polars, got {type(frame).__module__}.{type(frame).__name__}")
        )
    return name


def _rows(frame: Any) -> list[dict[str, Any]]:
    """The rows as dicts of JSON values."""
    records = frame.to_dict("records") if _kind(frame) == "pandas" else frame.to_dicts()
    return [{str(name): _value(value) for name, value in record.items()} for record in records]


def _value(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return _value(value.tolist())
    # pandas' NA and NaT are not equal to themselves, or refuse to say.
    try:
        if value != value:  # noqa: PLR0124 - the test for NaT
            return None
    except TypeError:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _columns(results: Sequence[Result], has_schema: bool) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "output": [result.output for result in results],
        "status": [result.status for result in results],
        "error": [str(result.error.code) if result.error is not None else None for result in results],
        "cost_usd": [result.cost_usd for result in results],
    }
    if not has_schema:
        return columns
    values = [result.parsed for result in results]
    if any(value is not None and not isinstance(value, dict) for value in values):
        return {**columns, "parsed": values}
    names = dict.fromkeys(name for value in values if value is not None for name in value)
    # A property that is called like one of ours keeps its name, with an underscore behind it.
    return columns | {f"{name}_" if name in columns else name: [value.get(name) if value is not None else None for value in values] for name in names}


def _with(frame: Any, columns: Mapping[str, list[Any]]) -> Any:
    if _kind(frame) == "pandas":
        return frame.assign(**columns)
    series = type(frame)(dict(columns), strict=False)
    return frame.hstack(series)
