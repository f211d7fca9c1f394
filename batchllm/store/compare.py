"""What each model of a job did, for a comparison of models: rows, costs, latencies, and the answers themselves one by one.

Sums come from SQL; answers are streamed, since whether one agrees with a reference is not SQL's to say.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from batchllm.core import json

_ROWS = """
SELECT d.name, sum(a.status = 'ok'), sum(a.status = 'failed'), avg(CASE WHEN a.status = 'ok' THEN a.latency_seconds END),
       avg(CASE WHEN a.status = 'ok' THEN a.output_tokens END), avg(CASE WHEN a.status = 'ok' THEN length(a.output) END)
FROM outcomes a JOIN rows r ON r.row_key = a.row_key JOIN deployments d ON d.deployment = a.deployment
WHERE r.row IS NOT NULL GROUP BY d.name
"""
_ATTEMPTS = """
SELECT d.name, count(*), sum(l.cost_pico), sum(l.outcome = 'ok'), sum(l.outcome = 'invalid_output'), max(l.simulated)
FROM attempt_log l JOIN deployments d ON d.deployment = l.deployment GROUP BY d.name
"""


def model_rows(connection: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """Per model that gave rows their outcome: how many, and means over the accepted answers. None where there is nothing to take a mean of."""
    names = ("ok", "failed", "latency_seconds", "output_tokens", "characters")
    return {name: dict(zip(names, rest, strict=True)) for name, *rest in connection.execute(_ROWS)}


def model_attempts(connection: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """Per model that was asked: requests, their known cost, and how many answers were good or invalid. `cost_pico` is None where no price was known."""
    names = ("attempts", "cost_pico", "good", "invalid", "simulated")
    return {name: dict(zip(names, rest, strict=True)) for name, *rest in connection.execute(_ATTEMPTS)}


def answers_with_input(connection: sqlite3.Connection) -> Iterator[tuple[str, str | None, Any, dict[str, Any] | None]]:
    """(model, output, parsed, kept input columns) of every ok answer."""
    query = """SELECT d.name, a.output, a.parsed, a.input FROM outcomes a JOIN rows r ON r.row_key = a.row_key JOIN deployments d ON d.deployment = a.deployment
               WHERE a.status = 'ok' AND r.row IS NOT NULL"""
    for name, output, parsed, kept in connection.execute(query):
        yield name, output, json.loads(parsed) if parsed is not None else None, json.loads(kept) if kept is not None else None
