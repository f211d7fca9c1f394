"""Answers kept across jobs: a SQLite file of its own that many runs use at once.

It only ever saves money: a cache that is broken, locked or full is given up for the rest of a run and never a reason to fail. So its errors are one kind
(`CacheProblem`), and nothing in it is needed by any store. What it holds is named by a hash; no key, header or base URL is in it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

APPLICATION_ID = 0x62_6C_6C_63  # "bllc"
VERSION = 1
_BUSY_SECONDS = 2.0
_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY,
    job_id TEXT NOT NULL,
    job TEXT NOT NULL,
    custom_id TEXT,
    kept_at REAL NOT NULL,
    output TEXT,
    provider_model TEXT,
    finish_reason TEXT,
    tool_calls TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cached_input_tokens INTEGER,
    cache_write_tokens INTEGER,
    reasoning_tokens INTEGER,
    latency_seconds REAL
)
"""


class CacheProblem(Exception):  # noqa: N818 - never an error of the run
    """The cache can't be used; the text says why."""


class CachedAnswer(NamedTuple):
    """An answer as it is kept. The column order is that of the table."""

    key: bytes
    job_id: str
    job: str
    custom_id: str | None
    kept_at: float
    output: str | bytes | None
    provider_model: str | None
    finish_reason: str | None
    tool_calls: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    latency_seconds: float | None


_COLUMNS = ", ".join(CachedAnswer._fields)


def cache_path(given: bool | str, environ: Mapping[str, str], folder: Path) -> Path | None:
    """Where the cache of a job is: the path it names, else the user's own (`$BATCHLLM_CACHE`, `$XDG_CACHE_HOME/batchllm` or `~/.cache/batchllm`). None: there is no home."""
    if isinstance(given, str):
        return folder / Path(given).expanduser()
    own = environ.get("BATCHLLM_CACHE")
    if own:
        return Path(own).expanduser() / "answers.db"
    xdg, home = environ.get("XDG_CACHE_HOME"), environ.get("HOME")
    # A relative one is to be ignored (XDG Base Directory Specification).
    base = Path(xdg) if xdg and Path(xdg).is_absolute() else Path(home) / ".cache" if home else None
    return None if base is None else base / "batchllm" / "answers.db"


class AnswerCache:
    """One run's hold of the file; may be used from any thread. Every method raises CacheProblem."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Mode 0600 from the first byte on: answers are as private as a store.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
        except (OSError, sqlite3.Error) as error:
            raise CacheProblem(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._connection.close()
            raise CacheProblem(f"{path}: {error}") from error
        except CacheProblem:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        connection = self._connection
        connection.execute("PRAGMA trusted_schema = OFF")
        # Looked at and made in one transaction: another run may make it at the same moment.
        connection.execute("BEGIN IMMEDIATE")
        kind = connection.execute("PRAGMA application_id").fetchone()[0]
        if kind != APPLICATION_ID and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise CacheProblem(f"{self.path}: this SQLite file is no cache of answers")
        if connection.execute("PRAGMA user_version").fetchone()[0] > VERSION:
            raise CacheProblem(f"{self.path}: written by a newer batchllm")
        if kind != APPLICATION_ID:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        with contextlib.suppress(sqlite3.OperationalError):  # somebody else is at it; without a WAL it works as well, only slower
            connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may take the newest answers, which then are asked for again.
        connection.execute("PRAGMA synchronous = NORMAL")

    def get(self, keys: Collection[bytes], *, but_job_id: str) -> dict[bytes, CachedAnswer]:
        """What is there of these keys, except what this job put there itself."""
        if not keys:
            return {}
        query = f"SELECT {_COLUMNS} FROM answers WHERE key IN ({', '.join('?' * len(keys))}) AND job_id != ?"  # noqa: S608 - constant names and question marks
        with self._lock:
            try:
                rows = self._connection.execute(query, [*keys, but_job_id]).fetchall()
            except sqlite3.Error as error:
                raise CacheProblem(f"{self.path}: {error}") from error
        return {row[0]: CachedAnswer(*row) for row in rows}

    def put(self, answers: Iterable[CachedAnswer]) -> None:
        """Keeps answers; of two for the same key the first stays."""
        statement = f"INSERT OR IGNORE INTO answers ({_COLUMNS}) VALUES ({', '.join('?' * len(CachedAnswer._fields))})"  # noqa: S608 - constant names
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    self._connection.executemany(statement, answers)
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise CacheProblem(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Ends the connection."""
        with self._lock:
            self._connection.close()
