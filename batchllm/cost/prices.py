"""A price table of one model, in whole pico-dollars a token: what a usage cost, and the most that a request can cost.

The trap: tiers are cliffs. When a request's whole input exceeds a threshold, all of its tokens, output included, cost that tier's rates.
So the bound looks at every tier that the input may reach, and at every hour whose rates may apply before the table is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from batchllm.core.nouns import Usage

Usd = Decimal | float | int | str


def rate_from_usd(usd_per_million: Usd) -> int:
    """Pico-dollars a token of a price in USD per million tokens; below a pico-dollar it rounds up, so that nothing is ever counted too low.

    A float is read by its shortest decimal form. Raises ValueError for what is no price: negative, NaN, infinite.
    """
    price = Decimal(str(usd_per_million))
    if not price.is_finite() or price < 0:
        raise ValueError(f"a price is a finite number of USD per million tokens, 0 or more, not {usd_per_million!r}")
    return int((price * 1_000_000).to_integral_value(rounding=ROUND_CEILING))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """The rates of requests whose input exceeds a threshold, each in pico-dollars a token."""

    above_input_tokens: int = -1
    """All of a request's tokens cost these rates when its whole input is larger than this; -1 for the base."""
    input: int
    """Fresh input: neither read from a cache nor written to one."""
    output: int
    """Output, reasoning included."""
    cached_input: int
    """Input read from a cache."""
    cache_write: int
    """Input written to a cache, at the usual lifetime (minutes)."""
    cache_write_1h: int
    """Input written to a cache for an hour."""

    @property
    def dearest_input(self) -> int:
        """The most that one token of input can cost in this tier."""
        return max(self.input, self.cached_input, self.cache_write, self.cache_write_1h)


Table = tuple[Tier, ...]
"""Tiers in rising order of their thresholds; the first is the base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What one model's tokens cost from one moment on, until `valid_until_utc`."""

    version: str
    """Where the rates are from: `genai-prices 0.2.3`, `spec`, `simulated`. Booked with every cost."""
    tiers: Table
    other_hours: tuple[Table, ...] = ()
    """Rates of the same model that come into force within the next two days (peak hours, a new price list). Only the bound looks at them."""
    valid_until_utc: float | None = None
    """When `price` has to be read from the book again (seconds since 1970); None while no change is known."""
    _steps: tuple[tuple[int, int, int], ...] = field(init=False, repr=False, compare=False)
    """(threshold, dearest input, output) of every tier of every hour, thresholds rising: all that the bound needs, once per model instead of per row."""

    def __post_init__(self) -> None:
        steps = ((tier.above_input_tokens, tier.dearest_input, tier.output) for table in (self.tiers, *self.other_hours) for tier in table)
        object.__setattr__(self, "_steps", tuple(sorted(steps)))

    def price(self, usage: Usage, *, hour_cache: bool = False) -> int:
        """Exact cost of a usage in pico-dollars, by the rates of this table's own hours.

        `hour_cache`: all that was written to a cache was written for an hour, whatever the usage says of it. A usage whose cached
        tokens exceed its input comes from a server that does not count them in: then all of them are charged beside it.
        """
        total = usage.input_tokens
        cached = usage.cached_input_tokens
        written = usage.cache_write_tokens
        fresh = total - cached - written
        if fresh < 0:
            fresh = total
            total += cached + written
        tier = self.tiers[0]
        for above in self.tiers:
            if total > above.above_input_tokens:
                tier = above
        hour = written if hour_cache else min(written, usage.cache_write_1h_tokens)
        writes = (written - hour) * tier.cache_write + hour * tier.cache_write_1h
        return fresh * tier.input + cached * tier.cached_input + writes + usage.output_tokens * tier.output

    def worst(self, input_tokens: int, output_tokens: int) -> int:
        """The most that a request with at most these tokens can cost, in pico-dollars: every token of input at the dearest of fresh, cached and
        cache-write (1 h included), every tier that this much input may reach, every hour of the next two days.
        """
        worst = 0
        for threshold, dearest_input, output in self._steps:
            if threshold >= 0 and input_tokens <= threshold:
                break
            worst = max(worst, input_tokens * dearest_input + output_tokens * output)
        return worst


def from_spec(*, input: Usd, output: Usd, cached_input: Usd | None = None, cache_write: Usd | None = None) -> Prices:  # noqa: A002 - the spec's own key
    """A table of the user's own prices in USD per million tokens.

    `input` and `output` are both needed (an embedding model takes `output: 0`). Without `cached_input` or `cache_write` such tokens cost as
    much as fresh input; `cache_write` holds for every lifetime. Raises ValueError for a negative or endless price.
    """
    plain = rate_from_usd(input)
    write = plain if cache_write is None else rate_from_usd(cache_write)
    tier = Tier(
        input=plain,
        output=rate_from_usd(output),
        cached_input=plain if cached_input is None else rate_from_usd(cached_input),
        cache_write=write,
        cache_write_1h=write,
    )
    return Prices(version="spec", tiers=(tier,))


def tiers_from_rates(rates: Mapping[str, Mapping[int, int]]) -> Table:
    """A table from each unit's own steps, `{unit: {threshold: rate}}` with -1 as the base's threshold.

    Units: the names of `Tier`'s rates, `input` and `output` required. Units may step at different thresholds; between its own steps a unit keeps its rate.
    A cache unit without rates costs what the next plainer one does: 1 h as the usual write, write and read as fresh input.
    """
    plainer = {"cached_input": "input", "cache_write": "input", "cache_write_1h": "cache_write"}

    def at(unit: str, threshold: int) -> int:
        while unit not in rates:
            unit = plainer[unit]
        steps = rates[unit]
        return steps[max(step for step in steps if step <= threshold)]

    thresholds = sorted({-1, *(threshold for steps in rates.values() for threshold in steps)})
    return tuple(
        Tier(
            above_input_tokens=threshold,
            input=at("input", threshold),
            output=at("output", threshold),
            cached_input=at("cached_input", threshold),
            cache_write=at("cache_write", threshold),
            cache_write_1h=at("cache_write_1h", threshold),
        )
        for threshold in thresholds
    )
