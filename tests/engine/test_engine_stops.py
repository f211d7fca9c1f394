"""Contract 3, "stop or go on": a key, a name, an account or a job that is wrong stops the run before it does harm; rows that are wrong don't."""

from __future__ import annotations

from itertools import pairwise

import pytest
from world import Scripted, bad, good

from batchllm.core.nouns import Fault, Kind
from batchllm.core.wire import HttpReply

FOR_GOOD = [
    (bad(401, "invalid_api_key", "Incorrect API key provided"), "api_key_env"),
    (bad(403, "unsupported_country_region_territory", "not here"), "api_key_env"),
    (bad(429, "insufficient_quota", "You exceeded your current quota"), "credit"),
    (bad(402, "invalid_request_error", "Insufficient Balance"), "credit"),
    (bad(404, "model_not_found", "The model `x` does not exist"), "model"),
]
_IDS = ["401", "403", "quota", "402", "404"]


@pytest.mark.parametrize(("reply", "mend"), FOR_GOOD, ids=_IDS)
@pytest.mark.parametrize("chain", [["m"], ["m", "b"]], ids=["alone", "fallback"])
def test_a_model_that_never_answered_stops_the_run_at_once(world, reply, mend, chain):
    scripts = {"m": Scripted(lambda nth, text, now: (0.2 + nth / 100, reply)), "b": Scripted(lambda nth, text, now: (0.1, good()))}
    w = world(500, scripts=scripts, models={"m": {"limits": {"concurrency": 16}}, "b": {}}, routes=[{"use": chain}])
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by) == (4, "provider")
    assert summary.seconds < 2
    assert mend in (summary.message or "")
    assert len(scripts["m"].arrivals) == 16  # what was in flight when the first word came
    assert (summary.rows.ok, summary.rows.failed, summary.rows.total) == (0, 0, None)
    assert w.sql("SELECT count(*), sum(counted), sum(billed = 'maybe') FROM attempt_log") == [(16, 0, 0)]
    assert w.sql("SELECT count(*) FROM outcomes") == [(0,)]


@pytest.mark.parametrize(("reply", "mend"), FOR_GOOD, ids=_IDS)
def test_a_model_that_answered_before_is_out_and_its_rows_go_on(world, reply, mend):
    scripts = {
        "m": Scripted(lambda nth, text, now: (0.1, good("m") if nth < 40 else reply)),
        "b": Scripted(lambda nth, text, now: (0.1, good("b"))),
    }
    w = world(200, scripts=scripts, models={"m": {"limits": {"concurrency": 8}}, "b": {"limits": {"concurrency": 8}}}, routes=[{"use": ["m", "b"]}])
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 200)
    assert [result["output"] for result in w.results()].count("m") == 40
    assert len(scripts["m"].arrivals) <= 48
    assert any("m is out" in note.text and mend in note.text for note in w.notes)


def test_four_when_no_live_model_is_left_and_the_next_run_goes_on(world):
    script = Scripted(lambda nth, text, now: (0.1, good() if nth < 40 or now > 100 else bad(401, "invalid_api_key")))
    w = world(200, scripts={"m": script}, models={"m": {"limits": {"concurrency": 8}}})
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by, summary.rows.ok, summary.rows.failed) == (4, "provider", 40, 0)
    assert len(script.arrivals) <= 48
    w.elapsed = 101
    assert w.run().rows.ok == 200


def _rejecting(upto: int, reply=None):
    return Scripted(lambda nth, text, now: (0.1, (reply or bad(400, "invalid_value", "no such parameter")) if nth < upto else good()))


def test_twenty_equal_failures_at_the_start_stop_the_run_and_stay_pending(world):
    w = world(100, scripts={"m": _rejecting(10**6)}, concurrency=4)
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by, summary.rows.failed) == (4, "provider", 0)
    assert "no such parameter" in (summary.message or "")
    assert len(w.scripts["m"].arrivals) <= 24
    assert w.sql("SELECT count(*) FROM outcomes") == [(0,)]
    assert w.sql("SELECT count(*) FROM rows WHERE state != 0") == [(0,)]


def test_nineteen_are_failures_of_their_rows(world):
    w = world(100, scripts={"m": _rejecting(19)}, concurrency=4)
    summary = w.run()
    assert (summary.exit_code, summary.rows.failed, summary.rows.ok) == (1, 19, 81)
    assert summary.errors == {"rejected": 19}


