"""Parquet input, read in batches by pyarrow (extra `[parquet]`): a row group of any size never is in memory as a whole.

The trap is its types: a table has dates, decimals, bytes and NaN, and a row is JSON. Dates become ISO text, decimals numbers, bytes text (base64 where they are no
UTF-8), NaN null - the same on every run, since rows without an id are told apart by their content.
"""

from __future__ import annotations

import datetime as dt
from base64 import b64encode
from collections.abc import Iterator
from decimal import Decimal
from importlib.util import find_spec
from typing import Any

import orjson

from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Row
from batchllm.rows.records import DEPTH, Records, too_deep

_BATCH_ROWS = 500
NEEDS = "Parquet needs pyarrow, which isn't installed: pip install 'batchllm[parquet]'"


def is_there() -> bool:
    """Whether pyarrow is installed. It is not imported for that."""
    return find_spec("pyarrow") is not None


def parquet_rows(path: str, name: str, records: Records) -> Iterator[Row]:
    """The rows of a file. Raises SpecError when it is damaged or no Parquet at all, also in mid-stream."""
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for record in batch.to_pylist():
                    number += 1
                    yield _row(record, f"{name}:{number}", records)
    except (pa.ArrowException, OSError) as error:
        words = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise SpecError(Problem(file=name, message=f"the Parquet file can't be read after row {number}: {words}")) from error


def _row(record: dict[str, Any], place: str, records: Records) -> Row:
    fields = orjson.loads(orjson.dumps(record, default=_plain, option=orjson.OPT_NON_STR_KEYS))
    if too_deep(fields):
        return records.unreadable(place, place=place, problem=f"is nested deeper than {DEPTH} levels; flatten it")
    return records.readable(fields, place=place)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and abs(value) < 2**63 else float(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return b64encode(value).decode()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    return str(value)
