"""Whether a store is well: looked at from outside, read-only, while a run may be working in it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from batchllm.core.errors import StoreError
from batchllm.store import schema
from batchllm.store.lock import is_locked
from batchllm.store.store import check_kind
from batchllm.store.writer import explain

_CHECK_SECONDS = 20.0
_STEPS = 100_000
"""Steps of SQLite's machine between two looks at the clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What was found."""

    version: int
    newest: int
    """The schema that this program writes; an older store is migrated when a run opens it."""
    damage: tuple[str, ...]
    """SQLite's own words; empty: none was found."""
    checked: bool
    """Whether the whole file was looked through; a large one may take too long."""
    locked_by: int | None
    """Process id of the run that holds it; 0 when it doesn't say, None when none does."""
    job: str
    size_bytes: int


def health(path: Path) -> Health:
    """Raises StoreError for what is no store, is newer than this program, or can't be opened."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, timeout=10)) as connection:
            if check_kind(connection, path):
                raise StoreError(f"{path}: this file holds no job yet")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (job,) = connection.execute("SELECT name FROM job").fetchone()
            damage, checked = _damage(connection)
    except sqlite3.DatabaseError as error:
        raise explain(error, str(path)) from error
    size = sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}-wal")) if file.exists())
    return Health(version=version, newest=schema.VERSION, damage=damage, checked=checked, locked_by=is_locked(path), job=job, size_bytes=size)


def _damage(connection: sqlite3.Connection) -> tuple[tuple[str, ...], bool]:
    end = time.monotonic() + _CHECK_SECONDS
    connection.set_progress_handler(lambda: int(time.monotonic() > end), _STEPS)
    try:
        found = tuple(text for (text,) in connection.execute("PRAGMA quick_check(5)") if text != "ok")
    except sqlite3.OperationalError as error:
        if "interrupt" in str(error):
            return (), False
        raise
    finally:
        connection.set_progress_handler(None, 0)
    return found, True
