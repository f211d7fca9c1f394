"""Which stored row is this input row? Matching by identity, k-th occurrence to k-th, with flat memory.

A row's identity is its id, or the digest of its content when ids are row numbers. How often an identity has been seen in this pass is counted in a temporary
table, so that neither ten million ids nor a million equal rows live in memory. On a store without rows the main table itself is that count.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from batchllm.core.nouns import Row
from batchllm.store.records import NO_HISTORY, PENDING, History, Known


class Bits:
    """A set of row keys, one bit each."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, key: int) -> None:
        at = key >> 3
        if at >= len(self._bytes):
            self._bytes.extend(bytes(max(at + 1 - len(self._bytes), 65536)))
        self._bytes[at] |= 1 << (key & 7)

    def __contains__(self, key: int) -> bool:
        at = key >> 3
        return at < len(self._bytes) and bool(self._bytes[at] >> (key & 7) & 1)


class Intake:
    """One pass over the input. `fresh` when the store held no rows at the start of the pass."""

    def __init__(self, connection: sqlite3.Connection, *, fresh: bool, stream: bool, adding: bool) -> None:
        self._connection = connection
        self._fresh = fresh
        self._stream = stream
        self._adding = adding
        self.seen = Bits()
        self.renumbered = False
        """Whether a row that is named by its number has another one now."""
        connection.execute("DROP TABLE IF EXISTS temp.seen")
        if not fresh:
            connection.execute("CREATE TEMP TABLE seen (identity TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID")
        self._next_key = 1 + (connection.execute("SELECT max(row_key) FROM rows").fetchone()[0] or 0)
        # Lines of a stream have no lasting place: what is new goes behind what is known.
        last = connection.execute("SELECT max(row) FROM rows").fetchone()[0]
        self._next_row = 0 if last is None else last + 1

    def take(self, rows: Sequence[Row]) -> list[Known]:
        """Matches a chunk, adding rows that the store hasn't (unless this is a pass that only compares)."""
        return self._take_fresh(rows) if self._fresh else [self._match(row) for row in rows]

    def _custom_id(self, row: Row, position: int) -> str | None:
        if row.custom_id is not None:
            return row.custom_id
        return str(position) if row.identity.startswith("content:") else None

    def _take_fresh(self, rows: Sequence[Row]) -> list[Known]:
        connection = self._connection
        first = self._next_key
        values = [(first + i, row.identity, row.position, self._custom_id(row, row.position)) for i, row in enumerate(rows)]
        self._next_key += len(rows)
        before = connection.total_changes
        connection.executemany("INSERT OR IGNORE INTO rows (row_key, identity, row, custom_id) VALUES (?, ?, ?, ?)", values)
        repeats: dict[int, int] = {}
        if connection.total_changes - before < len(rows):
            there = {key for (key,) in connection.execute("SELECT row_key FROM rows WHERE row_key BETWEEN ? AND ?", (first, self._next_key - 1))}
            for key, identity, position, custom_id in values:
                if key not in there:
                    (nth,) = connection.execute("SELECT max(nth) + 1 FROM rows WHERE identity = ?", (identity,)).fetchone()
                    connection.execute(
                        "INSERT INTO rows (row_key, identity, nth, row, custom_id) VALUES (?, ?, ?, ?, ?)", (key, identity, nth, position, custom_id)
                    )
                    repeats[key] = nth
        return [
            Known(row_key=key, state=PENDING, nth=repeats.get(key, 1), custom_id=custom_id, new=True, position=position)
            for key, _, position, custom_id in values
        ]

    def _match(self, row: Row) -> Known:
        connection = self._connection
        (nth,) = connection.execute(
            "INSERT INTO temp.seen VALUES (?, 1) ON CONFLICT (identity) DO UPDATE SET n = n + 1 RETURNING n", (row.identity,)
        ).fetchone()
        found = connection.execute(
            "SELECT row_key, row, custom_id, state, pin FROM rows WHERE identity = ? AND nth = ?", (row.identity, nth)
        ).fetchone()
        if found is None:
            position = row.position
            if self._stream:
                position = self._next_row
                self._next_row += 1
            key = self._next_key
            self._next_key += 1
            custom_id = self._custom_id(row, position)
            if self._adding:
                connection.execute(
                    "INSERT INTO rows (row_key, identity, nth, row, custom_id) VALUES (?, ?, ?, ?, ?)", (key, row.identity, nth, position, custom_id)
                )
                self.seen.add(key)
            return Known(row_key=key, state=PENDING, nth=nth, custom_id=custom_id, new=True, position=position)
        key, stored, custom_id, state, pin = found
        self.seen.add(key)
        position = stored if self._stream and stored is not None else row.position
        if self._stream and stored is None:
            position = self._next_row
            self._next_row += 1
        returned = stored is None
        if stored != position:
            before, custom_id = custom_id, self._custom_id(row, position)
            self.renumbered = self.renumbered or before != custom_id
            if self._adding:
                connection.execute("UPDATE rows SET row = ?, custom_id = ? WHERE row_key = ?", (position, custom_id, key))
        return Known(row_key=key, state=state, nth=nth, custom_id=custom_id, new=returned and state == PENDING, position=position, pin=pin)

    def remove_unseen(self) -> int:
        """Rows that the input no longer has lose their place (their answers stay, and stand again if the row comes back). Returns how many."""
        gone = self.unseen()
        self._connection.executemany("UPDATE rows SET row = NULL WHERE row_key = ?", ((key,) for key in gone))
        return len(gone)

    def unseen(self) -> list[int]:
        """Keys of placed rows that this pass didn't meet."""
        if self._fresh:
            return []
        return [key for (key,) in self._connection.execute("SELECT row_key FROM rows WHERE row IS NOT NULL") if key not in self.seen]


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def load_histories(connection: sqlite3.Connection, keys: Sequence[int]) -> dict[int, History]:
    """What earlier runs did for these pending rows; rows without attempts are left out."""
    if not keys:
        return {}
    failures: dict[int, dict[str, int]] = {}
    outcomes: dict[int, dict[tuple[str, str], int]] = {}
    attempts: dict[int, int] = {}
    costs: dict[int, int | None] = {}
    query = f"""
        SELECT l.row_key, d.name, CASE WHEN l.outcome = 'unavailable' AND l.http_status IN (504, 524) THEN 'gateway_timeout' ELSE l.outcome END, max(l.attempt), sum(l.counted AND l.attempt > r.failures_after),
               sum(CASE WHEN l.attempt > r.cost_after THEN l.cost_pico END), max(l.attempt > r.cost_after),
               sum(l.attempt > r.failures_after AND NOT l.counted AND l.billed = 'maybe' AND l.outcome != 'cancelled' AND l.http_status IS NOT 502)
        FROM attempt_log l JOIN deployments d ON d.deployment = l.deployment JOIN rows r ON r.row_key = l.row_key
        WHERE l.row_key IN ({_marks(len(keys))}) GROUP BY 1, 2, 3"""  # noqa: S608 - question marks only
    resent: dict[int, bool] = {}
    excused: dict[int, int] = {}
    for key, model, outcome, attempt, counted, cost, present, uncounted in connection.execute(query, list(keys)):
        attempts[key] = max(attempts.get(key, 0), attempt)
        resent[key] = resent.get(key, False) or bool(present)
        excused[key] = excused.get(key, 0) + uncounted
        if counted:
            failures.setdefault(key, {})[model] = failures.get(key, {}).get(model, 0) + counted
            outcomes.setdefault(key, {})[model, outcome] = counted
        if cost is not None:
            costs[key] = (costs.get(key) or 0) + cost
    return {
        key: History(
            attempts=count,
            failures=failures.get(key, {}),
            by_outcome=outcomes.get(key, {}),
            cost_pico=costs.get(key),
            excused=excused[key],
            resent=resent[key],
        )
        for key, count in attempts.items()
    }


