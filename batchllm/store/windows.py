"""What was used since a moment: by day for budgets, by some minutes for the provider's own limits per day. Counted by the time of sending, in UTC.

The trap: an attempt that may have been billed used its bound, in tokens as in dollars; and what is dated ahead of now (the clock was wrong) must go on
counting, or a clock that steps back would open a window again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from typing import NamedTuple

from batchllm.store.records import Deployment

DAY_SECONDS = 86_400
_SLICE_SECONDS = 300
"""A day's bucket needn't know the order of requests within it."""

USED_TOKENS = """CASE WHEN l.input_tokens IS NOT NULL THEN l.input_tokens + coalesce(l.output_tokens, 0)
                      WHEN l.billed = 'yes' THEN coalesce(l.reserved_tokens, 0) ELSE 0 END"""
"""Tokens that an attempt used: a bill without a usage used the bound."""
PINNED_TOKENS = "CASE WHEN l.input_tokens IS NULL AND l.billed = 'maybe' THEN coalesce(l.reserved_tokens, 0) ELSE 0 END"


class DayUse(NamedTuple):
    """What one model was used on one day."""

    day_utc: float
    """When it began."""
    model: str
    simulated: bool
    spent_pico: int
    pinned_pico: int
    used_tokens: int
    pinned_tokens: int
    unbounded: int
    """Attempts that may have been billed, and nobody knows for how many tokens (a version before token budgets sent them)."""


def used_by_day(connection: sqlite3.Connection, present: Collection[Deployment]) -> list[DayUse]:
    """All that this store ever used. `present`: the models as the spec calls them now; what one of them used under an older name is told under the new one."""
    query = f"""
        SELECT CAST(l.started_at / {DAY_SECONDS} AS INTEGER) * {DAY_SECONDS}.0, d.name, d.provider, d.base_url, d.model, l.simulated, coalesce(sum(l.cost_pico), 0),
               coalesce(sum(CASE WHEN l.billed = 'maybe' THEN l.reserved_pico END), 0), sum({USED_TOKENS}), sum({PINNED_TOKENS}),
               sum(l.input_tokens IS NULL AND l.billed = 'maybe' AND l.reserved_tokens IS NULL)
        FROM attempt_log l JOIN deployments d ON d.deployment = l.deployment GROUP BY 1, d.deployment, l.simulated"""  # noqa: S608 - constants only
    unchanged = {(one.name, one.identity) for one in present}
    renamed = {one.identity: one.name for one in present}
    found: list[DayUse] = []
    for day, name, provider, base_url, model, simulated, *rest in connection.execute(query):
        identity = (provider, base_url, model)
        found.append(DayUse(day, name if (name, identity) in unchanged else renamed.get(identity, name), bool(simulated), *rest))
    return found


class Sent(NamedTuple):
    """What a provider's limits per day were charged, in some minutes."""

    last_utc: float
    requests: int
    tokens: int


def sent_to(connection: sqlite3.Connection, deployments: Iterable[Deployment], *, since_utc: float, key_env: str | None = None) -> list[Sent]:
    """What was sent to these models since a moment, in rising order. A model's name in the spec doesn't matter: the account counts its model ids.

    `key_env`: only what went by this one of several keys, and what went when there was one only.
    """
    wanted = {one.identity for one in deployments}
    keys = [
        key
        for key, provider, base_url, model in connection.execute("SELECT deployment, provider, base_url, model FROM deployments")
        if (provider, base_url, model) in wanted
    ]
    marks = ", ".join("?" * len(keys))
    query = f"""
        SELECT max(l.started_at), count(DISTINCT coalesce(l.pack, l.attempt_id)), sum(CASE WHEN l.refused THEN 0 ELSE ({USED_TOKENS}) + ({PINNED_TOKENS}) END)
        FROM attempt_log l
        WHERE l.started_at >= ? AND l.deployment IN ({marks}) AND NOT (l.http_status IS NULL AND l.billed = 'no' AND l.settled IS NULL)
            AND (? IS NULL OR l.key_env IS NULL OR l.key_env = ?)
        GROUP BY CAST(l.started_at / {_SLICE_SECONDS} AS INTEGER) ORDER BY 1"""  # noqa: S608 - constants and question marks
    return [Sent(*row) for row in connection.execute(query, [since_utc, *keys, key_env, key_env])]
