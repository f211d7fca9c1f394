"""One limit group: the buckets, slots, pause and probe of models that share an account's limits (or of a single model, or of the whole run).

Where limits are to be found out, slots follow the server: fewer after a refusal, one more for each round without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchllm.admit.bucket import Bucket


class LimitGroup:
    """State only; `Admission` asks and changes it."""

    def __init__(self, name: str, *, buckets: Sequence[Bucket] = (), slots: float = math.inf, first_slots: float | None = None) -> None:
        self.name = name
        self.buckets = tuple(buckets)
        self.slots_max = slots
        self.slots = min(slots, first_slots) if first_slots is not None else slots
        self.in_flight = 0
        self.paused_until = -math.inf
        self.probing = False
        """One request at a time, whatever the slots say: an endpoint that is down, or a hint too long to sit out."""
        self._adaptive = first_slots is not None
        self._rushing = self._adaptive
        self.refusals = 0
        """Refusal episodes in a row; the exponent of the pause without a hint."""
        self.episode_at = -math.inf
        """When the last episode began: refusals of requests sent before it belong to it."""

    def short_of(self, amounts: dict[str, float], now: float) -> tuple[str, float] | None:
        """What keeps a request from passing and for how many seconds (inf: until something ends); None when it may pass."""
        if now < self.paused_until:
            return ("pause", self.paused_until - now)
        if self.in_flight + 1 > (1 if self.probing else max(1.0, self.slots)):
            return ("pause" if self.probing else "concurrency", math.inf)
        longest: tuple[str, float] | None = None
        for bucket in self.buckets:
            amount = amounts.get(bucket.dimension)
            if amount:
                wait = bucket.wait_seconds(amount, now)
                if wait > 0 and (longest is None or wait > longest[1]):
                    longest = (bucket.dimension, wait)
        return longest

    def take(self, amounts: dict[str, float]) -> None:
        """Charges a request that passes."""
        self.in_flight += 1
        for bucket in self.buckets:
            amount = amounts.get(bucket.dimension)
            if amount:
                bucket.take(amount)

    def end(self, back: dict[str, float] | None, now: float) -> None:
        """A request ended; `back` is what it was charged too much, per dimension."""
        self.in_flight -= 1
        if back:
            for bucket in self.buckets:
                amount = back.get(bucket.dimension)
                if amount:
                    bucket.give(amount, now)

    def went_well(self) -> None:
        """An answer came: no refusal in a row any more, and a little more room."""
        self.refusals = 0
        if self.slots < self.slots_max:
            self.slots = min(self.slots_max, self.slots + (1.0 if self._rushing else 1.0 / self.slots))

    def refused(self, *, sent_at: float, now: float, factor: float = 0.5) -> bool:
        """A refusal came. True when it begins a new episode (the caller then pauses the group); later ones of the same burst don't count again."""
        if sent_at < self.episode_at:
            return False
        self.episode_at = now
        self.refusals += 1
        self._rushing = False
        if self._adaptive:
            self.slots = max(1.0, min(self.slots, self.in_flight + 1) * factor)
        return True

    def emptied(self, now: float) -> None:
        """The provider's buckets are empty, whatever ours say: another run drained them, or one that died. Without this both would refill alike, and where refused
        requests use up the limit too, every further one would be refused.
        """
        for bucket in self.buckets:
            bucket.lower(0.0, now)

    def set_rate(self, dimension: str, per_minute: float, *, burst_seconds: float, now: float) -> None:
        """Paces a dimension by another rate than so far (or at all). What is in the bucket stays."""
        for bucket in self.buckets:
            if bucket.dimension == dimension:
                bucket.set_rate(per_minute, burst_seconds=burst_seconds, now=now)
                return
        bucket = Bucket(dimension, per_minute=per_minute, burst_seconds=burst_seconds, now=now)
        bucket.level = 0.0
        self.buckets = (*self.buckets, bucket)

    def drop_rate(self, dimension: str) -> None:
        """A dimension has no limit any more."""
        self.buckets = tuple(bucket for bucket in self.buckets if bucket.dimension != dimension)

    def set_slots(self, slots: float, *, adaptive: bool) -> None:
        """Another number of requests in flight from now on. `adaptive`: found slots stay what they are, as far as they fit."""
        self.slots_max = slots
        self.slots = min(self.slots, slots) if adaptive else slots
        self._adaptive = adaptive

    def pause(self, until: float) -> None:
        """Nothing is sent before `until`; a shorter pause never cuts a longer one."""
        self.paused_until = max(self.paused_until, until)
