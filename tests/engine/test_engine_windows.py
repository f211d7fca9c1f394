"""Budgets of days, months and tokens, and the provider's own limits per day: over midnight, restarts, crashes and clocks that step back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from world import PRICE, Scripted, bad, good, rows

from batchllm.core.nouns import Fault, Kind
from batchllm.engine import RunOptions

DAY = 86_400.0
COST = 20e-6
"""Of an answer: 10 tokens in at 1 USD a million, 5 out at 2; it is reserved at more."""
ONE = {"limits": {"concurrency": 1}}


def plain(seconds: float = 1.0, usage: tuple[int, int] | None = (10, 5)) -> Scripted:
    return Scripted(lambda nth, text, now: (seconds, good(usage=usage)))


def late(w: Any, before_midnight: float) -> Any:
    """The world's clock, so many seconds before the first midnight."""
    w.elapsed = DAY - before_midnight
    return w


CAPS = [
    # budget, answers that fit a window
    ({"usd_per_day": 0.001}, 45),
    ({"tokens_per_day": 700}, 44),
]


@pytest.mark.parametrize(("budget", "fit"), CAPS)
def test_a_day_that_is_used_up_stops_the_run_and_the_next_day_goes_on(world, budget, fit):
    script = plain(0.1)
    w = world(120, scripts={"m": script}, models={"m": ONE}, budget=budget)
    first = w.run()
    assert (first.exit_code, first.stopped_by) == (3, "budget")
    assert fit <= first.rows.ok <= 50
    assert "a day" in (first.message or "")
    assert "opens again at 00:00 UTC" in (first.message or "")
    # Nothing is left of the day, for a second run neither.
    again = w.run()
    assert (again.exit_code, again.attempts) == (3, first.attempts)
    w.elapsed = DAY + 1
    second = w.run()
    assert (second.exit_code, second.rows.ok) == (3, 2 * first.rows.ok)
    w.elapsed = 2 * DAY + 1
    assert (w.run().exit_code, w.run().rows.ok) == (0, 120)
    per_day = w.sql("SELECT CAST(started_at / 86400 AS INTEGER), sum(cost_pico), sum(input_tokens + output_tokens) FROM attempt_log GROUP BY 1")
    assert len(per_day) == 3
    for _, cost, tokens in per_day:
        assert cost <= budget.get("usd_per_day", 1) * 1e12
        assert tokens <= budget.get("tokens_per_day", 10**9)


@pytest.mark.parametrize(("budget", "fit"), CAPS)
def test_it_waits_for_midnight_and_says_so(world, budget, fit):
    script = plain(0.1)
    w = late(world(70, scripts={"m": script}, models={"m": ONE}, budget={**budget, "when_used_up": "wait"}), 30)
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 70)
    before = [at for at in script.times if at < DAY]
    after = [at for at in script.times if at >= DAY]
    assert fit <= len(before) <= 50
    assert after[0] == pytest.approx(DAY, abs=0.6)
    waiting = [progress for progress in w.progress if progress.waits_until_utc is not None]
    assert {progress.limited_by for progress in waiting} == {"budget"}
    assert {progress.waits_until_utc % DAY for progress in waiting} == {0.0}
    assert len(waiting) > 40


def test_a_month_counts_its_days_and_the_next_one_opens(world):
    script = plain(0.1)
    w = world(100, scripts={"m": script}, models={"m": ONE}, budget={"tokens_per_month": 700})
    first = w.run()  # 2026-11-21
    assert (first.exit_code, "opens again at 2026-12-01 00:00 UTC" in (first.message or "")) == (3, True)
    w.elapsed = 9 * DAY
    assert w.run().attempts == first.attempts
    w.elapsed = 10 * DAY + 1
    assert w.run().attempts == 2 * first.attempts


def test_a_cap_of_tokens_over_the_whole_life_stops_also_who_would_wait(world):
    w = world(100, scripts={"m": plain(0.1)}, models={"m": ONE}, budget={"tokens": 700, "when_used_up": "wait"})
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by) == (3, "budget")
    assert 0.9 * 700 <= summary.tokens.input + summary.tokens.output <= 700
    assert "budget of 700 tokens" in (summary.message or "")
    assert "raise budget.tokens" in (summary.message or "")
    w.elapsed = 40 * DAY
    assert w.run().attempts == summary.attempts
    done = w.run(budget={"tokens": 5000})
    assert (done.exit_code, done.rows.ok) == (0, 100)


