"""Guarantee 4: declared limits are used up and not run into; a server's wait hint is kept to the instant; shared groups are shared."""

from __future__ import annotations

import pytest
from world import Scripted, bad, good, rows

from batchllm.simulator.bucket import Buckets


def test_an_rpm_bound_job_takes_exactly_as_long_as_its_limit_says(world):
    # Half a second of burst (5 of 10 a second) at once, the other 595 every 100 ms, the last answer 300 ms later.
    w = world(600, sims={"m": {"rpm": 600, "burst_seconds": 1, "latency_ms": 300.0}}, models={"m": {"limits": {"rpm": 600}}})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, w.sims["m"].audit.refusals) == (0, 600, 0)
    assert summary.seconds == pytest.approx(59.8, abs=0.05)


def _mixed(short: int, long: int, every: int, count: int) -> list[dict[str, str]]:
    return [{"custom_id": f"r{i}", "text": "word " * (long if i % every == 0 else short)} for i in range(count)]


STEADY = [
    # limits, further sim settings, request, input
    ({"rpm": 3000}, {"latency_ms": 300.0, "latency_sigma": 0.3}, {"max_tokens": 20}, rows(2000)),
    ({"tpm": 60_000}, {"latency_ms": 300.0, "latency_sigma": 0.3}, {"max_tokens": 20}, rows(1500)),
    ({"tpm": 400_000}, {"latency_ms": 300.0}, {"max_tokens": 512}, rows(3000)),  # short answers: the refunds are what fills the quota
    ({"tpm": 120_000, "rpm": 12_000}, {"latency_ms": 300.0, "latency_sigma": 0.5}, {"max_tokens": 20}, _mixed(20, 800, 50, 2000)),
    ({"tpm": 600_000, "rpm": 1200}, {"latency_ms": 2000.0, "latency_sigma": 0.3}, {"max_tokens": 20}, _mixed(20, 100, 7, 1000)),
]


@pytest.mark.parametrize(("limits", "sim", "request_", "listed"), STEADY, ids=["rpm", "tpm", "512-short", "mixed", "slow-rpm"])
def test_98_percent_of_the_quota_and_no_429(world, limits, sim, request_, listed):
    w = world(listed, sims={"m": {**limits, "burst_seconds": 1, **sim}}, models={"m": {"limits": limits}}, request=request_)
    summary = w.run()
    assert (summary.exit_code, w.sims["m"].audit.refusals) == (0, 0)
    begin, end = summary.seconds * 0.3, summary.seconds * 0.9
    steady = [record for record in w.records() if begin <= record.now < end]
    per_minute = 60 / (end - begin)
    shares = [len(steady) * per_minute / limits["rpm"]] if "rpm" in limits else []
    if "tpm" in limits:
        shares.append(sum(record.input_tokens + record.output_tokens for record in steady) * per_minute / limits["tpm"])
    assert max(shares) >= 0.98
    assert max(shares) <= 1.02


def test_a_request_larger_than_the_bucket_goes_at_a_full_one_and_is_never_starved(world):
    # 60 tokens a second, half a second of own burst: the 400-token row waits for a full bucket, but nobody passes it for ever.
    listed = [{"custom_id": f"r{i}", "text": "word " * (400 if i == 3 else 4)} for i in range(12)]
    w = world(listed, sims={"m": {"tpm": 3600, "burst_seconds": 1}}, models={"m": {"limits": {"tpm": 3600}}})
    summary = w.run()
    assert (summary.exit_code, w.sims["m"].audit.refusals) == (0, 0)
    assert [record.input_tokens > 300 for record in w.records()].index(True) == 3


def test_nothing_is_sent_before_a_wait_hint_is_over(world):
    def answer(nth, text, now):
        return (0.1, bad(429, "rate_limit_exceeded", "slow", retry_after="7")) if now < 3 else (0.1, good())

    script = Scripted(answer)
    w = world(40, scripts={"m": script}, models={"m": {"limits": {"concurrency": 8}}})
    summary = w.run()
    assert summary.exit_code == 0
    before = [at for at in script.times if at < 7.1]
    assert before == [0.0] * 8  # the burst that was under way when the first hint came
    assert 7.1 <= min(at for at in script.times if at > 0) <= 8.1


def test_a_hint_beyond_max_seconds_is_probed_once_every_max_seconds(world):
    script = Scripted(lambda nth, text, now: (0.1, bad(429, "rate_limit_exceeded", "slow", retry_after="600")) if now < 500 else (0.1, good()))
    w = world(20, scripts={"m": script}, models={"m": {"limits": {"concurrency": 4}}}, retry={"max_seconds": 60})
    summary = w.run()
    assert summary.exit_code == 0
    probes = [at for at in script.times if 0 < at < 500]
    assert len(probes) == 8
    assert all(60 <= later - earlier <= 61.2 for earlier, later in zip([0.1, *probes], probes, strict=False))


@pytest.mark.parametrize("hint", [{}, {"retry_after_ms": "50"}], ids=["bare", "hint"])
def test_refusals_use_up_no_attempts(world, hint):
    script = Scripted(lambda nth, text, now: (0.01, bad(429, "rate_limit_exceeded", "slow", **hint) if nth < 1000 else good()))
    w = world(3, scripts={"m": script}, retry={"max_attempts": 2, "initial_seconds": 0.05, "max_seconds": 1, "outage_seconds": 100_000})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.refusals) == (0, 3, 1000)
    assert w.sql("SELECT sum(counted) FROM attempt_log") == [(0,)]


