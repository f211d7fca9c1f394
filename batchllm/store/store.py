"""The store, opened for writing: lock, connection, recovery after a crash, and the questions a run asks before it starts.

Order on opening matters: the lock first (SQLite's own locks would let two runs interleave), then the file's kind, its age, its job; only then is anything written.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from batchllm.core.errors import StoreError
from batchllm.store import schema
from batchllm.store.lock import StoreLock
from batchllm.store.records import OK, PENDING, Committed, Deployment, Totals
from batchllm.store.samples import forget_samples
from batchllm.store.schema import UNPRICED
from batchllm.store.settle import sum_anew
from batchllm.store.twins import stop_sharing_failure
from batchllm.store.views import create_answers
from batchllm.store.writer import InlineWriter, MakeWriter, ThreadWriter, Writer, explain

T = TypeVar("T")

_HISTORY = (
    "row_key, custom_id, status, output, parsed, model, provider_model, finish_reason, tool_calls, input_tokens, output_tokens, "
    "cached_input_tokens, cache_write_tokens, reasoning_tokens, cost_pico, attempts, latency_seconds, error_code, error_message, fingerprint, run, finished_at"
)


def _connect(path: Path) -> sqlite3.Connection:
    # Mode 0600 from the first byte on: SQLite gives its WAL the mode of the main file.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; choose another place with --store") from error
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10, cached_statements=256)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def check_kind(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is new: empty, or its first run died while it made the tables. Raises StoreError for what isn't a store of ours or is newer than this program."""
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not tables:
        return True
    if connection.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
        raise StoreError(f"{path}: this SQLite file is not a batchllm store; choose another place with --store")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > schema.VERSION:
        raise StoreError(f"{path}: written by a newer batchllm (schema {version}, this program knows {schema.VERSION}); upgrade batchllm")
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'job'").fetchone() is None