@pytest.mark.parametrize("budget", [{"usd_per_day": 0.0005}, {"tokens_per_day": 400}, {"tokens": 400}])
def test_what_may_have_been_billed_keeps_its_worst_over_a_restart(world, budget):
    """A provider that hangs: nobody knows what it billed, so a day is used up by reservations."""
    script = Scripted(lambda nth, text, now: (0.1, Fault(kind=Kind.NETWORK, message=f"reset {nth}", billed="maybe")))
    w = world(100, scripts={"m": script}, models={"m": ONE}, budget=budget)
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by) == (3, "budget")
    assert "settle" in (summary.message or "")
    sent = len(script.arrivals)
    ((pico, tokens),) = w.sql("SELECT sum(reserved_pico), sum(reserved_tokens) FROM attempt_log WHERE billed = 'maybe'")
    assert pico <= budget.get("usd_per_day", 1) * 1e12
    assert tokens <= budget.get("tokens_per_day", budget.get("tokens", 10**9))
    assert (w.run().exit_code, len(script.arrivals)) == (3, sent)


def test_a_crash_keeps_the_day_used(world, tmp_path):
    script = plain(5.0)
    w = world(40, scripts={"m": script}, budget={"usd_per_day": 0.001}, concurrency=8)

    async def die() -> None:
        run = asyncio.ensure_future(w.go())
        await asyncio.sleep(7)
        w.image(tmp_path / "crashed")
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    w.play(die)
    for name in ("t.db", "t.db-wal"):
        (w.folder / name).unlink(missing_ok=True)
        if (tmp_path / "crashed" / name).exists():
            (tmp_path / "crashed" / name).rename(w.folder / name)
    sent = len(script.arrivals)
    ((held,),) = w.sql("SELECT sum(coalesce(cost_pico, 0) + CASE WHEN billed = 'maybe' THEN reserved_pico ELSE 0 END) FROM attempt_log")
    assert 0 < held <= 1e9
    assert w.run().exit_code == 3
    assert len(script.arrivals) > sent
    ((held,),) = w.sql("SELECT sum(coalesce(cost_pico, 0) + CASE WHEN billed = 'maybe' THEN reserved_pico ELSE 0 END) FROM attempt_log")
    assert held <= 1e9


def test_a_clock_that_steps_back_opens_no_window_again(world):
    script = plain(0.1)
    w = late(world(200, scripts={"m": script}, models={"m": ONE}, budget={"usd_per_day": 0.001}), 0)
    first = w.run()
    assert first.exit_code == 3
    # The clock was a day ahead: the day before is no new one.
    w.elapsed = DAY - 600
    assert w.run().attempts == first.attempts
    # And within one run: it steps back over midnight while rows wait.
    w.elapsed = 2 * DAY - 3

    async def steps_back() -> Any:
        keys = {"budget": {"usd_per_day": 0.001, "when_used_up": "wait"}}
        run = asyncio.ensure_future(w.go(RunOptions(limit=120), **keys))
        await asyncio.sleep(8)
        script.clock.jump(-DAY)
        await asyncio.sleep(20)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    w.play(steps_back)
    days = w.sql("SELECT CAST(started_at / 86400 AS INTEGER), sum(coalesce(cost_pico, 0)) FROM attempt_log GROUP BY 1 ORDER BY 1")
    assert [cost <= 1e9 for _, cost in days] == [True] * len(days)
    assert [count for (count,) in w.sql("SELECT count(*) FROM attempt_log GROUP BY CAST(started_at / 86400 AS INTEGER)")] == [first.attempts] * 2
    assert len(days) == 2


def test_what_is_under_way_at_midnight_belongs_to_the_day_before(world):
    """Eight requests of 10 s leave just before midnight; their bills come after it, and take nothing of the new day."""
    script = plain(10.0)
    w = late(world(16, scripts={"m": script}, budget={"usd_per_day": 8 * 60e-6, "when_used_up": "wait"}, concurrency=8), 5)
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 16)
    days = w.sql("SELECT CAST(started_at / 86400 AS INTEGER) - 20778, count(*) FROM attempt_log GROUP BY 1")
    assert sum(count for _, count in days) == 16
    assert len(days) == 2
    assert sum(at < DAY for at in script.times) == days[0][1]


