"""Read-only questions to a store: what the summary, `status`, `errors`, `export` and the Python API show.

They work on a running job too (WAL readers don't disturb the writer) and never open a store for writing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batchllm.core import json
from batchllm.core.errors import StoreError
from batchllm.core.nouns import Code, Result, RowError, Usage
from batchllm.store.store import check_kind
from batchllm.store.writer import explain

_RESULT = (
    "row_key, row, custom_id, status, output, parsed, model, provider_model, finish_reason, input_tokens, output_tokens, cached_input_tokens, "
    "cache_write_tokens, reasoning_tokens, cost_usd, attempts, latency_seconds, error_code, error_message, shared_from, tool_calls, error_http_status, "
    "error_provider_code, error_retryable, input, attempt_id"
)


def result_of(row: Sequence[Any]) -> Result:
    """A `Result` from the columns of `_RESULT`."""
    (_, position, custom_id, status, output, parsed, model, provider_model, finish, tokens_in, tokens_out, cached, written, reasoning, cost, attempts, latency,
     code, message, shared, calls, http_status, provider_code, retryable, kept, _) = row  # fmt: skip
    return Result(
        custom_id=custom_id,
        row=position,
        status=status,
        output=output,
        parsed=json.loads(parsed) if parsed is not None else None,
        model=model,
        provider_model=provider_model,
        finish_reason=finish,
        tool_calls=json.loads(calls) if calls is not None else None,
        usage=None
        if tokens_in is None
        else Usage(
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cached_input_tokens=cached or 0,
            cache_write_tokens=written or 0,
            reasoning_tokens=reasoning or 0,
        ),
        cost_usd=cost,
        attempts=attempts,
        latency_seconds=latency,
        shared_from=shared,
        input=json.loads(kept) if kept is not None else None,
        error=None
        if code is None
        else RowError(code=Code(code), message=message or "", http_status=http_status, provider_code=provider_code, retryable=bool(retryable)),
    )


class StoreReader:
    """A read-only connection. Raises StoreError when the file can't be used; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise StoreError(f"{path}: there is no store yet; start the job with `batchllm run`")
        try:
            self.connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, timeout=10)
            if check_kind(self.connection, path):
                raise StoreError(f"{path}: this file holds no job yet; start the job with `batchllm run`")
        except sqlite3.Error as error:
            raise explain(error, str(path)) from error

    def __enter__(self) -> StoreReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.connection.close()

    def one(self, query: str, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        """The first row of a query."""
        try:
            row: tuple[Any, ...] = self.connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise explain(error, str(self.path)) from error
        return row

    def all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        try:
            return self.connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise explain(error, str(self.path)) from error

    def job(self) -> dict[str, Any]:
        """The job's record, with its last run's as `last_run`."""
        cursor = self.connection.execute("SELECT * FROM job")
        job = dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))
        cursor = self.connection.execute("SELECT * FROM runs ORDER BY run DESC LIMIT 1")
        run = cursor.fetchone()
        job["last_run"] = dict(zip([column[0] for column in cursor.description], run, strict=True)) if run else None
        return job

    def results(self, where: str | None = None, values: Sequence[Any] = ()) -> Iterator[Result]:
        """Results of finished rows in input order; `where` is a condition over the `results` view."""
        for row in self.result_rows(where, values):
            yield result_of(row)

    def result_rows(self, where: str | None = None, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The same as tuples in the order of the result columns: row_key first, attempt_id last."""
        condition = f"WHERE {where} " if where else ""
        try:
            yield from self.connection.execute(f"SELECT {_RESULT} FROM results {condition}ORDER BY row", values)  # noqa: S608 - the user's own store and SQL
        except sqlite3.Error as error:
            if where:
                raise StoreError(f"--where {where}: {error}; it is a condition over the columns of `results`, such as \"error_code = 'timeout'\"") from error
            raise explain(error, str(self.path)) from error

    def body(self, attempt_id: int | None) -> tuple[str | None, str | None]:
        """(request, response) of an attempt, where they were kept."""
        if attempt_id is None:
            return (None, None)
        return self.connection.execute("SELECT request, response FROM bodies WHERE attempt_id = ?", (attempt_id,)).fetchone() or (None, None)


def money(connection: sqlite3.Connection) -> dict[str, Any]:
    """Sums over all attempts. Real dollars, unless every attempt was simulated."""
    sums = {
        bool(simulated): (cost, reserved, maybe)
        for simulated, cost, reserved, maybe in connection.execute(
            """SELECT simulated, sum(cost_pico), sum(CASE WHEN billed = 'maybe' THEN reserved_pico END), sum(billed = 'maybe' AND outcome != 'in_flight')
               FROM attempt_log GROUP BY simulated"""
        )
    }
    simulated = bool(sums) and False not in sums
    cost, reserved, maybe = sums.get(simulated, (None, None, None))
    (superseded,) = connection.execute(
        "SELECT sum(l.cost_pico) FROM attempt_log l JOIN rows r ON r.row_key = l.row_key WHERE r.cost_after > 0 AND l.attempt <= r.cost_after AND l.simulated = ?",
        (int(simulated),),
    ).fetchone()
    return {"simulated": simulated, "cost_pico": cost, "reserved_pico": reserved or 0, "maybe": maybe or 0, "superseded_pico": superseded or 0}


def counts(connection: sqlite3.Connection) -> dict[str, Any]:
    """Attempts, retries, refusals and tokens over the store's whole life."""
    row = connection.execute(
        """SELECT count(*), coalesce(sum(kind = 'retry'), 0), coalesce(sum(refused), 0), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),
                  coalesce(sum(cached_input_tokens), 0), coalesce(sum(cache_write_tokens), 0), coalesce(sum(reasoning_tokens), 0) FROM attempt_log"""
    ).fetchone()
    names = ("attempts", "retries", "refusals", "input", "output", "cached_input", "cache_write", "reasoning")
    return dict(zip(names, row, strict=True))


def row_states(connection: sqlite3.Connection, below: int | None = None) -> dict[int, int]:
    """Present rows by state; `below`: only the first so many."""
    if below is None:
        query: tuple[str, tuple[int, ...]] = ("SELECT state, count(*) FROM rows WHERE row IS NOT NULL GROUP BY state", ())
    else:
        query = ("SELECT state, count(*) FROM rows WHERE row < ? GROUP BY state", (below,))
    return dict(connection.execute(*query).fetchall())


def error_codes(connection: sqlite3.Connection) -> dict[str, int]:
    """Failed rows by code."""
    return dict(
        connection.execute(
            """SELECT a.error_code, count(*) FROM rows r JOIN answers a USING (row_key)
               WHERE r.row IS NOT NULL AND r.state = 2 GROUP BY 1 ORDER BY 2 DESC"""
        ).fetchall()
    )