def test_a_job_of_nineteen_bad_rows_ends_with_one(world):
    w = world(19, scripts={"m": _rejecting(19)}, concurrency=4)
    assert (w.run().exit_code, len(w.results())) == (1, 19)


@pytest.mark.parametrize(("count", "code", "failed"), [(199, 1, 199), (230, 4, 0)])
def test_after_a_success_it_takes_two_hundred(world, count, code, failed):
    script = Scripted(lambda nth, text, now: (0.1, bad(400, "invalid_value") if 10 <= nth < 10 + count else good()))
    w = world(400, scripts={"m": script}, concurrency=4)
    summary = w.run()
    assert (summary.exit_code, summary.rows.failed) == (code, failed)
    assert summary.rows.ok == (10 if code == 4 else 400 - count)


def test_other_failures_in_between_break_the_row_of_equal_ones(world):
    replies = [bad(400, "invalid_value"), bad(422, "other")]
    script = Scripted(lambda nth, text, now: (0.1, replies[nth % 2]))
    w = world(30, scripts={"m": script}, concurrency=1)
    assert (w.run().exit_code, len(w.results())) == (1, 30)


@pytest.mark.parametrize(
    ("reply", "code"),
    [(bad(400, "context_length_exceeded", "too long"), "too_long"), (bad(400, "content_policy_violation", "safety system"), "refused")],
)
def test_failures_that_are_personal_never_stop_a_run(world, reply, code):
    w = world(60, scripts={"m": _rejecting(10**6, reply)}, concurrency=4)
    summary = w.run()
    assert (summary.exit_code, summary.errors) == (1, {code: 60})


def test_held_failures_are_not_lost_when_the_run_stops_for_another_reason(world):
    script = Scripted(lambda nth, text, now: (1.0, bad(400, "invalid_value")))
    w = world(15, scripts={"m": script}, concurrency=1)
    summary = w.run(deadline="10s")
    assert (summary.exit_code, summary.stopped_by) == (3, "deadline")
    assert summary.rows.failed == len(script.arrivals) == 11  # ten ended, and the one in flight at the deadline


def test_the_fallback_takes_what_one_model_fails_for_good(world):
    scripts = {"a": Scripted(lambda nth, text, now: (0.1, bad(400, "invalid_value"))), "b": Scripted(lambda nth, text, now: (0.1, good("b")))}
    w = world(30, scripts=scripts, routes=[{"use": ["a", "b"]}])
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.attempts) == (0, 30, 60)
    assert w.sql("SELECT kind, model, count(*) FROM attempts GROUP BY 1, 2 ORDER BY 1") == [("fallback", "b", 30), ("first", "a", 30)]


def test_server_errors_are_tried_max_attempts_times_over_all_runs(world):
    script = Scripted(lambda nth, text, now: (0.1, bad(500, "server_error", f"oops {nth}")))
    w = world(1, scripts={"m": script}, retry={"max_attempts": 5, "max_seconds": 60})
    # Stopped by its deadline between two tries, the row keeps its count.
    w.keys["deadline"] = "0.15s"
    assert w.run().exit_code == 3
    sent = len(script.arrivals)
    assert 1 <= sent < 5
    del w.keys["deadline"]
    summary = w.run()
    assert (summary.exit_code, summary.attempts, len(script.arrivals)) == (1, 5, 5)
    assert w.results()[0]["error"]["code"] == "unavailable"


@pytest.mark.parametrize(
    "reply",
    [Fault(kind=Kind.TIMEOUT, message="slow", billed="maybe"), bad(504), good("cut", choices=[])],
    ids=["timeout", "504", "no-choices"],
)
def test_what_may_have_been_paid_for_is_repeated_at_most_twice(world, reply):
    script = Scripted(lambda nth, text, now: (0.1, reply))
    w = world(1, scripts={"m": script})
    assert (w.run().exit_code, len(script.arrivals)) == (1, 3)


@pytest.mark.parametrize("restart", [False, True], ids=["one-run", "two-runs"])
def test_what_costs_nothing_does_not_count_as_paid_for(world, restart):
    """Three resets, then two gateway timeouts: all `unavailable`, but only the timeouts are limited to two retries."""
    faults = [*[Fault(kind=Kind.NETWORK, message=f"reset {i}", billed="maybe") for i in range(3)], bad(504), bad(504)]
    script = Scripted(lambda nth, text, now: (1.0, faults[nth] if nth < 5 else good()))
    w = world(1, scripts={"m": script}, retry={"initial_seconds": 0})
    if restart:
        assert w.run(deadline="3.5s").exit_code == 3
    assert (w.run().exit_code, len(script.arrivals)) == (0, 6)


