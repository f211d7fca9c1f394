"""Read-only questions to a store: what the summary, `status`, `errors`, `export` and the Python API show.

They work on a running job too (WAL readers don't disturb the writer) and never open a store for writing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

from batchllm.core import json
from batchllm.core.errors import Problem, SpecError, StoreError
from batchllm.core.nouns import Code, Result, RowError, Usage
from batchllm.store.records import PENDING
from batchllm.store.schema import UNPRICED
from batchllm.store.store import check_kind
from batchllm.store.vectors import output_of
from batchllm.store.writer import explain

RESULT_COLUMNS = (
    "row_key, row, custom_id, status, output, parsed, model, provider_model, finish_reason, input_tokens, output_tokens, cached_input_tokens, "
    "cache_write_tokens, reasoning_tokens, cost_usd, attempts, latency_seconds, error_code, error_message, shared_from, tool_calls, error_http_status, "
    "error_provider_code, error_retryable, samples, agreement, input, attempt_id"
)


def result_of(row: Sequence[Any]) -> Result:
    """A `Result` from the columns of `RESULT_COLUMNS`."""
    (_, position, custom_id, status, output, parsed, model, provider_model, finish, tokens_in, tokens_out, cached, written, reasoning, cost, attempts, latency,
     code, message, shared, calls, http_status, provider_code, retryable, samples, agreement, kept, _) = row  # fmt: skip
    return Result(
        custom_id=custom_id,
        row=position,
        status=status,
        output=output_of(output),
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
        samples=json.loads(samples) if samples is not None else None,
        agreement=agreement,
        input=json.loads(kept) if kept is not None else None,
        error=None
        if code is None
        else RowError(code=Code(code), message=message or "", http_status=http_status, provider_code=provider_code, retryable=bool(retryable)),
    )


def _unchanging(path: Path) -> str:
    """For a store on a disk that can't be written (an archive, a snapshot): SQLite makes a file beside a store that may change meanwhile. Who writes has a WAL there."""
    real = os.path.realpath(path)
    return "" if os.access(os.path.dirname(real), os.W_OK) or os.path.exists(f"{real}-wal") else "&immutable=1"  # noqa: PTH110, PTH120 - SQLite's own way from a link to its files


