"""Limits per day that several runs of this machine use: each tells what it has used since the day began, and takes out of its own buckets what the others have.

Not in parts, as limits per minute: a day is long, and a part that its run doesn't need would be lost to the others until midnight. Between two words the runs may
pass the limit by what they send in a second; the provider then refuses, which is heard. The trap: where headers tell what is left, the others' use is in there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from batchllm.admit.bucket import DayBucket
from batchllm.admit.windows import DAY, last_californian_midnight
from batchllm.core.clock import Clock
from batchllm.engine.shared_limits import Pool
from batchllm.share import DayLedger


class _Count:
    """One limit of one pool."""

    __slots__ = ("_before", "_buckets", "_day", "_ledger", "_mark", "_others", "_pool", "_told")

    def __init__(self, ledger: DayLedger, pool: Pool, buckets: Sequence[DayBucket], utc: float) -> None:
        self._ledger = ledger
        self._pool = pool
        self._buckets = buckets
        self._day = self._begins(utc)
        # What this job's earlier runs used of it is missing from the buckets.
        self._before = sum(bucket.capacity - bucket.level for bucket in buckets)
        self._mark = sum(bucket.used for bucket in buckets)
        self._others = 0
        self._told = -1

    def _begins(self, utc: float) -> float:
        californian = self._pool.lanes[0].charging.day == "california"
        return last_californian_midnight(utc) if californian else DAY.start(utc)

    def look(self, now: float, utc: float) -> None:
        """One word to the others, one of theirs. Raises as the ledger does."""
        used = sum(bucket.used for bucket in self._buckets)
        day = self._begins(utc)
        if day > self._day:
            self._day, self._before, self._mark, self._others = day, 0.0, used, 0
        mine = max(0, round(self._before + used - self._mark))
        others = self._ledger.tell(self._day, used=mine)
        more, self._others = others - self._others, others
        name = self._buckets[0].dimension
        if more and not (self._pool.group_name is None and any(name in lane.finder.told for lane in self._pool.lanes)):
            whole = sum(bucket.capacity for bucket in self._buckets)
            for bucket in self._buckets:
                bucket.elsewhere(more * bucket.capacity / whole, now)


class SharedDays:
    """One per run."""

    def __init__(self, folder: Path, pools: Sequence[Pool], job_id: str, clock: Clock) -> None:
        self._clock = clock
        self._counts: list[_Count] = []
        for pool in pools:
            for name in ("rpd", "tpd"):
                buckets = [bucket for group in pool.groups for bucket in group.buckets if isinstance(bucket, DayBucket) and bucket.dimension == name]
                if buckets:
                    self._counts.append(_Count(DayLedger(folder, f"{pool.key}/{name}", job_id), pool, buckets, clock.utc()))

    def look(self) -> None:
        """To be called once a second, and at the run's end. Raises Busy and OSError."""
        now, utc = self._clock.now(), self._clock.utc()
        for count in self._counts:
            count.look(now, utc)