def test_full_jitter_between_tries(world):
    script = Scripted(lambda nth, text, now: (0.0, bad(409, "conflict_error", f"{nth}")))
    w = world([{"custom_id": "one", "text": "hi"}], scripts={"m": script}, retry={"initial_seconds": 1, "max_seconds": 8, "max_attempts": 8})
    w.run()
    gaps = [later - earlier for earlier, later in pairwise(script.times)]
    assert len(gaps) == 7
    assert all(0 <= gap <= bound for gap, bound in zip(gaps, [1, 2, 4, 8, 8, 8, 8], strict=True))
    assert sum(gaps) > 4


def test_a_hint_on_a_failed_attempt_is_a_lower_bound_for_its_row_only(world):
    def answer(nth, text, now):
        return (0.1, bad(409, "conflict_error", retry_after="5") if text == "row 0 says hello" and now < 1 else good())

    script = Scripted(answer)
    w = world(20, scripts={"m": script}, concurrency=2)
    assert w.run().exit_code == 0
    again = [at for at, text in script.arrivals if text == "row 0 says hello"]
    assert again[1] - again[0] >= 5.1
    assert max(at for at, text in script.arrivals if text != "row 0 says hello") < 1.2


@pytest.mark.parametrize(("rule", "code"), [(5, 0), (4, 1), ("5%", 0), ("4.9%", 1)])
def test_max_failed(world, rule, code):
    listed = [{"custom_id": f"r{i}", "text": "[[sim:invalid_request]]" if i % 20 == 0 else f"hi {i}"} for i in range(100)]
    assert world(listed).run(max_failed=rule).exit_code == code


def test_max_failed_clearly_passed_stops_early(world):
    listed = [{"custom_id": f"r{i}", "text": "[[sim:invalid_request]]" if i % 2 == 0 else f"hi {i}"} for i in range(400)]
    w = world(listed)
    summary = w.run(max_failed=10, concurrency=4)
    assert summary.exit_code == 1
    assert "max_failed" in (summary.message or "")
    assert summary.attempts < 40


def test_the_deadline_ends_a_run_with_three(world):
    w = world(1000, models={"m": {"limits": {"rpm": 600}}})
    summary = w.run(deadline="30s")
    assert (summary.exit_code, summary.stopped_by) == (3, "deadline")
    assert summary.seconds == pytest.approx(30, abs=1)
    assert w.run().exit_code == 0


HUGE = 10**30
POISON = {
    "surrogate": good("half \ud800 a character"),
    "nul": good("a\x00b"),
    "huge-usage": good(usage=(HUGE, HUGE)),
    "huge-cost": good(usage=(10**13, 10**13)),
    "negative-usage": good(usage=(-5, -5)),
    "text-usage": HttpReply(status=200, body=good().body.replace(b'"completion_tokens": 5', b'"completion_tokens": ["5"]')),
    "model-name": good(model="\ud800"),
    "cost": good(usage=(1, 1), cost=HUGE),
    "error-words": bad(400, "\ud800", "\ud800 words"),
    "error-number": bad(400, HUGE, "words"),  # type: ignore[arg-type]  # what the wire may bring all the same
    "request-id": bad(400, "x", "y", x_request_id="\udc80"),
    "request-id-of-an-answer": HttpReply(status=200, body=good().body, headers={"x-request-id": "\udc80"}),
    "redirect": HttpReply(status=302, body=b"", headers={"location": "\udc80"}),
    "page": HttpReply(status=400, body=b"<html><title>\xff\xfe\x00</title>", headers={}),
    "deep": HttpReply(status=200, body=b"[" * 100_000, headers={}),
}


@pytest.mark.parametrize("reply", POISON.values(), ids=POISON)
def test_no_reply_can_break_the_store(world, reply):
    script = Scripted(lambda nth, text, now: (0.1, reply if nth == 1 else good()))
    w = world(10, scripts={"m": script}, concurrency=1)
    summary = w.run()
    assert summary.exit_code in {0, 1}
    assert len(w.results()) == 10
    assert summary.rows.ok >= 9