def test_two_models_of_one_group_share_its_limit_and_keep_their_own(world):
    # The account lets 10 a second through for both; `b` alone may have 2 a second.
    listed = [{"custom_id": f"r{i}", "text": "hi", "which": "ab"[i % 2]} for i in range(240)]
    w = world(
        listed,
        sims={"a": {}, "b": {}},
        models={"a": {}, "b": {"limits": {"rpm": 120}}},
        limit_groups={"account": {"models": ["a", "b"], "rpm": 600}},
        routes=[{"when": "which == 'a'", "use": "a"}, {"use": "b"}],
    )
    summary = w.run()
    assert summary.exit_code == 0
    both = sorted(record.now for name in "ab" for record in w.records(name))
    for begin in both:
        assert sum(begin <= at < begin + 1 for at in both) <= 15  # 10 a second and half a second of burst
    b = [record.now for record in w.records("b")]
    assert max(sum(begin <= at < begin + 1 for at in b) for begin in b) <= 3
    assert summary.seconds == pytest.approx(119 / 2, abs=1.0)


def test_concurrency_is_never_passed(world):
    script = Scripted(lambda nth, text, now: (1.0, good()))
    w = world(40, scripts={"m": script}, concurrency=8)
    assert w.run().seconds == pytest.approx(5.0, abs=0.1)
    assert script.most_in_flight == 8


def test_an_undeclared_limit_is_found_and_kept(world):
    w = world(1500, sims={"m": {"rpm": 1200, "burst_seconds": 1, "latency_ms": 500.0}})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 1500)
    assert summary.seconds < 1.35 * 75  # 1,500 at 20 a second, found by trying


@pytest.mark.parametrize(
    ("model", "keys", "word"),
    [
        ({"limits": {"rpm": 300}}, {}, "rpm"),
        ({"limits": {"tpm": 9000}}, {}, "tpm"),
        ({"limits": {"concurrency": 2}}, {}, "concurrency"),
        ({}, {"concurrency": 3}, "concurrency"),
    ],
)
def test_the_display_says_what_limits_the_speed(world, model, keys, word):
    w = world(200, sims={"m": {"latency_ms": 500.0}}, models={"m": model})
    w.run(**keys)
    said = [progress.limited_by for progress in w.progress if 1 < progress.seconds < w.elapsed - 2]
    assert said
    assert set(said) == {word}


def test_a_limit_that_someone_else_drained_is_not_hammered(world):
    """Where refused requests use the limit up as well, asking at the full rate from an empty bucket would be refused for ever."""
    sim = {"rpm": 480, "burst_seconds": 1, "refusals_count": True, "latency_ms": 5.0}
    w = world(100, sims={"m": sim}, models={"m": {"limits": {"rpm": 480, "burst_seconds": 1}}})
    simulator = w.sims["m"]
    simulator._buckets["m"] = Buckets(simulator.settings, now=0.0)
    simulator._buckets["m"].requests[0].level = 0.0
    summary = w.run()
    assert summary.exit_code == 0
    assert summary.refusals <= 10
    assert summary.seconds < 16  # 100 requests at 8 a second are 12.5 s


@pytest.mark.parametrize("known", ["declared", "header"])
def test_a_request_larger_than_the_whole_limit_fails_its_row_and_not_the_night(world, known):
    """Anthropic's refusal of it looks like any other, and the row would be refused for ever."""
    headers = (
        {"x_ratelimit_limit_tokens": "100", "x_ratelimit_remaining_tokens": "50", "x_ratelimit_reset_tokens": "30s"} if known == "header" else {}
    )

    def answer(nth, text, now):
        return (0.1, bad(429, "rate_limit_error", retry_after="1", **headers) if "long" in text else good())

    script = Scripted(answer)
    limits = {} if known == "header" else {"limits": {"tpm": 100}}
    w = world([*rows(3), {"custom_id": "big", "text": "long words " * 200}], scripts={"m": script}, models={"m": limits}, deadline="10m")
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.errors) == (1, 3, {"rate_limited": 1})
    assert "larger than the whole limit" in w.results()[3]["error"]["message"]


def test_traffic_that_rises_too_fast_is_cut_at_once_and_grows_back_slowly(world):
    """`slow_down` comes within the limits: 30 % less at least, then 50 % more in 15 minutes at most (protocols F)."""
    refused = []

    def answer(nth, text, now):
        if now > 60 and not refused:
            refused.append(now)
            return (0.1, bad(429, "slow_down"))
        return (0.1, good())

    script = Scripted(answer)
    w = world(6000, scripts={"m": script}, models={"m": {"limits": {"rpm": 600}}})
    assert w.run().exit_code == 0

    def per_minute(minute):
        return sum(minute * 60 <= at < minute * 60 + 60 for at in script.times)

    assert per_minute(0) > 590
    assert per_minute(2) <= 0.7 * 600 * 1.05
    assert all(per_minute(minute + 1) <= per_minute(minute) * 1.06 for minute in range(2, 8))
    assert per_minute(9) > per_minute(2) * 1.1
