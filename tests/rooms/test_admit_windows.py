"""The arithmetic of windows, of allowances over midnight, of buckets of a day, of what providers charge, and of how long answers get."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from batchllm.admit import Admission, Allowance, LimitGroup, Purse, TooDear, charging
from batchllm.admit.allowance import Booked
from batchllm.admit.bucket import DayBucket, level_after
from batchllm.admit.finder import dimension_of
from batchllm.admit.windows import DAY, MONTH, clock_words, last_californian_midnight, next_californian_midnight
from batchllm.core.nouns import LimitHint, Usage
from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.tokens import Lengths


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("window", "moment", "start", "end"),
    [
        (DAY, "2026-11-21T13:00:00", "2026-11-21", "2026-11-22"),
        (DAY, "2026-11-21T00:00:00", "2026-11-21", "2026-11-22"),
        (MONTH, "2026-11-30T23:59:59.9", "2026-11-01", "2026-12-01"),
        (MONTH, "2026-12-31T12:00:00", "2026-12-01", "2027-01-01"),
        (MONTH, "2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
        (MONTH, "2027-01-01T00:00:00", "2027-01-01", "2027-02-01"),
    ],
)
def test_windows(window, moment, start, end):
    assert (window.start(utc(moment)), window.end(utc(moment))) == (utc(start), utc(end))


@pytest.mark.parametrize(
    ("moment", "begins", "next_one"),
    [
        ("2026-11-21T07:59:00", "2026-11-20T08:00:00", "2026-11-21T08:00:00"),
        ("2026-11-21T08:00:00", "2026-11-21T08:00:00", "2026-11-22T08:00:00"),
        ("2026-07-01T12:00:00", "2026-07-01T07:00:00", "2026-07-02T07:00:00"),
        ("2026-11-01T08:30:00", "2026-11-01T07:00:00", "2026-11-02T08:00:00"),  # the clock goes back that night: a day of 25 hours
        ("2026-03-08T09:00:00", "2026-03-08T08:00:00", "2026-03-09T07:00:00"),
    ],
)
def test_californian_days(moment, begins, next_one):
    assert (last_californian_midnight(utc(moment)), next_californian_midnight(utc(moment))) == (utc(begins), utc(next_one))


def test_when_a_window_opens_is_said_with_its_date_where_it_is_not_the_next_midnight():
    now = utc("2026-11-21T13:00:00")
    assert (clock_words(utc("2026-11-22"), now), clock_words(utc("2026-12-01"), now)) == ("00:00 UTC", "2026-12-01 00:00 UTC")


def test_an_allowance_opens_a_new_window_once_and_never_an_old_one():
    begin = utc("2026-11-21T23:00:00")
    ahead = Booked(spent=7, pinned=2)  # dated tomorrow by a clock that was wrong
    cap = Allowance(
        "x", Purse(cap_pico=10, spent_pico=3, pinned_pico=0), window=DAY, utc=begin, booked=lambda since: ahead if since > begin else Booked(3, 0)
    )
    first = cap.purse
    assert (cap.roll(begin + 3599), cap.roll(begin + 3600), cap.roll(begin + 3601)) == (False, True, False)
    assert (cap.purse.spent_pico, cap.purse.pinned_pico, cap.purse.cap_pico) == (7, 2, 10)
    second = cap.purse
    assert (cap.roll(begin - 90_000), cap.purse is second, second is first) == (False, True, False)
    cap.set_cap(5)
    cap.roll(begin + 2 * 86_400)
    assert cap.purse.cap_pico == 5


def test_all_caps_are_taken_together_and_settled_where_they_were_taken():
    async def main() -> None:
        clock = VirtualClock(epoch=86_400.0 * 20_000 - 5)
        life = Allowance("budget.usd", Purse(cap_pico=1000, spent_pico=0, pinned_pico=0))
        day = Allowance(
            "budget.tokens_per_day", Purse(cap_pico=100, spent_pico=0, pinned_pico=0), of_tokens=True, window=DAY, waits=True, utc=clock.utc()
        )
        admission = Admission(clock, on_broke=lambda: None)
        queue = admission.queue((LimitGroup("g"),), life.purse, (life, day))
        first = await admission.reserve(queue, {}, 60, tokens=70)
        waits = asyncio.ensure_future(admission.reserve(queue, {}, 60, tokens=70))
        await asyncio.sleep(1)
        assert (life.purse.held_pico, day.purse.held_pico, waits.done()) == (60, 70, False)
        old = day.purse
        await asyncio.sleep(6)
        assert (first.lapsed, day.purse is old) == (True, False)
        admission.pump()
        second = await waits
        assert (second.lapsed, day.purse.held_pico) == (False, 70)
        first.end(used=None, cost_pico=20, maybe=False, tokens=15)
        assert (old.spent_pico, day.purse.spent_pico, life.purse.spent_pico) == (15, 0, 20)
        second.end(used=None, cost_pico=None, maybe=True, worst_pico=90, worst_tokens=95)
        assert (day.purse.reserved_pico, life.purse.reserved_pico) == (95, 90)

    run_virtual(main)


def test_who_can_never_be_paid_for_makes_way():
    async def main() -> None:
        purse = Purse(cap_pico=100, spent_pico=0, pinned_pico=0)
        broke: list[int] = []
        admission = Admission(VirtualClock(), on_broke=lambda: broke.append(1))
        queue = admission.queue((LimitGroup("g"),), purse)
        with pytest.raises(TooDear) as raised:
            await admission.reserve(queue, {}, 101)
        assert (raised.value.amount, raised.value.cap.name) == (101, "budget.usd")
        (await admission.reserve(queue, {}, 50)).end(used=None, cost_pico=99, maybe=False)
        late = asyncio.ensure_future(admission.reserve(queue, {}, 2))
        await asyncio.sleep(0)
        assert broke == [1]
        admission.close()
        await asyncio.gather(late, return_exceptions=True)

    run_virtual(main)


def test_a_day_bucket_gives_a_whole_day_at_once_and_takes_a_day_to_refill():
    bucket = DayBucket("rpd", limit=100, now=0.0)
    for _ in range(99):
        assert bucket.wait_seconds(1, 0.0) == 0.0
        bucket.take(1)
    # A second's refill is kept back.
    assert bucket.wait_seconds(1, 0.0) == pytest.approx(1)
    assert bucket.wait_seconds(1, 1.0) == 0.0
    bucket.take(1)
    assert bucket.wait_seconds(1, 1.0) == pytest.approx(864)
    bucket.set_limit(50, 1.0)
    assert bucket.level == pytest.approx(-50, abs=0.01)
    bucket.correct(10, 86_400 * 4)
    assert (bucket.capacity, bucket.level) == (50, 10)


@pytest.mark.parametrize(
    ("uses", "now", "level"),
    [
        ([], 1e6, 100),
        ([(1e6, 100)], 1e6, 0),
        ([(1e6, 100)], 1e6 + 43_200, 50),
        ([(0, 100), (86_400, 100), (172_800, 60)], 172_800, 40),
        ([(1e6 + 500, 30)], 1e6, 70),  # from a clock that was ahead
    ],
)
def test_what_is_left_of_a_rolling_day(uses, now, level):
    assert level_after(100, uses, now) == pytest.approx(level)


CHARGES = [
    # provider, host: (tpm, itpm, otpm) at admission of 100 in (a quarter cached), cap 1000, 40 expected; settled with 90 in (30 cached), 20 out
    ("openai", "", (1100, 100, 40), (110, 90, 20)),
    ("openai-compatible", "localhost", (1100, 100, 40), (110, 90, 20)),
    ("openai", "x.openai.azure.com", (1100, 100, 40), (None, 90, 20)),
    ("anthropic", "", (115, 75, 40), (80, 60, 20)),
    ("openai-compatible", "api.groq.com", (1075, 75, 40), (80, 60, 20)),
    ("gemini", "", (100, 100, 40), (90, 90, 20)),
    ("openai-compatible", "generativelanguage.googleapis.com", (100, 100, 40), (90, 90, 20)),
]


@pytest.mark.parametrize(("provider", "host", "admitted", "settled"), CHARGES)
def test_what_providers_charge(provider, host, admitted, settled):
    how = charging(provider, host)
    amounts = how.amounts(100.0, cap=1000, expected=40.0, cached_share=0.25)
    assert tuple(amounts[name] for name in ("tpm", "itpm", "otpm")) == admitted
    assert (amounts["rpm"], amounts["rpd"], amounts["tpd"]) == (1, 1, admitted[0])
    used = how.used(Usage(input_tokens=90, output_tokens=20, cached_input_tokens=30))
    assert tuple(used.get(name) for name in ("tpm", "itpm", "otpm")) == settled
    assert how.amounts(100.0, cap=8, expected=40.0, cached_share=0.0)["otpm"] == 8


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        (LimitHint(dimension="requests", limit=14_400, remaining=14_399, reset_seconds=6.0), ("rpd", 14_400.0)),  # Groq
        (LimitHint(dimension="input_tokens", limit=30_000, remaining=30_000, window="minute"), ("itpm", 30_000.0)),
        (LimitHint(dimension="output_tokens", limit=8000, remaining=7000, reset_seconds=7.5), ("otpm", 8000.0)),
        (LimitHint(dimension="tokens", limit=500_000, remaining=1, window="day"), ("tpd", 500_000.0)),
        (LimitHint(dimension="output_tokens", limit=8000, remaining=7000, window="day"), None),
        (LimitHint(dimension="requests", limit=100, remaining=50), None),
    ],
)
def test_headers_of_every_dimension(hint, told):
    assert dimension_of(hint) == told


def test_lengths_follow_what_comes_back_and_survive_the_store():
    lengths = Lengths()
    assert lengths.quantile(0.9) is None
    for nth in range(1000):
        lengths.observe(10 if nth % 10 else 400)
    assert 10 <= (lengths.quantile(0.85) or 0) <= 12
    assert 400 <= (lengths.quantile(0.95) or 0) <= 450
    again = Lengths(lengths.as_counts())
    assert again.quantile(0.95) == lengths.quantile(0.95)
    for _ in range(6000):
        again.observe(100)
    assert 100 <= (again.quantile(0.95) or 0) <= 113
    assert Lengths({"x": 1.0, "9999": 5.0, "3": -1.0}).seen == 0