def load_answers(connection: sqlite3.Connection, keys: Iterable[int]) -> dict[int, tuple[str | None, int | None]]:
    """(fingerprint, deployment) of stored answers."""
    keys = list(keys)
    if not keys:
        return {}
    query = f"SELECT row_key, fingerprint, deployment FROM outcomes WHERE row_key IN ({_marks(len(keys))})"  # noqa: S608 - question marks only
    return {key: (fingerprint, deployment) for key, fingerprint, deployment in connection.execute(query, keys)}


def pending_at(connection: sqlite3.Connection, positions: Sequence[int]) -> dict[tuple[int, str], Known]:
    """Pending rows at these places of the input, by place and identity."""
    query = f"SELECT row, identity, row_key, nth, custom_id, pin FROM rows WHERE row IN ({_marks(len(positions))}) AND state = ?"  # noqa: S608 - question marks only
    return {
        (row, identity): Known(row_key=key, state=PENDING, nth=nth, custom_id=custom_id, new=False, position=row, pin=pin)
        for row, identity, key, nth, custom_id, pin in connection.execute(query, [*positions, PENDING])
    }


def carry(connection: sqlite3.Connection, columns: Iterable[tuple[str | None, int]]) -> None:
    """Gives finished rows their input columns as they are now: (JSON, row key). What stays as it was isn't written."""
    connection.executemany("UPDATE outcomes SET input = ?1 WHERE row_key = ?2 AND input IS NOT ?1", columns)


def finished_among(connection: sqlite3.Connection, keys: Sequence[int]) -> list[tuple[int, int, int]]:
    """(row key, place, state) of those rows that have an outcome and a place in the input."""
    query = f"SELECT row_key, row, state FROM rows WHERE row_key IN ({_marks(len(keys))}) AND state != ? AND row IS NOT NULL"  # noqa: S608 - question marks only
    return connection.execute(query, [*keys, PENDING]).fetchall()


__all__ = ["NO_HISTORY", "Bits", "Intake", "carry", "finished_among", "load_answers", "load_histories", "pending_at"]
