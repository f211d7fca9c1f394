"""The buckets of a model or a limit group, as its spec declares them: per minute, per day, a job's share of them, and how the provider fills them.

Buckets of a minute begin with a part of the provider's burst; those of a day begin with what earlier runs left of it, by the store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from batchllm.admit import Bucket, Charging, charging
from batchllm.admit.bucket import DayBucket, FixedDayBucket, level_after
from batchllm.admit.charging import DAY, MINUTE
from batchllm.admit.windows import last_californian_midnight, next_californian_midnight
from batchllm.core.clock import Clock
from batchllm.engine.lane import OWN_BURST
from batchllm.spec import ModelSpec, RateLimits
from batchllm.store.windows import Sent

Past = Callable[[float], Sequence[Sent]]
"""What was sent to the provider since a moment of wall time."""
_ALL = -math.inf


def charging_of(model: ModelSpec, base_url: str) -> Charging:
    """How a model's provider counts; a simulated one by the accounting that its spec asks for."""
    if model.provider == "simulated":
        return charging(model.simulator.accounting, "")
    # Whoever names a host knows better than its address tells: a gateway of one's own may stand before Azure.
    provider = model.quirks.accounting if model.quirks is not None else model.provider
    return charging(provider, (urlsplit(base_url).hostname or "").lower())


def limit_of(limits: RateLimits, dimension: str) -> float | None:
    """A limit, or this job's share of it; None: not declared."""
    limit = getattr(limits, dimension)
    share = getattr(limits, "share", 1.0)
    return None if limit is None else limit * share


def slots_of(limits: RateLimits) -> float:
    """Requests in flight at once that a limit group allows this job: one at least."""
    limit = limit_of(limits, "concurrency")
    return math.inf if limit is None else max(1.0, math.floor(limit))


def minute_buckets(limits: RateLimits, now: float) -> list[Bucket]:
    """What is declared per minute."""
    burst = limits.burst_seconds * OWN_BURST
    return [Bucket(name, per_minute=rate, burst_seconds=burst, now=now) for name in MINUTE if (rate := limit_of(limits, name)) is not None]


def day_bucket(dimension: str, limit: float, how: Charging, clock: Clock, past: Past | None) -> DayBucket:
    """A limit per day, with what is left of it. `past` None: nothing was sent yet."""
    now, utc = clock.now(), clock.utc()
    if how.day == "california":
        bucket: DayBucket = FixedDayBucket(dimension, limit=limit, now=now, utc=utc, next_start=next_californian_midnight)
    else:
        bucket = DayBucket(dimension, limit=limit, now=now)
    bucket.level = min(bucket.capacity, left_of_day(dimension, limit, how, utc, past))
    return bucket


def left_of_day(dimension: str, limit: float, how: Charging, utc: float, past: Past | None) -> float:
    """What is left of a limit per day; below 0 when more was used."""
    if how.day == "california":
        return limit - sum(amount for _, amount in _uses(dimension, past, last_californian_midnight(utc)))
    return level_after(limit, _uses(dimension, past, _ALL), utc)


def _uses(dimension: str, past: Past | None, since_utc: float) -> Iterable[tuple[float, float]]:
    if past is None:
        return []
    return [(sent.last_utc, float(sent.requests if dimension == "rpd" else sent.tokens)) for sent in past(since_utc)]


def day_buckets(limits: RateLimits, how: Charging, clock: Clock, past: Past | None) -> list[DayBucket]:
    """What is declared per day."""
    return [day_bucket(name, limit, how, clock, past) for name in DAY if (limit := limit_of(limits, name)) is not None]
