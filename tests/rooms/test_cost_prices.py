"""Prices as integers: exact, cliff tiers, and a bound that nothing exceeds."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.core.nouns import Usage
from batchllm.cost import Prices, Tier, from_spec
from batchllm.cost.prices import tiers_from_rates

LUNA = Prices(
    version="test",
    tiers=(
        Tier(input=100_000, output=500_000, cached_input=10_000, cache_write=125_000, cache_write_1h=200_000),
        Tier(above_input_tokens=272_000, input=200_000, output=750_000, cached_input=20_000, cache_write=250_000, cache_write_1h=400_000),
    ),
)


def usage(total, output, cached=0, written=0):
    return Usage(input_tokens=total, output_tokens=output, cached_input_tokens=cached, cache_write_tokens=written)


@pytest.mark.parametrize(
    ("spent", "hour", "pico"),
    [
        (usage(0, 0), False, 0),
        (usage(1000, 50), False, 125_000_000),
        (usage(1000, 50, cached=800), False, 200 * 100_000 + 800 * 10_000 + 50 * 500_000),
        (usage(1000, 50, cached=600, written=400), False, 600 * 10_000 + 400 * 125_000 + 50 * 500_000),
        (usage(1000, 50, cached=600, written=400), True, 600 * 10_000 + 400 * 200_000 + 50 * 500_000),
        (usage(272_000, 1), False, 272_000 * 100_000 + 500_000),
        # One token above the threshold makes every token dearer, output included.
        (usage(272_001, 1), False, 272_001 * 200_000 + 750_000),
        # A server that does not count cached tokens in: all three are charged, and together they decide the tier.
        (usage(10, 0, cached=100), False, 10 * 100_000 + 100 * 10_000),
        (usage(10, 1, cached=272_000), False, 10 * 200_000 + 272_000 * 20_000 + 750_000),
    ],
)
def test_price_is_exact(spent, hour, pico):
    assert LUNA.price(spent, hour_cache=hour) == pico


@pytest.mark.parametrize(
    ("prices", "tokens", "pico"),
    [
        (LUNA, (1000, 100), 1000 * 200_000 + 100 * 500_000),
        (LUNA, (272_000, 100), 272_000 * 200_000 + 100 * 500_000),
        (LUNA, (272_001, 100), 272_001 * 400_000 + 100 * 750_000),
        (LUNA, (0, 100), 100 * 500_000),
        # A dearer hour within the table's time counts as well.
        (Prices(version="", tiers=from_spec(input=1, output=2).tiers, other_hours=(from_spec(input=2, output=4).tiers,)), (10, 10), 60_000_000),
        # A large input in a cheaper tier does not lower the bound: the usage may turn out smaller.
        (Prices(version="", tiers=tiers_from_rates({"input": {-1: 9, 100: 1}, "output": {-1: 9, 100: 1}})), (200, 10), 200 * 9 + 10 * 9),
    ],
)
def test_worst(prices, tokens, pico):
    assert prices.worst(*tokens) == pico


RATE = st.integers(0, 10**8)
TOKENS = st.integers(0, 1000)


@st.composite
def tables(draw):
    steps = st.dictionaries(st.integers(0, 1000), RATE, max_size=3).map(lambda more: {-1: draw(RATE), **more})
    units = {"input": draw(steps), "output": draw(steps)}
    for name in ("cached_input", "cache_write", "cache_write_1h"):
        if draw(st.booleans()):
            units[name] = draw(steps)
    return tiers_from_rates(units)


@given(st.lists(tables(), min_size=1, max_size=3), TOKENS, TOKENS, st.data())
def test_no_usage_within_the_bound_costs_more(hours, input_tokens, output_tokens, data):
    """Whatever a provider bills within the bound, in any of the hours, the reservation covered it."""
    bound = Prices(version="", tiers=hours[0], other_hours=tuple(hours[1:])).worst(input_tokens, output_tokens)
    total = data.draw(st.integers(0, input_tokens))
    cached = data.draw(st.integers(0, total))
    spent = usage(total, data.draw(st.integers(0, output_tokens)), cached, data.draw(st.integers(0, total - cached)))
    for hour in hours:
        then = Prices(version="", tiers=hour)
        assert max(then.price(spent), then.price(spent, hour_cache=True)) <= bound


def test_units_step_on_their_own():
    table = tiers_from_rates({"input": {-1: 10, 200: 20}, "output": {-1: 30, 100: 40}, "cached_input": {-1: 1}, "cache_write": {-1: 12, 200: 25}})
    assert [(tier.above_input_tokens, tier.input, tier.output, tier.cached_input, tier.cache_write, tier.cache_write_1h) for tier in table] == [
        (-1, 10, 30, 1, 12, 12),
        (100, 10, 40, 1, 12, 12),
        (200, 20, 40, 1, 25, 25),
    ]


@pytest.mark.parametrize(
    ("given_prices", "tier"),
    [
        ({"input": Decimal("0.10"), "output": Decimal("0.50")}, (100_000, 500_000, 100_000, 100_000, 100_000)),
        (
            {"input": 0.1, "output": 0.5, "cached_input": 0.01, "cache_write": "0.125"},
            (100_000, 500_000, 10_000, 125_000, 125_000),
        ),
        ({"input": Decimal("0.0000001"), "output": 0}, (1, 0, 1, 1, 1)),
    ],
)
def test_spec_prices(given_prices, tier):
    table = from_spec(**given_prices)
    (base,) = table.tiers
    assert (base.input, base.output, base.cached_input, base.cache_write, base.cache_write_1h) == tier
    assert table.version == "spec"


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf")])
def test_what_is_no_price_is_refused(bad):
    with pytest.raises(ValueError, match="a price is"):
        from_spec(input=1, output=bad)
