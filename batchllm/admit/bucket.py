"""A refill bucket: the arithmetic of one rate limit, as providers enforce it (continuous refill, not fixed minutes; protocols G).

Time is an argument. The level may go below zero: a request larger than the bucket passes at a full one, into debt, and real usage may exceed an estimate.

Limits per day are buckets, too: most refill all day long (OpenAI, Groq: their headers show it), Gemini's is counted anew at each midnight in California.
The trap: a new process must not believe that its day begins with a full bucket; whoever makes one lowers it by what was sent before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

# A timer may fire an instant early (uvloop's clock has 1 ms); without slack the pump would re-arm for nothing, for ever.
_SLACK = 1e-6
_MEMORY_SECONDS = 60.0
DAY_SECONDS = 86_400.0
_KEPT_BACK_SECONDS = 1.0
_SETTLE_SECONDS = 0.005
"""A request larger than the bucket passes the provider's door only when that bucket is full too, and what we charge here is charged there a commit and a way later."""
_FAR = 0.25
"""Of a bucket: what a header must be below our own count to be believed."""


class Bucket:
    """`rate` units a second, at most `capacity` saved up; full at the start."""

    __slots__ = (
        "_at",
        "_burst_seconds",
        "_full_since",
        "_last",
        "_memory_seconds",
        "_pace",
        "_part",
        "_per_minute",
        "capacity",
        "dimension",
        "level",
        "rate",
        "used",
    )

    per_day = False
    """Whether it counts a day: what says that a minute is used up says nothing about it."""

    def __init__(self, dimension: str, *, per_minute: float, burst_seconds: float, now: float) -> None:
        self.dimension = dimension
        self._part = 1.0
        self._pace = 1.0
        self._per_minute = per_minute
        self._burst_seconds = burst_seconds
        self.used = 0.0
        """All that was ever charged, less what was given back."""
        self.rate = per_minute / 60
        # One whole unit at least, or a slow limit would never let anything pass.
        self.capacity = max(1.0, self.rate * burst_seconds)
        self.level = self.capacity
        self._at = now
        self._full_since = -math.inf
        self._last = 0.0
        self._memory_seconds = _MEMORY_SECONDS

    def set_rate(self, per_minute: float, *, burst_seconds: float, now: float) -> None:
        """Another limit from now on."""
        self._refill(now)
        self._per_minute = per_minute
        self._burst_seconds = burst_seconds
        self.rate = per_minute / 60 * self._part * self._pace
        self.capacity = max(1.0, self.rate * burst_seconds)
        self.level = min(self.level, self.capacity)

    @property
    def per_minute(self) -> float:
        """The whole limit, whatever this run's part of it is."""
        return self._per_minute

    @property
    def part(self) -> float:
        """This run's part of it; 1 while no other run uses the account."""
        return self._part

    def set_pace(self, pace: float, now: float) -> None:
        """Only this share of the rate for a while: the provider says that traffic rose too fast, though it is within the limit."""
        self._pace = pace
        self.set_rate(self._per_minute, burst_seconds=self._burst_seconds, now=now)

    def set_part(self, part: float, now: float) -> None:
        """Only this part of the limit (above 0, at most 1) is this run's from now on: other runs use the account, too. What is in the bucket stays, if it fits."""
        self._part = part
        self.set_rate(self._per_minute, burst_seconds=self._burst_seconds, now=now)

    @property
    def last(self) -> float:
        """What the latest request took."""
        return self._last

    def lower(self, level: float, now: float) -> None:
        """The provider says that less is left than we believed (others share the account): believed at once, never the other way round."""
        self._refill(now)
        self.level = min(self.level, level)

    def correct(self, level: float, now: float) -> None:
        """A response says that so much was left when it was written. Believed where it is far below what we think: requests that are under way and what came
        back since make it uncertain by a request or two, and whoever lowers by that at each response never sends again.
        """
        self._refill(now)
        if level < self.level - max(_FAR * self.capacity, 2 * self._last):
            self.level = level

    def _refill(self, now: float) -> None:
        if now > self._at:
            missing = self.capacity - self.level
            if 0 < missing <= (now - self._at) * self.rate:
                self._full_since = self._at + missing / self.rate
            self.level = min(self.capacity, self.level + (now - self._at) * self.rate)
            self._at = now

    def wait_seconds(self, amount: float, now: float) -> float:
        """Seconds until `amount` may pass; 0 when it may now."""
        self._refill(now)
        missing = min(amount, self.capacity) - self.level
        settling = _SETTLE_SECONDS if amount > self.capacity else 0.0
        if missing > _SLACK * self.rate + 1e-9:
            return missing / self.rate + settling
        # Compared with slack likewise: see above.
        left = self._full_since + settling - now if settling else 0.0
        return left if left > _SLACK else 0.0

    def take(self, amount: float) -> None:
        """Charges what passes."""
        self.level -= amount
        self.used += amount
        self._last = amount

    def give(self, amount: float, now: float) -> None:
        """Gives back what was charged too much; a negative amount charges more, but never so much that it takes over a minute (a day) to pay back: no limit
        per minute remembers more, and a usage that says otherwise is a slip of the provider's.
        """
        self._refill(now)
        self.used -= amount
        level = self.level + amount
        if level < 0 > amount:
            level = max(level, min(self.level, -self.rate * self._memory_seconds))
        if self.level < self.capacity <= level:
            self._full_since = now
        self.level = min(self.capacity, level)


