"""The store that a life left, read as a stranger would: plain SQL on the file, nothing of the engine or of the store's own code in between.

The trap: a life may die before there is a store, or while its tables are being made.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_TABLES = ("attempt_log", "settlements", "deployments")
_LEDGER = """
SELECT l.row_key, l.attempt, d.name, l.run, l.outcome, l.counted, l.billed, l.reserved_pico, l.cost_pico, l.settled,
       strftime('%Y-%m-%d', l.started_at, 'unixepoch'),
       CASE WHEN l.input_tokens IS NOT NULL THEN l.input_tokens + l.output_tokens WHEN l.billed = 'no' THEN 0 ELSE l.reserved_tokens END
FROM attempt_log l JOIN deployments d ON d.deployment = l.deployment
"""


class Entry(NamedTuple):
    """An attempt in the ledger."""

    row_key: int
    attempt: int
    model: str
    run: int
    outcome: str
    counted: int
    billed: str
    reserved_pico: int | None
    cost_pico: int | None
    settled: int | None
    day: str
    """UTC, of sending."""
    tokens: int
    """Used, or reserved where it may have been billed."""

    @property
    def held_pico(self) -> int:
        """Spent, and reserved where it may have been billed."""
        return (self.cost_pico or 0) + ((self.reserved_pico or 0) if self.billed == "maybe" else 0)


def held_pico(entries: Iterable[Entry]) -> int:
    """What all of these hold of a budget."""
    return sum(entry.held_pico for entry in entries)


def ledger(connection: sqlite3.Connection) -> Iterator[Entry]:
    """All attempts."""
    for row in connection.execute(_LEDGER):
        yield Entry(*row)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection | None]:
    """The store in a folder; None when there is none yet."""
    path = folder / "t.db"
    if not path.exists():
        yield None
        return
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        there = connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN (?, ?, ?)", _TABLES).fetchone()[0]
        yield connection if there == len(_TABLES) else None