def test_a_group_has_a_day_of_its_own(world):
    listed = [{"custom_id": f"r{i}", "text": "hi", "which": "ab"[i % 2]} for i in range(120)]
    scripts = {name: plain(0.1) for name in "ab"}
    w = world(
        listed,
        scripts=scripts,
        models=dict.fromkeys("ab", ONE),
        limit_groups={"account": {"models": ["a"], "usd_per_day": 0.001}},
        routes=[{"when": "which == 'a'", "use": "a"}, {"use": "b"}],
        budget={"when_used_up": "wait"},
    )
    w.elapsed = DAY - 60
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 120)
    assert sum(at < DAY for at in scripts["b"].times) == 60
    assert 40 <= sum(at < DAY for at in scripts["a"].times) <= 50


def test_a_model_that_is_renamed_has_used_of_its_group_what_it_used(world):
    def called(name):
        models = {name: {"provider": "simulated", "model": "m", "price": PRICE, **ONE}}
        return {"models": models, "limit_groups": {"account": {"models": [name], "usd_per_day": 0.001}}}

    w = world(120, scripts={"old": plain(0.1), "new": plain(0.1)})
    first = w.run(**called("old"))
    assert (first.exit_code, w.run(**called("new")).attempts) == (3, first.attempts)


def test_a_share_of_a_groups_limits(world):
    """A quarter of 20 requests a second, of 8 slots, and of 0.004 dollars a day."""
    w = world(
        30,
        scripts={"m": (script := plain(1.0))},
        limit_groups={"account": {"models": ["m"], "rpm": 1200, "concurrency": 8, "usd_per_day": 0.004, "share": 0.25}},
    )
    summary = w.run()
    assert (summary.exit_code, script.most_in_flight) == (0, 2)
    w.put(rows(60))
    assert "limit of $0.00100 a day for the group account" in (
        w.run(limit_groups={"account": {**w.keys["limit_groups"]["account"], "concurrency": None}}).message or ""
    )
    begin = script.times[30]
    assert sum(at < begin + 2 for at in script.times[30:]) <= 2 * 5 + 3


# Limits per day, as the provider counts them.


def test_requests_per_day_come_back_all_day_long_and_survive_a_restart(world):
    script = plain(0.1)
    w = world(60, scripts={"m": script}, models={"m": {"limits": {"rpd": 48, "concurrency": 4}}}, retry={"outage_seconds": 1e6})

    async def stops() -> Any:
        run = asyncio.ensure_future(w.go())
        await asyncio.sleep(60)
        limited = {progress.limited_by for progress in w.progress[20:]}
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        return limited

    assert w.play(stops) == {"rpd"}
    assert len(script.arrivals) == 48
    # Two come back an hour; the next process knows that, too.
    w.elapsed = 3 * 3600 + 600

    w.play(stops)
    assert len(script.arrivals) == 48 + 6


def test_tokens_per_day_are_settled_with_what_was_used(world):
    script = plain(0.1)
    w = world(40, scripts={"m": script}, models={"m": {"limits": {"tpd": 450, "concurrency": 1}}})

    async def stops() -> None:
        run = asyncio.ensure_future(w.go())
        await asyncio.sleep(30)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    w.play(stops)
    # 15 tokens an answer, 30 reserved: the last one that fits leaves no more room than a reservation.
    assert 29 <= len(script.arrivals) <= 30


def test_a_limit_of_a_californian_day_opens_at_its_midnight(world):
    """Gemini's: 08:00 UTC in winter."""
    script = plain(0.1)
    w = world(60, scripts={"m": script}, models={"m": {"limits": {"rpd": 40, "concurrency": 1}, "simulator": {"accounting": "gemini"}}})
    w.elapsed = 8 * 3600 - 30.0
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 60)
    early = [at for at in script.times if at < 8 * 3600]
    assert len(early) == 40
    assert script.times[40] == pytest.approx(8 * 3600, abs=0.6)
    # The new day's 20 are known to the next run.
    w.put(rows(90))

    async def stops() -> None:
        run = asyncio.ensure_future(w.go())
        await asyncio.sleep(30)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    w.play(stops)
    assert len(script.arrivals) == 60 + 20


def test_a_refusal_for_the_day_empties_the_day_and_no_minute(world):
    said = bad(429, "rate_limit_exceeded", "Rate limit reached on requests per day (RPD): Limit 100, Used 100. Please try again in 14m24s.")
    script = Scripted(lambda nth, text, now: (0.1, said) if now < 800 else (0.1, good()))
    w = world(30, scripts={"m": script}, models={"m": {"limits": {"rpm": 600, "rpd": 100, "concurrency": 4}}}, retry={"outage_seconds": 1e6})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 30)
    assert len([at for at in script.times if at < 800]) <= 4 + 2
    assert "rpd" in {progress.limited_by for progress in w.progress}
