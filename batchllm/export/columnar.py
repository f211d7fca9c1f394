"""Results as a Parquet file, written in row groups by pyarrow (extra `[parquet]`), so that memory stays flat.

Columns are those of the CSV, with types; what is an object there is JSON text here too. Vectors have a column of their own, `vector`, of float32: `output` is text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from batchllm.core import json
from batchllm.core.errors import SpecError
from batchllm.export.files import replacing
from batchllm.export.lines import RESULT_COLUMNS, Line, values_of

_GROUP_ROWS = 1000
_WHOLE = frozenset(
    {"row", "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens", "attempts", "error_http_status"}
)
_REAL = frozenset({"cost_usd", "latency_seconds", "agreement"})


def write_parquet(lines: Iterable[Line], path: Path, *, columns: Sequence[str] = (), extras: Sequence[str] = ()) -> None:
    """Writes all lines. `columns`: the input columns, as `input.NAME`. Raises SpecError without pyarrow."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise SpecError("Parquet needs pyarrow, which isn't installed: pip install 'batchllm[parquet]'") from error
    lines = iter(lines)
    ahead = list(islice(lines, _GROUP_ROWS))
    has_vectors = any(isinstance(line.result.output, list) for line in ahead)
    sampled = ("samples", "agreement") if any(line.result.samples is not None for line in ahead) else ()
    names = [*RESULT_COLUMNS, *(("vector",) if has_vectors else ()), *sampled, *(f"input.{name}" for name in columns), *extras]
    schema = pa.schema([(name, _type(pa, name)) for name in names])

    def record(line: Line) -> list[Any]:
        result = line.result
        values = dict(zip(RESULT_COLUMNS, values_of(result), strict=True))
        vector = values["output"] if has_vectors and isinstance(values["output"], list) else None
        if vector is not None:
            values["output"] = None
        given = result.input or {}
        return [
            *values.values(),
            *((vector,) if has_vectors else ()),
            *(getattr(result, name) for name in sampled),
            *(given.get(name) for name in columns),
            *(line.extra.get(name) for name in extras),
        ]

    with replacing(path) as file, parquet.ParquetWriter(file, schema) as writer:
        for group in _groups(chain(ahead, lines)):
            by_column = zip(*(record(line) for line in group), strict=True)
            arrays = [
                pa.array([_cell(name, value) for value in column], type=field.type)
                for name, field, column in zip(names, schema, by_column, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _groups(lines: Iterable[Line]) -> Iterator[list[Line]]:
    lines = iter(lines)
    while group := list(islice(lines, _GROUP_ROWS)):
        yield group


def _type(pa: Any, name: str) -> Any:
    if name in _WHOLE:
        return pa.int64()
    if name in _REAL:
        return pa.float64()
    if name == "error_retryable":
        return pa.bool_()
    return pa.list_(pa.float32()) if name == "vector" else pa.string()


def _cell(name: str, value: Any) -> Any:
    if value is None or isinstance(value, str) or name in _WHOLE or name in _REAL or name in {"vector", "error_retryable"}:
        return value
    return json.text(value)
