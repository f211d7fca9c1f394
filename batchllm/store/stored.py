"""Results that a run needn't ask for again, for whoever reads a run's results as they come: in chunks, by key, or by what an input row is matched by."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from batchllm.core import json
from batchllm.core.nouns import Result
from batchllm.store.read import RESULT_COLUMNS, StoreReader, result_of
from batchllm.store.writer import explain


class Stored(NamedTuple):
    """A result with what identifies its row."""

    row_key: int
    identity: str
    result: Result


def results_after(reader: StoreReader, position: int, count: int) -> list[Stored]:
    """Up to `count` results of rows behind a position (-1: from the start), in input order."""
    query = f"""SELECT {RESULT_COLUMNS}, (SELECT identity FROM rows WHERE rows.row_key = results.row_key)
                FROM results WHERE row > ? ORDER BY row LIMIT ?"""  # noqa: S608 - constant column names
    return [Stored(row[0], row[-1], result_of(row[:-1])) for row in _rows(reader, query, (position, count))]


def result_at(reader: StoreReader, identity: str, nth: int) -> Result | None:
    """The result of the nth row (from 1) of an identity; None while it has none."""
    query = f"SELECT {RESULT_COLUMNS} FROM results WHERE row_key = (SELECT row_key FROM rows WHERE identity = ? AND nth = ?)"  # noqa: S608 - constant column names
    rows = _rows(reader, query, (identity, nth))
    return result_of(rows[0]) if rows else None


def ok_after(reader: StoreReader, position: int, count: int) -> list[Result]:
    """Up to `count` ok results of rows behind a position (-1: from the start), in input order."""
    query = f"SELECT {RESULT_COLUMNS} FROM results WHERE row > ? AND status = 'ok' ORDER BY row LIMIT ?"  # noqa: S608 - constant column names
    return [result_of(row) for row in _rows(reader, query, (position, count))]


def ok_result(reader: StoreReader, key: str) -> Result | None:
    """The ok result of the row with this id; in a store of numbered rows, of the row with this number."""
    query = f"""SELECT {RESULT_COLUMNS} FROM results
                WHERE row_key = coalesce((SELECT row_key FROM rows WHERE identity = ? AND nth = 1), (SELECT row_key FROM rows WHERE row = ? AND identity GLOB 'content:*'))
                AND status = 'ok'"""  # noqa: S608 - constant column names
    rows = _rows(reader, query, (f"id:{key}", int(key) if key.isdecimal() and len(key) < 16 else None))
    return result_of(rows[0]) if rows else None


def results_of(connection: sqlite3.Connection, row_keys: Sequence[int]) -> list[Result]:
    """Results of these rows, in input order."""
    query = f"SELECT {RESULT_COLUMNS} FROM results WHERE row_key IN (SELECT value FROM json_each(?)) ORDER BY row"  # noqa: S608 - constant column names
    return [result_of(row) for row in connection.execute(query, (json.text(list(row_keys)),))]


def _rows(reader: StoreReader, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    try:
        return reader.connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise explain(error, str(reader.path)) from error
