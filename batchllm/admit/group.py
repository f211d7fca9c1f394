"""One limit group: the buckets, slots, pause and probe of models that share an account's limits (or of a single model, or of the whole run).

Where limits are to be found out, slots follow the server: fewer after a refusal, one more for each round without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchllm.admit.bucket import Bucket, DayBucket
from batchllm.admit.saturation import Saturation

_RAMP_CUT = 0.7
_RAMP_GROWTH = 1.5
_RAMP_SECONDS = 900.0
"""Protocols F and G: cut by 30 % at least, then grow by 50 % in 15 minutes at most."""
_LEAST_PACE = 0.05
_REGROW_EVERY_SECONDS = 5.0


class LimitGroup:
    """State only; `Admission` asks and changes it."""

    def __init__(
        self,
        name: str,
        *,
        buckets: Sequence[Bucket] = (),
        slots: float = math.inf,
        first_slots: float | None = None,
        saturation: Saturation | None = None,
    ) -> None:
        self.name = name
        self._saturation = saturation
        """Where the slots follow what the server can use, not only its refusals."""
        self.buckets = tuple(buckets)
        self.slots_max = slots
        self.slots = min(slots, first_slots) if first_slots is not None else slots
        self.in_flight = 0
        self.slots_part = math.inf
        """The most in flight while other runs use the account, too; 0: none until another one ends."""
        self.paused_until = -math.inf
        self.paused_for = "pause"
        """What `short_of` calls the pause: a day's limit that is used up is told as what it is."""
        self.probing = False
        """One request at a time, whatever the slots say: an endpoint that is down, or a hint too long to sit out."""
        self._adaptive = first_slots is not None
        self._rushing = self._adaptive
        self.refusals = 0
        """Refusal episodes in a row; the exponent of the pause without a hint."""
        self.pace = 1.0
        """Share of the rates that is used since the provider said that traffic rises too fast."""
        self._pace_at = 0.0
        self.episode_at = -math.inf
        """When the last episode began: refusals of requests sent before it belong to it."""

    def short_of(self, amounts: dict[str, float], now: float) -> tuple[str, float] | None:
        """What keeps a request from passing and for how many seconds (inf: until something ends); None when it may pass."""
        if now < self.paused_until:
            return (self.paused_for, self.paused_until - now)
        if self.in_flight + 1 > min(self.slots_part, 1 if self.probing else max(1.0, self.slots)):
            return (self.paused_for if self.probing else "concurrency", math.inf)
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

    def went_well(self, now: float) -> None:
        """An answer came: no refusal in a row any more, and a little more room."""
        self.refusals = 0
        self.paused_for = "pause"
        if self._saturation is not None:
            self.slots = min(self.slots_max, self._saturation.answered(now, self.in_flight + 1))
        elif self.slots < self.slots_max:
            self.slots = min(self.slots_max, self.slots + (1.0 if self._rushing else 1.0 / self.slots))

    def refused(self, *, sent_at: float, now: float, factor: float = 0.5) -> bool:
        """A refusal came. True when it begins a new episode (the caller then pauses the group); later ones of the same burst don't count again."""
        if sent_at <= self.episode_at:
            return False
        self.episode_at = now
        self.refusals += 1
        self._rushing = False
        if self._adaptive:
            self.slots = max(1.0, min(self.slots, self.in_flight + 1) * factor)
            if self._saturation is not None:
                self._saturation.refused(self.slots)
        return True

    def slow(self, now: float) -> None:
        """The provider wants slower growth (protocols F, ramp): at once to a part of the rates, and back no faster than it allows."""
        self._set_pace(max(_LEAST_PACE, self.pace * _RAMP_CUT), now)

    def regrow(self, now: float) -> None:
        """Takes some of the rates back, now and then."""
        if self.pace < 1.0 and now - self._pace_at >= _REGROW_EVERY_SECONDS:
            self._set_pace(min(1.0, self.pace * _RAMP_GROWTH ** ((now - self._pace_at) / _RAMP_SECONDS)), now)

    def _set_pace(self, pace: float, now: float) -> None:
        self.pace, self._pace_at = pace, now
        for bucket in self.buckets:
            if not bucket.per_day:
                bucket.set_pace(pace, now)

    def emptied(self, now: float, *, day: bool = False) -> None:
        """The provider's buckets are empty, whatever ours say: another run drained them, or one that died. Without this both would refill alike, and where refused
        requests use up the limit too, every further one would be refused. When the present pause ends, there is room for one request; a burst would be refused as
        well. `day`: it was a day's limit that refused; one of a minute says nothing about the day.
        """
        pause = max(0.0, self.paused_until - now)
        for bucket in self.buckets:
            if bucket.per_day == day:
                bucket.lower(0.0 if day else min(0.0, bucket.last - bucket.rate * pause), now)

    def correct(self, dimension: str, level: float, now: float) -> None:
        """The provider says that no more than this was left; never believed the other way round."""
        for bucket in self.buckets:
            if bucket.dimension == dimension:
                bucket.correct(level, now)

    def set_day(self, bucket: DayBucket, now: float) -> None:
        """A limit per day from now on: this bucket, or its limit for the one that is there, which knows what was used."""
        for present in self.buckets:
            if present.dimension == bucket.dimension and isinstance(present, DayBucket):
                present.set_limit(bucket.capacity, now)
                return
        self.buckets = (*self.buckets, bucket)

    def look(self, utc: float) -> bool:
        """Whether a new day began for one of the limits, by the wall clock."""
        fresh = [isinstance(bucket, DayBucket) and bucket.look(utc) for bucket in self.buckets]
        return any(fresh)

    def set_rate(self, dimension: str, per_minute: float, *, burst_seconds: float, now: float) -> None:
        """Paces a dimension by another rate than so far (or at all). What is in the bucket stays."""
        for bucket in self.buckets:
            if bucket.dimension == dimension:
                bucket.set_rate(per_minute, burst_seconds=burst_seconds, now=now)
                return
        bucket = Bucket(dimension, per_minute=per_minute, burst_seconds=burst_seconds, now=now)
        bucket.level = 0.0
        if self.pace < 1.0:
            bucket.set_pace(self.pace, now)
        self.buckets = (*self.buckets, bucket)

    def drop_rate(self, dimension: str) -> None:
        """A dimension has no limit any more."""
        self.buckets = tuple(bucket for bucket in self.buckets if bucket.dimension != dimension)

    def set_slots(self, slots: float, *, adaptive: bool) -> None:
        """Another number of requests in flight from now on. `adaptive`: found slots stay what they are, as far as they fit."""
        self.slots_max = slots
        self.slots = min(self.slots, slots) if adaptive else slots
        self._adaptive = adaptive
        if not adaptive:
            self._saturation = None

    def pause(self, until: float) -> None:
        """Nothing is sent before `until`; a shorter pause never cuts a longer one."""
        self.paused_until = max(self.paused_until, until)