class StoreReader:
    """A read-only connection. Raises StoreError when the file can't be used; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise StoreError(f"{path}: there is no store yet; start the job with `batchllm run`")
        try:
            uri = f"file:{quote(str(path))}?mode=ro{_unchanging(path)}"
            self.connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10, check_same_thread=False)
        except sqlite3.Error as error:
            raise explain(error, str(path)) from error
        try:
            if check_kind(self.connection, path):
                raise StoreError(f"{path}: this file holds no job yet; start the job with `batchllm run`")  # noqa: TRY301 - every way out closes
            if self.connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'outcomes'").fetchone() is None:
                # A store of an older version that no run has migrated yet.
                self.connection.execute("CREATE TEMP VIEW outcomes AS SELECT * FROM main.answers")
        except sqlite3.Error as error:
            self.connection.close()
            raise explain(error, str(path)) from error
        except StoreError:
            self.connection.close()
            raise

    def __enter__(self) -> Self:
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

    def results(self, where: str | None = None, values: Sequence[Any] = ()) -> Generator[Result, None, None]:
        """Results of finished rows in input order; `where` is a condition over the `results` view."""
        for row in self.result_rows(where, values):
            yield result_of(row)

    def result_rows(self, where: str | None = None, values: Sequence[Any] = ()) -> Generator[tuple[Any, ...], None, None]:
        """The same as tuples in the order of the result columns: row_key first, attempt_id last."""
        condition = f"WHERE {where} " if where else ""
        try:
            # Not `yield from`: who leaves early would have it close the cursor of a connection that is closed already.
            for row in self.connection.execute(f"SELECT {RESULT_COLUMNS} FROM results {condition}ORDER BY row", values):  # noqa: S608, UP028 - the user's own SQL; see above
                yield row
        except sqlite3.Error as error:
            if where:
                raise StoreError(
                    f"--where {where}: {error}; it is a condition over the columns of `results`, such as \"error_code = 'timeout'\""
                ) from error
            raise explain(error, str(self.path)) from error

    def body(self, attempt_id: int | None) -> tuple[str | None, str | None]:
        """(request, response) of an attempt, where they were kept."""
        if attempt_id is None:
            return (None, None)
        return self.connection.execute("SELECT request, response FROM bodies WHERE attempt_id = ?", (attempt_id,)).fetchone() or (None, None)


def money(connection: sqlite3.Connection) -> dict[str, Any]:
    """Sums over all attempts. Real dollars, unless every attempt was simulated; `simulated_beside`: what was simulated beside them."""
    sums = {
        bool(simulated): (cost, reserved, maybe, unpriced)
        for simulated, cost, reserved, maybe, unpriced in connection.execute(
            f"""SELECT simulated, sum(cost_pico), sum(CASE WHEN billed = 'maybe' THEN reserved_pico END), sum(billed = 'maybe' AND outcome != 'in_flight'),
                       sum({UNPRICED})
               FROM attempt_log GROUP BY simulated"""  # noqa: S608 - a constant
        )
    }
    simulated = bool(sums) and False not in sums
    cost, reserved, maybe, unpriced = sums.get(simulated, (None, None, None, None))
    beside = None if simulated or True not in sums else sums[True][0] or 0
    if unpriced and not cost:
        cost = None  # the zeros of refused requests are no sum: unknown is not zero
    (superseded,) = connection.execute(
        "SELECT sum(l.cost_pico) FROM attempt_log l JOIN rows r ON r.row_key = l.row_key WHERE r.cost_after > 0 AND l.attempt <= r.cost_after AND l.simulated = ?",
        (int(simulated),),
    ).fetchone()
    return {
        "simulated": simulated,
        "cost_pico": cost,
        "reserved_pico": reserved or 0,
        "maybe": maybe or 0,
        "superseded_pico": superseded or 0,
        "unpriced": unpriced or 0,
        "simulated_beside": beside,
    }


def counts(connection: sqlite3.Connection) -> dict[str, Any]:
    """Attempts, retries, refusals, tokens and requests (inputs of embeddings travel together) over the store's whole life."""
    row = connection.execute(
        """SELECT count(*), coalesce(sum(kind = 'retry'), 0), coalesce(sum(refused), 0), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),
                  coalesce(sum(cached_input_tokens), 0), coalesce(sum(cache_write_tokens), 0), coalesce(sum(reasoning_tokens), 0),
                  count(*) - coalesce(sum(pack <> attempt_id), 0) FROM attempt_log"""
    ).fetchone()
    names = ("attempts", "retries", "refusals", "input", "output", "cached_input", "cache_write", "reasoning", "requests")
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
            """SELECT a.error_code, count(*) FROM rows r JOIN outcomes a USING (row_key)
               WHERE r.row IS NOT NULL AND r.state = 2 GROUP BY 1 ORDER BY 2 DESC"""
        ).fetchall()
    )


@contextlib.contextmanager
def snapshot(reader: StoreReader) -> Iterator[sqlite3.Connection]:
    """One moment of the store: several questions see the same commit, also while a run goes on."""
    connection = reader.connection
    try:
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise explain(error, str(reader.path)) from error


def in_flight(connection: sqlite3.Connection) -> int:
    """Attempts that were sent and have no end yet."""
    (count,) = connection.execute("SELECT count(*) FROM attempt_log WHERE outcome = 'in_flight'").fetchone()
    return int(count)


