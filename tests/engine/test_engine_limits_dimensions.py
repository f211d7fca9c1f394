"""Guarantee 4 in every dimension and every provider's accounting: declared limits are used up and not run into, undeclared ones are found from headers."""

from __future__ import annotations

from typing import Any

import pytest
from world import Scripted, bad, good, rows

STEADY = [
    # limits, whose accounting, request, dimension that binds
    ({"itpm": 30_000}, "anthropic", {"max_tokens": 20}, "itpm"),
    ({"otpm": 8_000}, "anthropic", {"max_tokens": 4000}, "otpm"),  # reserving max_tokens would leave nearly all of it unused
    ({"itpm": 60_000, "otpm": 9_000, "rpm": 4000}, "anthropic", {"max_tokens": 300}, "otpm"),
    ({"tpm": 40_000}, "gemini", {"max_tokens": 4000}, "itpm"),
    ({"tpm": 60_000, "rpd": 100_000}, "openai", {"max_tokens": 60}, "tpm"),
]


@pytest.mark.parametrize(("limits", "accounting", "request_", "binds"), STEADY, ids=["itpm", "otpm", "mixed", "gemini", "openai"])
def test_98_percent_of_the_quota_and_no_429(world, limits, accounting, request_, binds):
    sim = {**limits, "accounting": accounting, "burst_seconds": 1, "latency_ms": 400.0, "latency_sigma": 0.3}
    w = world(rows(1800), sims={"m": sim}, models={"m": {"limits": limits, "simulator": {"accounting": accounting}}}, request=request_)
    summary = w.run()
    assert (summary.exit_code, w.sims["m"].audit.refusals) == (0, 0)
    begin, end = summary.seconds * 0.3, summary.seconds * 0.9
    steady = [record for record in w.records() if begin <= record.now < end]
    used = {
        "itpm": sum(record.input_tokens for record in steady),
        "otpm": sum(record.output_tokens for record in steady),
        "tpm": sum(record.input_tokens + record.output_tokens for record in steady),
    }[binds]
    limit = limits.get(binds) or limits["tpm"]
    assert 0.98 <= used * 60 / (end - begin) / limit <= 1.02


def with_headers(reply: Any, headers: dict[str, str]) -> Any:
    return type(reply)(status=reply.status, body=reply.body, headers={**reply.headers, **headers})


def test_requests_per_day_that_nobody_declared_are_found_in_headers_and_kept(world):
    """Groq's form: limit 1000 a day, 40 left, full again in 23 hours; the minute's tokens beside it say what a minute is."""

    def answer(nth: int, text: str, now: float) -> Any:
        left = max(0, 40 - nth - 1)
        day = {
            "x-ratelimit-limit-requests": "1000",
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": f"{86.4 * (1000 - left):.1f}s",
        }
        return (0.1, with_headers(good() if left else bad(429, "rate_limit_exceeded", retry_after="500"), day))

    w = world(60, scripts={"m": (script := Scripted(answer))}, concurrency=2)
    w.run(deadline="60s")
    assert len(script.arrivals) <= 42
    assert {progress.limited_by for progress in w.progress if 20 < progress.seconds < 59} <= {"rpd", "pause"}


def test_a_minute_that_others_drain_is_believed(world):
    """The header says that the account's bucket is nearly empty, whoever emptied it: the next requests wait for the refill."""

    def answer(nth: int, text: str, now: float) -> Any:
        left = 2900 if now < 5 else 0
        minute = {
            "x-ratelimit-limit-requests": "3000",
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": f"{(3000 - left) / 50:.2f}s",
        }
        return (0.2, with_headers(good(), minute))

    script = Scripted(answer)
    w = world(2000, scripts={"m": script}, models={"m": {"limits": {"rpm": 3000, "burst_seconds": 10, "concurrency": 20}}})
    assert w.run().exit_code == 0
    # 20 slots of 0.2 s would be 100 a second; half the burst is used up in the first seconds, and from then on it is 50.
    late = [at for at in script.times if 6 <= at < 26]
    assert 0.95 * 1000 <= len(late) <= 1.02 * 1000


def test_what_was_learnt_of_answers_is_there_for_the_next_run(world):
    limits = {"otpm": 60_000}
    w = world(
        rows(150), sims={"m": {**limits, "accounting": "anthropic", "latency_ms": 100.0}}, models={"m": {"limits": limits, "simulator": {"accounting": "anthropic"}}},
        request={"max_tokens": 500},
    )  # fmt: skip
    assert w.run().exit_code == 0
    ((estimated, counted, outputs),) = w.sql("SELECT estimated, counted, outputs FROM learnt")
    assert counted == pytest.approx(estimated)
    assert outputs.startswith("{")
    w.put(rows(151))
    assert w.run().exit_code == 0
    assert w.sql("SELECT count(*) FROM learnt") == [(1,)]


def test_embeddings_and_other_answers_without_output_are_not_charged_for_it(world):
    script = Scripted(lambda nth, text, now: (0.1, good(usage=(10, 0))))
    w = world(100, scripts={"m": script}, models={"m": {"limits": {"tpm": 6000, "burst_seconds": 1}}}, request={"max_tokens": 1})
    assert w.run().seconds < 15  # 1,000 tokens at 100 a second
