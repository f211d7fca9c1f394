"""A refill bucket: the arithmetic of one rate limit, as providers enforce it (continuous refill, not fixed minutes; protocols G).

Time is an argument. The level may go below zero: a request larger than the bucket passes at a full one, into debt, and real usage may exceed an estimate.
"""

from __future__ import annotations

# A timer may fire an instant early (uvloop's clock has 1 ms); without slack the pump would re-arm for nothing, for ever.
_SLACK = 1e-6
_MEMORY_SECONDS = 60.0


class Bucket:
    """`rate` units a second, at most `capacity` saved up; full at the start."""

    __slots__ = ("_at", "capacity", "dimension", "level", "rate")

    def __init__(self, dimension: str, *, per_minute: float, burst_seconds: float, now: float) -> None:
        self.dimension = dimension
        self.rate = per_minute / 60
        # One whole unit at least, or a slow limit would never let anything pass.
        self.capacity = max(1.0, self.rate * burst_seconds)
        self.level = self.capacity
        self._at = now

    def set_rate(self, per_minute: float, *, burst_seconds: float, now: float) -> None:
        """Another limit from now on."""
        self._refill(now)
        self.rate = per_minute / 60
        self.capacity = max(1.0, self.rate * burst_seconds)
        self.level = min(self.level, self.capacity)

    def lower(self, level: float, now: float) -> None:
        """The provider says that less is left than we believed (others share the account): believed at once, never the other way round."""
        self._refill(now)
        self.level = min(self.level, level)

    def _refill(self, now: float) -> None:
        if now > self._at:
            self.level = min(self.capacity, self.level + (now - self._at) * self.rate)
            self._at = now

    def wait_seconds(self, amount: float, now: float) -> float:
        """Seconds until `amount` may pass; 0 when it may now."""
        self._refill(now)
        missing = min(amount, self.capacity) - self.level
        return 0.0 if missing <= _SLACK * self.rate + 1e-9 else missing / self.rate

    def take(self, amount: float) -> None:
        """Charges what passes."""
        self.level -= amount

    def give(self, amount: float, now: float) -> None:
        """Gives back what was charged too much; a negative amount charges more, but never so much that it takes over a minute to pay back: no limit per
        minute remembers more, and a usage that says otherwise is a slip of the provider's.
        """
        self._refill(now)
        level = self.level + amount
        if level < 0 > amount:
            level = max(level, min(self.level, -self.rate * _MEMORY_SECONDS))
        self.level = min(self.capacity, level)