def paused_since(connection: sqlite3.Connection, run: int) -> float | None:
    """Since when (seconds since 1970) a run is paused from a second terminal; None when it isn't."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'changes'").fetchone() is None:
        return None  # a run of an older version
    row = connection.execute(
        "SELECT what, at FROM changes WHERE run = ? AND what IN ('pause', 'continue', 'stop') ORDER BY id DESC LIMIT 1", (run,)
    ).fetchone()
    return float(row[1]) if row is not None and row[0] == "pause" else None


def last_run_that_sent(connection: sqlite3.Connection) -> int | None:
    """The number of the run of the last attempt; None before the first one."""
    found = connection.execute("SELECT run FROM attempt_log ORDER BY attempt_id DESC LIMIT 1").fetchone()
    return None if found is None else int(found[0])


def rates(connection: sqlite3.Connection, *, since_utc: float, slack_seconds: float = 600.0) -> tuple[int, int, int]:
    """(requests sent, tokens that came back, rows that were asked and came to their end) since then. Walks the log from its end, so a long log costs nothing; answers slower than `slack_seconds` are missed."""

    def last_before(utc: float) -> int:
        row = connection.execute("SELECT attempt_id FROM attempt_log WHERE started_at < ? ORDER BY attempt_id DESC LIMIT 1", (utc,)).fetchone()
        return row[0] if row is not None else 0

    (requests,) = connection.execute("SELECT count(*) FROM attempt_log WHERE attempt_id > ?", (last_before(since_utc),)).fetchone()
    lately = (last_before(since_utc - slack_seconds), since_utc)
    (tokens,) = connection.execute(
        "SELECT coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)), 0) FROM attempt_log WHERE attempt_id > ? AND ended_at >= ?",
        lately,
    ).fetchone()
    (rows,) = connection.execute(
        "SELECT count(*) FROM rows WHERE state != ? AND row_key IN (SELECT row_key FROM attempt_log WHERE attempt_id > ? AND ended_at >= ?)",
        (PENDING, *lately),
    ).fetchone()
    return (int(requests), int(tokens), int(rows))


def spend_by_model(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """What each model was asked and cost, in exact money; `cost_pico` is None where no price was known."""
    query = """SELECT d.name, d.provider, d.model, l.simulated, count(*), sum(l.cost_pico), sum(CASE WHEN l.billed = 'maybe' THEN l.reserved_pico END),
                      coalesce(sum(l.input_tokens), 0), coalesce(sum(l.output_tokens), 0)
               FROM attempt_log l JOIN deployments d ON d.deployment = l.deployment GROUP BY l.deployment, l.simulated ORDER BY 6 DESC, 1"""
    names = ("model", "provider", "model_id", "simulated", "attempts", "cost_pico", "reserved_pico", "input_tokens", "output_tokens")
    return [dict(zip(names, row, strict=True)) for row in connection.execute(query)]


def error_groups(connection: sqlite3.Connection, *, examples: int = 3) -> list[dict[str, Any]]:
    """Failed rows grouped by cause, most frequent first, each with its first rows as `examples` (row_key, row, custom_id, message)."""
    cause = "a.error_code, a.error_http_status, a.error_provider_code, d.name"
    query = f"""
        WITH ranked AS (
            SELECT {cause}, r.row_key AS row_key, r.row AS row, r.custom_id AS custom_id, a.error_message AS message,
                   count(*) OVER (PARTITION BY {cause}) AS rows, sum(a.error_retryable) OVER (PARTITION BY {cause}) AS retryable,
                   row_number() OVER (PARTITION BY {cause} ORDER BY r.row) AS nth
            FROM outcomes a JOIN rows r ON r.row_key = a.row_key LEFT JOIN deployments d ON d.deployment = a.deployment
            WHERE a.status = 'failed' AND r.row IS NOT NULL)
        SELECT * FROM ranked WHERE nth <= ? ORDER BY rows DESC, 1, 2, 3, 4, nth"""  # noqa: S608 - constant column names
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for code, status, provider_code, model, key, row, custom_id, message, count, retryable, _ in connection.execute(query, (examples,)):
        group = groups.setdefault(
            (code, status, provider_code, model),
            {
                "code": code,
                "http_status": status,
                "provider_code": provider_code,
                "model": model,
                "rows": count,
                "retryable": bool(retryable),
                "examples": [],
            },
        )
        group["examples"].append((key, row, custom_id, message or ""))
    return list(groups.values())


def identity(connection: sqlite3.Connection, row_key: int) -> str | None:
    """What a row is matched with the input by."""
    row = connection.execute("SELECT identity FROM rows WHERE row_key = ?", (row_key,)).fetchone()
    return row[0] if row is not None else None


def known_ids(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, int]:
    """Ids that present rows have -> the state of the first one."""
    query = "SELECT custom_id, state FROM rows WHERE row IS NOT NULL AND custom_id IN (SELECT value FROM json_each(?)) ORDER BY row DESC"
    return dict(connection.execute(query, (json.text(list(ids)),)).fetchall())


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """Results of a run and later ones (`run`), or of a time and later (`finished_at`, as the store writes it)."""

    column: Literal["run", "finished_at"]
    value: int | str


def selection(
    *, status: str | None = None, codes: Sequence[str] = (), ids: Sequence[str] = (), where: str | None = None, since: Since | None = None
) -> tuple[str | None, list[Any]]:
    """A condition over `results` that means all of these, with its values. A user's `where` stands on lines of its own: a comment in it can't hide the rest."""
    parts: list[str] = []
    values: list[Any] = []
    if status is not None:
        parts.append("status = ?")
        values.append(status)
    if codes:
        parts.append("error_code IN (SELECT value FROM json_each(?))")
        values.append(json.text(list(codes)))
    if ids:
        parts.append("custom_id IN (SELECT value FROM json_each(?))")
        values.append(json.text(list(ids)))
    if since is not None:
        parts.append(f"{since.column} >= ?")
        values.append(since.value)
    if where is not None:
        parts.append(f"(\n{where}\n)")
    return (" AND ".join(parts) or None, values)


def check_where(reader: StoreReader, where: str) -> None:
    """Raises SpecError unless `where` is one condition over the columns of `results`."""
    condition, _ = selection(where=where)
    try:
        # Alone first: `1) OR (1` must not become a condition by our brackets.
        for text in (where, condition):
            reader.connection.execute(f"EXPLAIN SELECT 1 FROM results WHERE\n{text}\n")  # noqa: S608 - the user's own store and SQL, read-only
    except sqlite3.Error as error:
        raise where_problem(where, error) from error


def where_problem(where: str, error: Exception) -> SpecError:
    """What to say about a condition that SQLite doesn't take."""
    return SpecError(
        Problem(
            file="--where", message=f"{where!r}: {error}; give one SQL condition over the columns of `results`, such as \"error_code = 'timeout'\""
        )
    )


