"""Limits as real providers enforce them: a bucket that refills all the time, not a fixed minute (protocols G); only Gemini's day ends for everybody at once.

A fixed-window simulator would hide real bugs. The trap inside: a request larger than the bucket but not than the limit must pass at a full bucket, into
debt, or it would wait for ever; one larger than the limit never passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal, NamedTuple

from batchllm.core.nouns import Usage
from batchllm.simulator.settings import Accounting, Settings

Dimension = Literal["requests", "tokens", "input_tokens", "output_tokens"]
Window = Literal["minute", "day"]

DAY_SECONDS = 86_400.0
_TOLERANCE = 1e-6  # of a token: sums of refills are not exact


class Charge(NamedTuple):
    """What one request takes from the token buckets."""

    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


NOTHING = Charge()


def charge_at_start(accounting: Accounting, *, input_tokens: int, output_cap: int) -> Charge:
    """What admission takes: OpenAI prompt and output cap, the others the prompt alone (protocols G). Output is counted as it is produced, so at first it is 0."""
    return Charge(input_tokens + output_cap if accounting == "openai" else input_tokens, input_tokens, 0)


def charge_at_end(accounting: Accounting, usage: Usage) -> Charge:
    """What is charged in the end. Anthropic doesn't count what was read from the cache; Gemini's tokens are those of the prompt, whatever the answer."""
    if accounting == "gemini":
        return Charge(usage.input_tokens, usage.input_tokens, usage.output_tokens)
    fresh = usage.input_tokens - usage.cached_input_tokens if accounting == "anthropic" else usage.input_tokens
    return Charge(fresh + usage.output_tokens, fresh, usage.output_tokens)


class Bucket:
    """One limit per minute (or other window), filled continuously up to `burst_seconds` of its rate."""

    __slots__ = ("_at", "capacity", "level", "limit", "rate")

    def __init__(self, limit: int, *, burst_seconds: float, now: float, window_seconds: float = 60.0) -> None:
        self.limit = limit
        self.rate = limit / window_seconds
        self.capacity = max(limit * burst_seconds / window_seconds, 1.0)
        self.level = self.capacity
        self._at = now

    def refill(self, now: float, utc: float) -> None:
        """Brings the level to this moment; a clock that stands still or falls adds nothing."""
        del utc
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


class PacificDay(Bucket):
    """A limit per day that is full again at midnight in California and not before (Gemini's)."""

    __slots__ = ("_ends", "_utc")

    def __init__(self, limit: int, *, now: float) -> None:
        super().__init__(limit, burst_seconds=DAY_SECONDS, now=now, window_seconds=DAY_SECONDS)
        self._ends = 0.0
        self._utc = 0.0

    def refill(self, now: float, utc: float) -> None:
        """Full on a new day; a wall clock that falls back doesn't open an older one."""
        del now
        self._utc = utc
        if utc >= self._ends:
            self._ends = pacific_midnight(utc)
            self.level = self.capacity

    def wait_seconds(self, amount: float) -> float:
        """Until midnight, if it isn't now."""
        return self._ends - self._utc if min(amount, self.capacity) - self.level > _TOLERANCE else 0.0


def pacific_midnight(utc: float) -> float:
    """The next midnight of the US Pacific coast, in seconds since 1970. Summer time as since 2007; no time-zone files are needed for it."""
    moment = datetime.fromtimestamp(utc, UTC)
    begins = _sunday(moment.year, 3, 8, hour=10)  # second Sunday of March, 2:00 PST
    ends = _sunday(moment.year, 11, 1, hour=9)  # first Sunday of November, 2:00 PDT
    offset = timedelta(hours=7 if begins <= moment < ends else 8)
    # The offset at midnight is that of the day before 2:00, so it is looked up once more where the day is one of the two.
    midnight = datetime.combine((moment - offset).date() + timedelta(days=1), datetime.min.time(), UTC)
    local = midnight + offset
    offset = timedelta(hours=7 if begins <= local < ends else 8)
    return (midnight + offset).timestamp()


def _sunday(year: int, month: int, first: int, *, hour: int) -> datetime:
    day = date(year, month, first)
    return datetime.combine(day + timedelta(days=6 - day.weekday()), datetime.min.time(), UTC) + timedelta(hours=hour)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request was not let in."""

    dimension: Dimension
    window: Window = "minute"
    limit: int
    used: int
    requested: int
    wait_seconds: float | None
    """None: it can never pass."""


class Buckets:
    """The buckets of one model or account; a request takes from all of them or from none."""

    def __init__(self, settings: Settings, *, now: float, accounting: Accounting = "openai") -> None:
        bursts = [settings.burst_seconds]
        if settings.sub_window_seconds is not None:
            bursts.append(settings.sub_window_seconds)

        def minute(limit: int | None) -> list[Bucket]:
            return [] if limit is None else [Bucket(limit, burst_seconds=burst, now=now) for burst in bursts]

        def day(limit: int | None) -> list[Bucket]:
            if limit is None:
                return []
            if accounting == "gemini":
                return [PacificDay(limit, now=now)]
            return [Bucket(limit, burst_seconds=DAY_SECONDS, now=now, window_seconds=DAY_SECONDS)]

        self.requests = minute(settings.rpm)
        self.tokens = minute(settings.tpm)
        self.input_tokens = minute(settings.itpm)
        self.output_tokens = minute(settings.otpm)
        self.requests_day = day(settings.rpd)
        self.tokens_day = day(settings.tpd)
        # Those that there are, with the place of their amount in (1, *Charge).
        self._rows: list[tuple[Dimension, Window, int, list[Bucket]]] = []
        self._row("requests", "minute", 0, self.requests)
        self._row("tokens", "minute", 1, self.tokens)
        self._row("input_tokens", "minute", 2, self.input_tokens)
        self._row("output_tokens", "minute", 3, self.output_tokens)
        self._row("requests", "day", 0, self.requests_day)
        self._row("tokens", "day", 1, self.tokens_day)
        self._refusals_count = settings.refusals_count

    def _row(self, dimension: Dimension, window: Window, place: int, buckets: list[Bucket]) -> None:
        if buckets:
            self._rows.append((dimension, window, place, buckets))

    def admit(self, charge: Charge, now: float, *, utc: float = 0.0) -> Refusal | None:
        """Takes one request and these tokens, or says why not."""
        self.refill(now, utc)
        amounts = (1, *charge)
        worst: Refusal | None = None
        for dimension, window, place, buckets in self._rows:
            amount = amounts[place]
            for bucket in buckets:
                if amount > bucket.limit:
                    return Refusal(dimension=dimension, window=window, limit=bucket.limit, used=0, requested=amount, wait_seconds=None)
                wait = bucket.wait_seconds(amount)
                if wait > 0 and (worst is None or wait > (worst.wait_seconds or 0)):
                    # `Used` is told so that the text's own sum (Used + Requested - Limit) gives the wait, whatever the bucket's size.
                    need = min(amount, bucket.capacity)
                    used = round(bucket.limit - bucket.level + need - amount)
                    worst = Refusal(dimension=dimension, window=window, limit=bucket.limit, used=used, requested=amount, wait_seconds=wait)
        if worst is None:
            for _, _, place, buckets in self._rows:
                for bucket in buckets:
                    bucket.add(-amounts[place])
        elif self._refusals_count:
            for bucket in (*self.requests, *self.requests_day):
                # Debt is bounded: a storm of refusals must not lock the account for hours.
                bucket.level = max(bucket.level - 1, -bucket.capacity)
        return worst

    def settle(self, charged: Charge, real: Charge, now: float, *, utc: float = 0.0) -> None:
        """Replaces what admission charged by what was used."""
        if charged == real:
            return
        self.refill(now, utc)
        for _, _, place, buckets in self._rows:
            if place:
                for bucket in buckets:
                    bucket.add(charged[place - 1] - real[place - 1])

    def refill(self, now: float, utc: float) -> None:
        """Brings all levels to this moment."""
        for _, _, _, buckets in self._rows:
            for bucket in buckets:
                bucket.refill(now, utc)
