"""What trying again took: attempts per answer, waits between attempts, time and money of attempts that came to nothing, and why they did.

Over the store's whole life. Only rows that were asked more than once are looked at one by one, so a job without trouble costs one pass over its log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchllm.core.money import usd_from_pico

_SUMS = """
SELECT outcome, count(*), sum(cost_pico), sum(CASE WHEN billed = 'maybe' THEN reserved_pico END), sum(max(ended_at - started_at, 0))
FROM attempt_log WHERE simulated = ? AND outcome != 'in_flight' GROUP BY outcome
"""
_WAITS = """
SELECT count(wait), sum(wait), max(wait) FROM (
    SELECT max(started_at - lag(ended_at) OVER (PARTITION BY row_key ORDER BY attempt), 0) AS wait, kind, run, lag(run) OVER (PARTITION BY row_key ORDER BY attempt) AS before
    FROM attempt_log WHERE simulated = ?1 AND row_key IN (SELECT row_key FROM attempt_log WHERE attempt > 1 AND simulated = ?1)
) WHERE run = before AND kind != 'first'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Attempts that ended alike."""

    attempts: int
    cost_pico: int | None
    """Known costs; None when none is known."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """The figures."""

    attempts: int
    """That have ended."""
    answers: int
    waits: int
    """Before a further attempt of a row within one run (several samples of a row aren't further attempts)."""
    wait_seconds: float
    longest_wait_seconds: float
    wall_seconds: float
    """Of all runs together, from their start to their end."""
    busy_seconds: float
    """Sum over all attempts, from sending to the end of the reply."""
    troubles: Mapping[str, Trouble]
    """By the code of a row that ends so: refusals (not now) are `rate_limited` and `unavailable`; a request that a stop cut is `cancelled`."""
    held_pico: int
    """Reserved for failed attempts that may have been billed."""

    @property
    def attempts_per_answer(self) -> float | None:
        """1.0 is no trouble at all; None before the first answer."""
        return self.attempts / self.answers if self.answers else None

    @property
    def failed_attempts(self) -> int:
        """Attempts without a good answer."""
        return sum(trouble.attempts for trouble in self.troubles.values())

    @property
    def failed_pico(self) -> int | None:
        """Known costs of these; None when there were some and none is known."""
        known = [trouble.cost_pico for trouble in self.troubles.values() if trouble.cost_pico is not None]
        return sum(known) if known or not self.troubles else None

    def as_dict(self) -> dict[str, Any]:
        """The object `telemetry` of `run --json` and `status --json`."""
        failed = self.failed_pico
        return {
            "attempts_per_answer": None if self.attempts_per_answer is None else round(self.attempts_per_answer, 4),
            "failed_attempts": self.failed_attempts,
            "failed_usd": None if failed is None else usd_from_pico(failed),
            "failed_reserved_usd": usd_from_pico(self.held_pico),
            "failed_seconds": round(sum(trouble.seconds for trouble in self.troubles.values()), 3),
            "waits": self.waits,
            "wait_seconds": round(self.wait_seconds, 3),
            "longest_wait_seconds": round(self.longest_wait_seconds, 3),
            "wall_seconds": round(self.wall_seconds, 3),
            "busy_seconds": round(self.busy_seconds, 3),
            "errors": {
                code: {
                    "attempts": trouble.attempts,
                    "cost_usd": None if trouble.cost_pico is None else usd_from_pico(trouble.cost_pico),
                    "seconds": round(trouble.seconds, 3),
                }
                for code, trouble in self.troubles.items()
            },
        }


def read_telemetry(connection: sqlite3.Connection, *, simulated: bool) -> Telemetry:
    """Real attempts, or the simulated ones."""
    answers = attempts = held = 0
    busy = 0.0
    troubles: dict[str, Trouble] = {}
    for outcome, count, cost, reserved, seconds in connection.execute(_SUMS, (int(simulated),)):
        attempts += count
        busy += seconds or 0.0
        if outcome == "ok":
            answers += count
            continue
        held += reserved or 0
        troubles[outcome] = Trouble(attempts=count, cost_pico=cost, seconds=seconds or 0.0)
    waits, wait_seconds, longest = connection.execute(_WAITS, (int(simulated),)).fetchone()
    (wall,) = connection.execute("SELECT sum(max(coalesce(ended_at, seen_at, started_at) - started_at, 0)) FROM runs").fetchone()
    return Telemetry(
        attempts=attempts,
        answers=answers,
        waits=waits,
        wait_seconds=wait_seconds or 0.0,
        longest_wait_seconds=longest or 0.0,
        wall_seconds=wall or 0.0,
        busy_seconds=busy,
        troubles=dict(sorted(troubles.items(), key=lambda item: -item[1].attempts)),
        held_pico=held,
    )