def finished_rows(reader: StoreReader, condition: str | None, values: Sequence[Any], *, where: str | None) -> Iterator[tuple[Any, ...]]:
    """Rows of `results` in input order, as tuples for `result_of`. A `where` that fails half-way (such as JSON that can't be read) is a SpecError."""
    query = f"SELECT {RESULT_COLUMNS} FROM results {'WHERE ' + condition if condition else ''} ORDER BY row"  # noqa: S608 - as above
    try:
        # Not `yield from`, as above.
        for row in reader.connection.execute(query, values):  # noqa: UP028 - as above
            yield row
    except sqlite3.Error as error:
        if where is not None:
            raise where_problem(where, error) from error
        raise explain(error, str(reader.path)) from error


def picked(reader: StoreReader, condition: str | None, values: Sequence[Any], *, where: str | None) -> dict[str, list[int]]:
    """Keys of finished rows by status."""
    keys: dict[str, list[int]] = {"ok": [], "failed": []}
    try:
        for key, status in reader.connection.execute(f"SELECT row_key, status FROM results {'WHERE ' + condition if condition else ''}", values):  # noqa: S608 - as above
            keys[status].append(key)
    except sqlite3.Error as error:
        if where is not None:
            raise where_problem(where, error) from error
        raise explain(error, str(reader.path)) from error
    return keys


def exchange(connection: sqlite3.Connection, row_key: int) -> dict[str, Any]:
    """Who answered a finished row, and the bodies of the accepted attempt (the last one of a failed row) where they were kept."""
    query = """SELECT a.finished_at, d.provider, d.model, l.http_status, l.request_id, b.request, b.response
               FROM outcomes a LEFT JOIN deployments d ON d.deployment = a.deployment LEFT JOIN attempt_log l ON l.attempt_id = a.attempt_id
                    LEFT JOIN bodies b ON b.attempt_id = a.attempt_id WHERE a.row_key = ?"""
    names = ("finished_at", "provider", "model_id", "http_status", "request_id", "request", "response")
    return dict(zip(names, connection.execute(query, (row_key,)).fetchone() or (None,) * len(names), strict=True))