class Store:
    """One job's store, held by this process. `open` -> `start` (inside a loop) -> work -> `close`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: StoreLock) -> None:
        self.path = path
        self.connection = connection
        self.job_id = ""
        self.run = 0
        self.writer: Writer | None = None
        self._lock = lock

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        name: str,
        spec_text: str,
        spec_path: str | None,
        folder: str,
        version: str,
        now_utc: float,
        durability: str = "full",
    ) -> Store:
        """Takes the lock, brings the schema up to date and settles what a dead run left. Raises StoreError (exit 5)."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path.parent}: can't make this folder for the store ({error.strerror}); choose another place with --store") from error
        lock = StoreLock(path)
        lock.take()
        try:
            connection = _connect(path)
            try:
                store = cls(path, connection, lock)
                store._prepare(durability, name, spec_text, spec_path, folder, version, now_utc)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            lock.release()
            raise explain(error, str(path)) from error
        except BaseException:
            lock.release()
            raise
        return store

    @classmethod
    def existing(cls, path: Path, *, durability: str = "full") -> Store:
        """Opens a store that is there, for the commands that change it between runs (`retry`, `settle`)."""
        if not path.exists():
            raise StoreError(f"{path}: there is no store yet; start the job with `batchllm run`")
        lock = StoreLock(path)
        lock.take()
        try:
            connection = _connect(path)
            try:
                if check_kind(connection, path):
                    raise StoreError(f"{path}: this file holds no job yet; start the job with `batchllm run`")  # noqa: TRY301 - all ways out close and unlock
                store = cls(path, connection, lock)
                store._pragmas(durability)
                schema.migrate(connection)
                store._recover()
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            lock.release()
            raise explain(error, str(path)) from error
        except BaseException:
            lock.release()
            raise
        return store

    def _pragmas(self, durability: str) -> None:
        if self.connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise StoreError(f"{self.path}: this file system can't hold a write-ahead log; put the store on a local disk with --store")
        self.connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        self.connection.execute("PRAGMA cache_size = -16000")

    def _prepare(self, durability: str, name: str, spec_text: str, spec_path: str | None, folder: str, version: str, now_utc: float) -> None:
        connection = self.connection
        if check_kind(connection, self.path):
            connection.execute("PRAGMA page_size = 16384")
            connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        else:
            other = connection.execute("SELECT name FROM job WHERE name != ?", (name,)).fetchone()
            if other is not None:
                raise StoreError(
                    f"{self.path}: this store belongs to the job '{other[0]}', not to '{name}'; give this job a `store:` of its own, or its old name with --name"
                )
        self._pragmas(durability)
        schema.migrate(connection)
        job = connection.execute("SELECT job_id FROM job").fetchone()
        if job is None:
            self.job_id = uuid.uuid4().hex[:12]
            connection.execute(
                "INSERT INTO job (one, job_id, name, spec, spec_path, folder, created_at, version) VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
                (self.job_id, name, spec_text, spec_path, folder, now_utc, version),
            )
        else:
            self.job_id = job[0]
            connection.execute("UPDATE job SET spec = ?, spec_path = ?, folder = ?, version = ?", (spec_text, spec_path, folder, version))
        self._recover()

    def _recover(self) -> None:
        # What a dead run had in flight may have been executed and billed: its reservation stays until `settle`.
        self.connection.execute("UPDATE attempt_log SET outcome = 'cancelled', billed = 'maybe', counted = 0 WHERE outcome = 'in_flight'")
        if self.connection.execute("SELECT 1 FROM runs WHERE ended_at IS NULL AND EXISTS (SELECT 1 FROM settlements)").fetchone() is not None:
            # Attempts that were settled while a run was at work on their rows: it would have summed these up at its end.
            self.transaction(lambda connection: sum_anew(connection, after=0))
        self.connection.execute("UPDATE runs SET ended_at = coalesce(seen_at, started_at) WHERE ended_at IS NULL")

    # What a run asks before it starts; the writer isn't there yet.

    def begin_run(self, *, now_utc: float, version: str, options: str, cap_pico: int | None, caps: str | None = None) -> None:
        """Records the run; `self.run` is its number. `caps`: all budgets as JSON (`read.budgets`)."""
        cursor = self.connection.execute(
            "INSERT INTO runs (started_at, pid, host, version, options, cap_pico, caps, seen_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (now_utc, os.getpid(), socket.gethostname(), version, options, cap_pico, caps, now_utc),
        )
        self.run = cursor.lastrowid or 0

    def totals(self, *, simulated: bool) -> Totals:
        """What was spent and what is still reserved, over the store's whole life."""
        spent, reserved, unpriced = self.connection.execute(
            f"""SELECT sum(cost_pico), sum(CASE WHEN billed = 'maybe' THEN reserved_pico END), sum({UNPRICED})
                FROM attempt_log WHERE simulated = ?""",  # noqa: S608 - a constant
            (int(simulated),),
        ).fetchone()
        return Totals(spent_pico=spent or 0, reserved_pico=reserved or 0, unpriced=unpriced or 0)

    def next_attempt_id(self) -> int:
        """The first free attempt id; the run counts on from it."""
        return 1 + int(self.connection.execute("SELECT max(attempt_id) FROM attempt_log").fetchone()[0] or 0)

    def deployment(self, deployment: Deployment) -> int:
        """The number of a deployment, given one if it is new."""
        key = (deployment.name, deployment.provider, deployment.base_url, deployment.model)
        self.connection.execute("INSERT OR IGNORE INTO deployments (name, provider, base_url, model) VALUES (?, ?, ?, ?)", key)
        row = self.connection.execute(
            "SELECT deployment FROM deployments WHERE name = ? AND provider = ? AND base_url = ? AND model = ?", key
        ).fetchone()
        return int(row[0])

    def deployments(self) -> dict[int, Deployment]:
        """All that ever answered for this job."""
        rows = self.connection.execute("SELECT deployment, name, provider, base_url, model FROM deployments")
        return {key: Deployment(name=name, provider=provider, base_url=base_url, model=model) for key, name, provider, base_url, model in rows}

    def answered(self) -> set[int]:
        """Deployments that gave at least one ok answer in this store."""
        return {key for (key,) in self.connection.execute("SELECT DISTINCT deployment FROM attempt_log WHERE outcome = 'ok'")}

    def has_rows(self) -> bool:
        """Whether any input row was ever taken in."""
        return self.connection.execute("SELECT 1 FROM rows LIMIT 1").fetchone() is not None

    def has_answers(self) -> bool:
        """Whether any row ever got an ok answer."""
        return self.connection.execute("SELECT 1 FROM rows WHERE state = ? LIMIT 1", (OK,)).fetchone() is not None

    def show_answers(self, columns: Sequence[str] | None, *, whole: bool) -> None:
        """Makes the view `answers` show what this job asks for; see `views`."""
        self.transaction(lambda connection: create_answers(connection, columns, whole=whole))

    def pins(self) -> list[str]:
        """Models that rows were sent to by `retry --model`."""
        return [name for (name,) in self.connection.execute("SELECT DISTINCT pin FROM rows WHERE pin IS NOT NULL ORDER BY pin")]

    def job(self) -> dict[str, Any]:
        """The job's record."""
        cursor = self.connection.execute("SELECT * FROM job")
        names = [column[0] for column in cursor.description]
        return dict(zip(names, cursor.fetchone(), strict=True))

    def start(
        self,
        *,
        inline: bool,
        on_commit: Callable[[list[Committed]], None],
        on_failure: Callable[[StoreError], None],
        make: MakeWriter | None = None,
    ) -> Writer:
        """Hands the connection to the writer; from here on only the writer touches it. `make`: a writer of the caller's own."""
        make = make or (InlineWriter if inline else ThreadWriter)
        self.writer = make(self.connection, str(self.path), on_commit=on_commit, on_failure=on_failure)
        return self.writer

    def transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction outside a run. Raises StoreError."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(self.connection)
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise explain(error, str(self.path)) from error
        return result

    def end_run(self, *, now_utc: float, exit_code: int, stopped_by: str | None, message: str | None) -> None:
        """Closes the run's record; after the writer's end."""
        self.transaction(
            lambda connection: connection.execute(
                "UPDATE runs SET ended_at = ?, seen_at = ?, exit_code = ?, stopped_by = ?, message = ? WHERE run = ?",
                (now_utc, now_utc, exit_code, stopped_by, message, self.run),
            )
        )

    def close(self) -> None:
        """Folds the WAL back into the file, so that one file can be copied, and gives the lock back."""
        try:
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            pass  # a reader is there, or the disk is full: the WAL stays beside the file, nothing is lost
        finally:
            self.connection.close()
            self._lock.release()


