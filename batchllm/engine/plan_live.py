"""What real rows say of the rest: intervals for cost, length, validity and time, from the rows that `plan --live K` sent.

The trap: K rows tell the mean of the others only within a margin, and a margin that isn't told is taken for none. The intervals are those of a mean (95 %, by the
t distribution's normal limit with two more rows' worth of doubt), so they are too narrow for a job whose rows are ordered by kind, unless they were drawn by id, as here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

from batchllm.store.read import StoreReader

_NORMAL = 1.96

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What came of the rows that were really sent."""

    rows: int
    ok: int
    spent_usd: float
    cost_usd: Interval | None
    """Of one row; None where no price is known."""
    output_tokens: Interval | None
    """Of one answer."""
    latency_seconds: Interval | None
    valid: Interval
    """Rows that end well, 0 to 1."""

    def as_dict(self, requests: int, seconds: Interval | None) -> dict[str, Any]:
        """For `plan --json`; the cost is that of all rows, the time that of those that are left."""
        return {
            "rows": self.rows,
            "ok": self.ok,
            "cost_usd": [self.spent_usd + requests * value for value in self.cost_usd] if self.cost_usd is not None else None,
            "output_tokens": list(self.output_tokens) if self.output_tokens is not None else None,
            "latency_seconds": list(self.latency_seconds) if self.latency_seconds is not None else None,
            "valid": list(self.valid),
            "seconds": list(seconds) if seconds is not None else None,
        }


def read_live(reader: StoreReader) -> Live:
    """From all rows that were sent so far: those of earlier runs count alike."""
    rows = reader.all("SELECT status, cost_usd, output_tokens, latency_seconds FROM results WHERE attempts > 0")
    good = [row for row in rows if row[0] == "ok"]
    costs = [row[1] for row in rows]
    return Live(
        rows=len(rows),
        ok=len(good),
        spent_usd=sum(cost for cost in costs if cost is not None),
        cost_usd=_mean([cost for cost in costs if cost is not None]) if None not in costs else None,
        output_tokens=_mean([float(row[2]) for row in good if row[2] is not None]),
        latency_seconds=_mean([row[3] for row in good if row[3] is not None]),
        valid=_share(len(good), len(rows)),
    )


def _mean(values: list[float]) -> Interval | None:
    count = len(values)
    if count < 2:
        return None
    mean = sum(values) / count
    deviation = sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    margin = _NORMAL * deviation / sqrt(count) * sqrt((count + 2) / count)
    return (max(mean - margin, 0.0), mean + margin)


def _share(good: int, count: int) -> Interval:
    """Wilson's interval: it says something with ten good rows of ten, too."""
    if not count:
        return (0.0, 1.0)
    square = _NORMAL**2
    part = good / count
    middle = (part + square / (2 * count)) / (1 + square / count)
    margin = _NORMAL * sqrt(part * (1 - part) / count + square / (4 * count**2)) / (1 + square / count)
    return (max(middle - margin, 0.0), min(middle + margin, 1.0))
