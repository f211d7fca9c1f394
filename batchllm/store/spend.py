"""Where the money went: by kind of attempt, day and route, what the provider itself says, and what is left of each budget.

Read-only, also of a store that an older version left: what it hasn't counted is None, and no zero.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from batchllm.core import json
from batchllm.store.schema import UNPRICED
from batchllm.store.windows import PINNED_TOKENS, USED_TOKENS

_BY = {"kind": "l.kind", "day": "strftime('%Y-%m-%d', l.started_at, 'unixepoch')", "route": "l.route"}


class Spend(NamedTuple):
    """A part of all attempts."""

    key: str | int | None
    attempts: int
    cost_pico: int | None
    """None: something was billed, and no price was known."""
    reserved_pico: int
    input_tokens: int
    output_tokens: int


def knows_windows(connection: sqlite3.Connection) -> bool:
    """Whether the store counts tokens, routes and budgets of days (schema 3)."""
    return bool(connection.execute("PRAGMA user_version").fetchone()[0] >= 3)


def spend_by(connection: sqlite3.Connection, what: str, *, simulated: bool) -> list[Spend]:
    """By `kind` (first, retry, repair, ...), `day` (UTC, of sending) or `route` (number of the rule, from 0; None: sent by a model's name)."""
    if what == "route" and not knows_windows(connection):
        return []
    query = f"""
        SELECT {_BY[what]}, count(*), CASE WHEN sum(l.cost_pico) = 0 AND sum({UNPRICED}) > 0 THEN NULL ELSE sum(l.cost_pico) END,
               coalesce(sum(CASE WHEN l.billed = 'maybe' THEN l.reserved_pico END), 0), coalesce(sum(l.input_tokens), 0), coalesce(sum(l.output_tokens), 0)
        FROM attempt_log l WHERE l.simulated = ? GROUP BY 1 ORDER BY 1"""  # noqa: S608 - constants only
    return [Spend(*row) for row in connection.execute(query, (int(simulated),))]


def provider_cost(connection: sqlite3.Connection, *, simulated: bool) -> tuple[int, float] | None:
    """(answers, dollars) that the provider itself named a cost for; None when it named none."""
    count, cost = connection.execute(
        "SELECT count(provider_cost_usd), sum(provider_cost_usd) FROM attempt_log WHERE simulated = ?", (int(simulated),)
    ).fetchone()
    return (int(count), float(cost)) if count else None


class Left(NamedTuple):
    """A budget as it stands."""

    name: str
    unit: str
    """`usd` (then all sums are pico-dollars) or `tokens`."""
    cap: int
    used: int
    reserved: int
    since_utc: float | None
    """When its window began; None: it counts the store's whole life."""


def budgets(connection: sqlite3.Connection, *, run: int | None, simulated: bool, now_utc: float) -> list[Left]:
    """All budgets of the last run, with what was used of them up to now (a day's: of today)."""
    if run is None or not knows_windows(connection):
        return []
    row = connection.execute("SELECT caps FROM runs WHERE run = ?", (run,)).fetchone()
    caps: dict[str, tuple[int, list[str] | None]] = json.loads(row[0]) if row and row[0] else {}
    return [_left(connection, name, cap, models, simulated=simulated, now_utc=now_utc) for name, (cap, models) in caps.items()]


def _left(connection: sqlite3.Connection, name: str, cap: int, models: Sequence[str] | None, *, simulated: bool, now_utc: float) -> Left:
    since = _since(name, now_utc)
    of_tokens = name.startswith("budget.tokens")
    used, held = (USED_TOKENS, PINNED_TOKENS) if of_tokens else ("l.cost_pico", "CASE WHEN l.billed = 'maybe' THEN l.reserved_pico END")
    query = f"""
        SELECT coalesce(sum({used}), 0), coalesce(sum({held}), 0) FROM attempt_log l
        WHERE l.simulated = ? AND l.started_at >= ?
              AND (? IS NULL OR l.deployment IN (SELECT deployment FROM deployments WHERE name IN (SELECT value FROM json_each(?))))"""  # noqa: S608 - constants only
    names = None if models is None else json.text(list(models))
    spent, reserved = connection.execute(query, (int(simulated), since if since is not None else -1e18, names, names or "[]")).fetchone()
    return Left(name, "tokens" if of_tokens else "usd", cap, spent, reserved, since)


def _since(name: str, now_utc: float) -> float | None:
    moment = datetime.fromtimestamp(now_utc, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if name.endswith("_per_day"):
        return moment.timestamp()
    return moment.replace(day=1).timestamp() if name.endswith("_per_month") else None