class DayBucket(Bucket):
    """A limit per day that refills all the time: a whole day's worth may be used at once, and comes back within a day."""

    __slots__ = ()

    per_day = True

    def __init__(self, dimension: str, *, limit: float, now: float) -> None:
        super().__init__(dimension, per_minute=limit * 60 / DAY_SECONDS, burst_seconds=DAY_SECONDS, now=now)
        self._memory_seconds = DAY_SECONDS

    def set_limit(self, limit: float, now: float) -> None:
        """Another limit from now on; what was used of the old one is used of this one."""
        self._refill(now)
        used = self.capacity - self.level
        self._per_minute = limit * 60 / DAY_SECONDS
        self.rate = limit / DAY_SECONDS * self._part
        self.capacity = max(1.0, limit * self._part)
        self.level = self.capacity - used

    def wait_seconds(self, amount: float, now: float) -> float:
        """As for a minute, but a second's refill is kept back: what earlier runs sent is known by when it was sent, not by when it arrived."""
        self._refill(now)
        missing = min(amount + self.rate * _KEPT_BACK_SECONDS, self.capacity) - self.level
        return 0.0 if missing <= _SLACK * self.rate + 1e-9 else missing / self.rate

    def elsewhere(self, amount: float, now: float) -> None:
        """Others on the account used so much more of it than we had heard of (negative: less)."""
        self._refill(now)
        self.level = min(self.capacity, self.level - amount)

    def correct(self, level: float, now: float) -> None:
        """A day's count is not blurred by what is under way."""
        self.lower(level, now)

    def look(self, utc: float) -> bool:
        """Whether a new day has begun by the wall clock; never, here."""
        del utc
        return False


class FixedDayBucket(DayBucket):
    """A limit per day that is counted anew at a moment of the wall clock; nothing comes back before."""

    __slots__ = ("_next_start", "_opens_utc")

    def __init__(self, dimension: str, *, limit: float, now: float, utc: float, next_start: Callable[[float], float]) -> None:
        """`next_start`: the first beginning of a day after a wall time (seconds since 1970 UTC)."""
        super().__init__(dimension, limit=limit, now=now)
        self._next_start = next_start
        self._opens_utc = next_start(utc)

    def _refill(self, now: float) -> None:
        """Nothing comes back by the loop's time."""

    def wait_seconds(self, amount: float, now: float) -> float:
        """0, or endless: only `look` ends the wait, because loop time stands still while a laptop sleeps."""
        del now
        return 0.0 if min(amount, self.capacity) <= self.level + 1e-9 else math.inf

    def look(self, utc: float) -> bool:
        """Begins a new day if it is time; says so. A debt (what was under way over midnight) isn't carried over."""
        if utc < self._opens_utc:
            return False
        self._opens_utc = self._next_start(utc)
        self.level = self.capacity
        return True


def level_after(limit: float, uses: Iterable[tuple[float, float]], now_utc: float) -> float:
    """What is left in a day's refilling bucket after all that was ever sent: `uses` are (seconds since 1970, amount) in rising order.

    A use in the future (the clock was wrong) counts as one of now.
    """
    level, at = limit, -math.inf
    for moment, amount in uses:
        when = min(moment, now_utc)
        if when > at:
            level = limit if at == -math.inf else min(limit, level + (when - at) * limit / DAY_SECONDS)
            at = when
        level -= amount
    return level if at == -math.inf else min(limit, level + (now_utc - at) * limit / DAY_SECONDS)
