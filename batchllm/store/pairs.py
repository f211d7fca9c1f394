"""Two stores side by side, row by row: the answers that two jobs gave to the same id.

SQLite does the matching over both files, so memory stays flat; neither is written to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from batchllm.core import json
from batchllm.store.read import StoreReader
from batchllm.store.writer import explain

_COLUMNS = "row, custom_id, status, output, parsed, model, cost_usd, latency_seconds, output_tokens, error_code, input, row_key"


class Side(NamedTuple):
    """One job's outcome of a row."""

    row: int
    custom_id: str
    status: str
    output: str | None
    parsed: Any
    model: str | None
    cost_usd: float | None
    latency_seconds: float | None
    output_tokens: int | None
    error_code: str | None
    input: dict[str, Any] | None
    row_key: int


def sides(reader: StoreReader) -> Iterator[Side]:
    """Every finished row of one store that has an id."""
    for row in _asked(reader, f"SELECT {_COLUMNS} FROM results WHERE custom_id IS NOT NULL ORDER BY row"):  # noqa: S608 - constants
        yield _side(row)


def pairs(reader: StoreReader, other: Path) -> Iterator[tuple[Side, Side]]:
    """The rows that both stores have finished, in the order of the first; matched by id, a used id by its first row only. Raises StoreError."""
    connection = reader.connection
    try:
        connection.execute("ATTACH ? AS other", (f"file:{quote(str(other))}?mode=ro",))
    except sqlite3.Error as error:
        raise explain(error, str(other)) from error
    try:
        first, second = (", ".join(f"{side}.{name.strip()}" for name in _COLUMNS.split(",")) for side in "ab")
        unique = "(error_code IS NULL OR error_code != 'duplicate_id')"
        query = f"""SELECT {first}, {second} FROM (SELECT * FROM main.results WHERE {unique}) a
                    JOIN (SELECT * FROM other.results WHERE {unique}) b ON b.custom_id = a.custom_id ORDER BY a.row"""  # noqa: S608 - constants
        width = len(Side._fields)
        for row in _asked(reader, query):
            yield _side(row[:width]), _side(row[width:])
    finally:
        connection.execute("DETACH other")


def _asked(reader: StoreReader, query: str) -> Iterator[tuple[Any, ...]]:
    cursor = reader.connection.cursor()
    try:
        yield from cursor.execute(query)
    except sqlite3.Error as error:
        raise explain(error, str(reader.path)) from error
    finally:
        cursor.close()


def _side(row: tuple[Any, ...]) -> Side:
    side = Side(*row)
    kept: Any = side.input
    return side._replace(parsed=json.loads(side.parsed) if side.parsed is not None else None, input=json.loads(kept) if kept is not None else None)
