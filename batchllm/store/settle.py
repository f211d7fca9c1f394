"""Settling by the user's word: attempts that may have been billed get a cost, and their reservation ends.

Whole pico-dollars only: the attempts' shares sum to the given amount exactly. The trap: a row's own cost is the sum of its attempts', so the answers of
settled attempts are summed anew in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MOST_BILLED_PICO = 10**18
"""A million dollars. What is larger is a slip, and a few such sums are more than SQLite can add up: the store could not be opened any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Possibly billed attempts of one kind of dollars."""

    attempts: int
    worst_pico: int
    """Sum of the bounds that are known."""
    unknown: int
    """Attempts without a bound: no price was known when they were sent."""


NOTHING_OPEN = Open(attempts=0, worst_pico=0, unknown=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What was booked."""

    attempts: int
    billed_pico: int
    worst_pico: int
    unknown: int
    """Attempts among them without a bound."""
    left: int
    """Attempts that stay open: their worst isn't known."""


class Part(NamedTuple):
    """What settling did to one attempt, for whoever counts days and tokens."""

    started_utc: float
    model: str
    freed_pico: int
    billed_pico: int
    tokens: int
    """Its bound in tokens; it stays used where something was billed."""


def open_attempts(connection: sqlite3.Connection, *, in_flight: bool) -> dict[bool, Open]:
    """Simulated or not -> what is open. `in_flight`: attempts without an end count, as no run is there to end them."""
    query = """SELECT simulated, count(*), coalesce(sum(reserved_pico), 0), sum(reserved_pico IS NULL) FROM attempt_log
               WHERE billed = 'maybe' AND (? OR outcome != 'in_flight') GROUP BY simulated"""
    return {
        bool(key): Open(attempts=count, worst_pico=worst, unknown=unknown) for key, count, worst, unknown in connection.execute(query, (in_flight,))
    }


def shares(total_pico: int, bounds_pico: Sequence[int | None]) -> list[int]:
    """A sum spread over attempts by their bounds: never above a bound as long as the sum isn't, and exact to the pico-dollar.

    Attempts without a bound count like the average of those that have one.
    """
    known = [bound for bound in bounds_pico if bound is not None]
    average = max(sum(known) // len(known), 1) if known else 1
    weights = [average if bound is None else bound for bound in bounds_pico]
    whole = sum(weights)
    if not whole:
        weights, whole = [1] * len(weights), len(weights)
    given = 0
    parts: list[int] = []
    running = 0
    for weight in weights:
        # Differences of rounded-down running sums: they add up to the total, and none is above its weight's share rounded up.
        running += weight
        upto = total_pico * running // whole
        parts.append(upto - given)
        given = upto
    return parts


def settle(
    connection: sqlite3.Connection,
    *,
    simulated: bool,
    billed_pico: int | None,
    word: str,
    now_utc: float,
    in_flight: bool = True,
    parts_into: list[Part] | None = None,
) -> Settled:
    """Books what the user says of all open attempts of one kind of dollars, inside the caller's transaction.

    `billed_pico`: the sum on the provider's bill; None: each attempt's worst (those whose worst isn't known stay open). `in_flight`: attempts without an end
    count, as no run is there to end them. `parts_into`: takes what became of each attempt. Records it in `settlements`.
    """
    waiting = connection.execute(
        """SELECT attempt_id, row_key, reserved_pico, started_at, d.name, CASE WHEN input_tokens IS NULL THEN coalesce(reserved_tokens, 0) ELSE 0 END
           FROM attempt_log l JOIN deployments d ON d.deployment = l.deployment
           WHERE billed = 'maybe' AND simulated = ? AND (? OR outcome != 'in_flight') ORDER BY attempt_id""",
        (int(simulated), in_flight),
    ).fetchall()
    found = [one for one in waiting if billed_pico is not None or one[2] is not None]
    left = len(waiting) - len(found)
    if not found:
        return Settled(attempts=0, billed_pico=0, worst_pico=0, unknown=0, left=left)
    bounds = [one[2] for one in found]
    worst = sum(bound or 0 for bound in bounds)
    parts = [bound or 0 for bound in bounds] if billed_pico is None else shares(billed_pico, bounds)
    total = sum(parts)
    cursor = connection.execute(
        "INSERT INTO settlements (at, word, attempts, reserved_pico, billed_pico, simulated) VALUES (?, ?, ?, ?, ?, ?)",
        (now_utc, word, len(found), worst, total, int(simulated)),
    )
    number = cursor.lastrowid
    connection.executemany(
        "UPDATE attempt_log SET settled = ?, billed = ?, cost_pico = ? WHERE attempt_id = ?",
        ((number, "yes" if part else "no", part, one[0]) for one, part in zip(found, parts, strict=True)),
    )
    _sum_anew(connection, dict.fromkeys(one[1] for one in found))
    if parts_into is not None:
        parts_into += [
            Part(started, model, bound or 0, part, tokens) for (_, _, bound, started, model, tokens), part in zip(found, parts, strict=True)
        ]
    return Settled(attempts=len(found), billed_pico=total, worst_pico=worst, unknown=bounds.count(None), left=left)


def sum_anew(connection: sqlite3.Connection, *, after: int) -> None:
    """Sums the costs of rows anew whose attempts were settled since the settlement `after`: a run that was at work on one meanwhile didn't know of it."""
    _sum_anew(connection, [key for (key,) in connection.execute("SELECT DISTINCT row_key FROM attempt_log WHERE settled > ?", (after,))])


def last_settlement(connection: sqlite3.Connection) -> int:
    """The number of the newest settlement; 0 when there is none."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM settlements").fetchone()[0])


def _sum_anew(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    connection.executemany(
        """UPDATE outcomes SET cost_pico = (
               SELECT sum(l.cost_pico) FROM attempt_log l JOIN rows r ON r.row_key = l.row_key WHERE l.row_key = ?1 AND l.attempt > r.cost_after)
           WHERE row_key = ?1""",
        ((key,) for key in keys),
    )
