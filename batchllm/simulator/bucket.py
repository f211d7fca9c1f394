"""Limits as real providers enforce them: a bucket that refills all the time, not a fixed minute (protocols G).

A fixed-window simulator would hide real bugs. The trap inside: a request larger than the bucket but not than the limit must pass at a full bucket, into
debt, or it would wait for ever; one larger than the limit never passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from batchllm.simulator.settings import Settings

Dimension = Literal["requests", "tokens"]

_TOLERANCE = 1e-6  # of a token: sums of refills are not exact


class Bucket:
    """One limit per minute, filled continuously up to `burst_seconds` of its rate."""

    __slots__ = ("_at", "capacity", "level", "limit", "rate")

    def __init__(self, limit: int, *, burst_seconds: float, now: float) -> None:
        self.limit = limit
        self.rate = limit / 60.0
        self.capacity = max(self.rate * burst_seconds, 1.0)
        self.level = self.capacity
        self._at = now

    def refill(self, now: float) -> None:
        """Brings the level to this moment; a clock that stands still or falls adds nothing."""
        if now > self._at:
            self.level = min(self.capacity, self.level + (now - self._at) * self.rate)
            self._at = now

    def wait_seconds(self, amount: float) -> float:
        """Until this amount is let in; 0: now."""
        missing = min(amount, self.capacity) - self.level
        return missing / self.rate if missing > _TOLERANCE else 0.0

    def add(self, amount: float) -> None:
        """Takes (negative) or gives back; never above the brim, and into debt if need be."""
        self.level = min(self.capacity, self.level + amount)

    def used(self) -> float:
        """What is missing from a full bucket."""
        return self.capacity - self.level


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request was not let in."""

    dimension: Dimension
    limit: int
    used: int
    requested: int
    wait_seconds: float | None
    """None: it can never pass."""


class Buckets:
    """The buckets of one model or account; a request takes from all of them or from none."""

    def __init__(self, settings: Settings, *, now: float) -> None:
        bursts = [settings.burst_seconds]
        if settings.sub_window_seconds is not None:
            bursts.append(settings.sub_window_seconds)
        self.requests = [Bucket(settings.rpm, burst_seconds=burst, now=now) for burst in bursts] if settings.rpm is not None else []
        self.tokens = [Bucket(settings.tpm, burst_seconds=burst, now=now) for burst in bursts] if settings.tpm is not None else []
        self._refusals_count = settings.refusals_count

    def admit(self, tokens: int, now: float) -> Refusal | None:
        """Takes one request and these tokens, or says why not."""
        self.refill(now)
        worst: Refusal | None = None
        for dimension, amount, buckets in (("requests", 1, self.requests), ("tokens", tokens, self.tokens)):
            for bucket in buckets:
                if amount > bucket.limit:
                    return Refusal(dimension=dimension, limit=bucket.limit, used=0, requested=amount, wait_seconds=None)  # type: ignore[arg-type]  # a literal of the tuple above
                wait = bucket.wait_seconds(amount)
                if wait > 0 and (worst is None or wait > (worst.wait_seconds or 0)):
                    # `Used` is told so that the text's own sum (Used + Requested - Limit) gives the wait, whatever the bucket's size.
                    need = min(amount, bucket.capacity)
                    used = round(bucket.limit - bucket.level + need - amount)
                    worst = Refusal(dimension=dimension, limit=bucket.limit, used=used, requested=amount, wait_seconds=wait)  # type: ignore[arg-type]  # as above
        if worst is None:
            for bucket in self.requests:
                bucket.add(-1)
            for bucket in self.tokens:
                bucket.add(-tokens)
        elif self._refusals_count:
            for bucket in self.requests:
                # Debt is bounded: a storm of refusals must not lock the account for hours.
                bucket.level = max(bucket.level - 1, -bucket.capacity)
        return worst

    def settle(self, charged: int, real: int, now: float) -> None:
        """Replaces what admission charged by what was used."""
        if charged != real and self.tokens:
            self.refill(now)
            for bucket in self.tokens:
                bucket.add(charged - real)

    def refill(self, now: float) -> None:
        """Brings all levels to this moment."""
        for bucket in self.requests:
            bucket.refill(now)
        for bucket in self.tokens:
            bucket.refill(now)