def reopen(connection: sqlite3.Connection, keys: Iterable[int], *, reason: str, now_utc: float, changed: bool, pin: str | None = None) -> None:
    """Puts rows back to pending; their answers move to `history`. `changed`: the request is another one, so its costs count anew."""
    for key in keys:
        connection.execute(
            f"""INSERT INTO history (replaced_at, reason, {_HISTORY})
                SELECT ?, ?, a.row_key, r.custom_id, a.status, a.output, a.parsed, d.name, a.provider_model, a.finish_reason, a.tool_calls, a.input_tokens,
                       a.output_tokens, a.cached_input_tokens, a.cache_write_tokens, a.reasoning_tokens, a.cost_pico, a.attempts, a.latency_seconds,
                       a.error_code, a.error_message, a.fingerprint, a.run, a.finished_at
                FROM outcomes a JOIN rows r USING (row_key) LEFT JOIN deployments d USING (deployment) WHERE a.row_key = ?""",  # noqa: S608 - constant column names
            (now_utc, reason, key),
        )
        stop_sharing_failure(connection, key)
        if not changed:
            forget_samples(connection, key)
        connection.execute("DELETE FROM outcomes WHERE row_key = ?", (key,))
        connection.execute(
            """UPDATE rows SET state = ?1, pin = coalesce(?2, pin),
                   failures_after = (SELECT coalesce(max(attempt), 0) FROM attempt_log WHERE row_key = ?4),
                   cost_after = CASE WHEN ?3 THEN (SELECT coalesce(max(attempt), 0) FROM attempt_log WHERE row_key = ?4) ELSE cost_after END
               WHERE row_key = ?4""",
            (PENDING, pin, int(changed), key),
        )


def keys_where(connection: sqlite3.Connection, where: str, values: Sequence[object] = ()) -> list[int]:
    """Row keys of finished rows by a condition over the `results` view."""
    return [key for (key,) in connection.execute(f"SELECT row_key FROM results WHERE {where}", values)]  # noqa: S608 - the user's own store and SQL
