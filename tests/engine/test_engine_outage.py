"""Contract 3, "stop or go on": an endpoint in trouble fails no row, is probed by one request at a time, and ends the run only after outage_seconds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from world import Scripted, bad, dead, good

from batchllm.core.nouns import Fault, Kind


def test_ten_minutes_of_outage_in_mid_job_fail_no_row(world):
    w = world(600, sims={"m": {"rpm": 600, "burst_seconds": 1, "outages": ((20.0, 620.0),)}}, models={"m": {"limits": {"rpm": 600}}})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 600)
    assert 620 + 400 / 10 < summary.seconds < 620 + 60 + 400 / 10 + 5
    probes = [record.now for record in w.records() if record.fault == "outage"]
    assert 10 < len(probes) < 100
    assert w.sql("SELECT sum(counted), sum(billed = 'maybe') FROM attempt_log") == [(0, 0)]
    assert [note.text for note in w.notes if "down" in note.text] == ["m is down (connection refused); its rows wait, one probe at a time"]
    assert [note.text for note in w.notes if "back" in note.text] != []


@pytest.mark.parametrize("reply", [dead(), bad(502), bad(503, "server_is_overloaded")], ids=["refused", "502", "503"])
def test_at_most_one_probe_is_under_way(world, reply):
    script = Scripted(lambda nth, text, now: (0.5, reply if 3 < now < 600 else good()))
    w = world(2000, scripts={"m": script}, models={"m": {"limits": {"concurrency": 16}}})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 2000)
    # What was sent before the fifth fault came may still be under way a moment later.
    probes = [at for at in script.times if 5 < at < 600]
    assert 5 < len(probes) < 80
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(probes))


def test_an_outage_longer_than_outage_seconds_stops_with_4_and_resumes(world):
    w = world(50, sims={"m": {"outages": ((0.25, 3000.0),), "latency_ms": 50.0}}, concurrency=4, retry={"outage_seconds": 900})
    stopped = w.run()
    assert (stopped.exit_code, stopped.stopped_by) == (4, "outage")
    assert 900 <= stopped.seconds <= 902
    assert stopped.rows.failed == 0
    assert 0 < stopped.rows.ok < 50
    assert "run again" in (stopped.message or "")
    w.elapsed = 3000.0
    assert (w.run().exit_code, w.run().rows.ok) == (0, 50)


def test_a_single_fault_of_the_endpoint_is_noise(world):
    w = world([{"custom_id": f"r{i}", "text": f"[[sim:refuse*1]] hi {i}" if i % 3 == 0 else f"hi {i}"} for i in range(60)])
    summary = w.run(concurrency=4)
    assert (summary.exit_code, summary.rows.ok, summary.attempts) == (0, 60, 80)
    assert summary.seconds < 30


def test_a_row_that_a_gateway_alone_answers_with_502_fails_and_keeps_nobody_waiting(world):
    script = Scripted(lambda nth, text, now: (0.1, bad(502, None, "Bad Gateway") if "row 3 " in text else good()))
    w = world(40, scripts={"m": script}, concurrency=4)
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.rows.failed) == (1, 39, 1)
    assert w.results()[3]["error"] == {"code": "unavailable", "message": "Bad Gateway", "http_status": 502, "provider_code": None, "retryable": True}
    assert w.results()[3]["attempts"] == 3
    assert summary.seconds < 30


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_stray_502s_before_an_outage_of_them_fail_no_row(world, concurrency):
    script = Scripted(lambda nth, text, now: (0.2, bad(502, None, "Bad Gateway") if 10 < now < 300 or nth % 7 == 3 else good()))
    w = world(300, scripts={"m": script}, concurrency=concurrency)
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 300)


def test_an_endpoint_that_hangs_counts_as_down_and_its_rows_get_through(world):
    script = Scripted(lambda nth, text, now: (120.0, Fault(kind=Kind.TIMEOUT, message="slow", billed="maybe")) if 5 < now < 500 else (0.5, good()))
    w = world(300, scripts={"m": script}, models={"m": {"limits": {"concurrency": 16}}})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 300)
    assert len([at for at in script.times if 126 < at < 600]) <= 5


def test_faults_of_an_outage_use_up_no_attempts_over_runs_either(world):
    reset = Fault(kind=Kind.NETWORK, message="reset", billed="maybe")
    script = Scripted(lambda nth, text, now: (1.0, reset if now < 2000 else good()))
    w = world(12, scripts={"m": script}, retry={"outage_seconds": 900, "max_attempts": 8})
    assert w.run().exit_code == 4
    assert len(script.arrivals) > 30
    w.elapsed = 1999.0  # one more reset, then it is back
    assert (w.run().exit_code, w.results()[0]["status"]) == (0, "ok")


@pytest.mark.parametrize("kind", [Kind.TIMEOUT, Kind.NETWORK])
def test_rows_that_hang_or_break_by_themselves_fail_and_the_run_ends(world, kind):
    # Every third row never gets an answer, and at the end nothing but such rows is left: that is no outage.
    fault = Fault(kind=kind, message="gone", billed="maybe")
    script = Scripted(lambda nth, text, now: (5.0, fault) if "poison" in text else (0.5, good()))
    w = world([{"custom_id": f"r{i}", "text": f"{'poison' if i % 3 == 0 else 'fine'} {i}"} for i in range(60)], scripts={"m": script})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.rows.failed) == (1, 40, 20)
    assert summary.seconds < 600


def test_a_row_that_hangs_is_not_the_only_probe(world):
    """It has the first place at the door when others' refusals say that the endpoint is down; by itself it would keep it down for ever."""
    hangs = Fault(kind=Kind.TIMEOUT, message="silence", billed="maybe")
    script = Scripted(lambda nth, text, now: (5.0, hangs) if "row 0 " in text else (0.01, bad(503)) if now < 1 else (0.1, good()))
    w = world([{"text": f"row {i} ."} for i in range(30)], scripts={"m": script}, concurrency=4)
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.rows.failed) == (1, 29, 1)
    assert summary.seconds < 60


def test_on_outage_fallback_moves_the_rows(world):
    w = world(40, sims={"a": {"outages": ((0.0, 1e9),)}, "b": {}}, concurrency=8, routes=[{"use": ["a", "b"]}], retry={"on_outage": "fallback"})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 40)
    assert {result["model"] for result in w.results()} == {"b"}
    assert summary.seconds < 60


def test_on_outage_fallback_tries_the_first_model_now_and_then_and_comes_back(world):
    w = world(400, sims={"a": {"outages": ((2.0, 60.0),)}, "b": {}}, models={"a": {"limits": {"rpm": 300}}, "b": {}}, routes=[{"use": ["a", "b"]}],
              retry={"on_outage": "fallback", "max_seconds": 5})  # fmt: skip
    summary = w.run(concurrency=1)
    assert (summary.exit_code, summary.rows.ok) == (0, 400)
    probes = [record.now for record in w.records("a") if record.fault == "outage" and record.now > 3]
    assert len(probes) < 60
    assert {result["model"] for result in w.results()} == {"a", "b"}


def test_on_outage_fallback_sends_away_who_waits_at_the_door(world):
    """Three hundred rows wait for `a`'s rate when it goes down: they move at once, not one with each probe."""
    w = world(300, sims={"a": {"outages": ((2.0, 1e9),)}, "b": {}}, models={"a": {"limits": {"rpm": 600}}, "b": {}}, routes=[{"use": ["a", "b"]}],
              retry={"on_outage": "fallback"})  # fmt: skip
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 300)
    assert summary.seconds < 20


def test_on_outage_fallback_without_another_model_waits(world):
    w = world(40, sims={"a": {"outages": ((0.0, 100.0),)}}, retry={"on_outage": "fallback"})
    assert (w.run().exit_code, w.elapsed > 100) == (0, True)


def test_on_outage_fallback_stops_when_the_last_model_is_down_too_long(world):
    sims = {"a": {"outages": ((0.0, 1e9),)}, "b": {"outages": ((0.0, 1e9),)}}
    w = world(40, sims=sims, routes=[{"use": ["a", "b"]}], retry={"on_outage": "fallback", "outage_seconds": 300})
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by, summary.rows.failed) == (4, "outage", 0)
    assert 300 <= summary.seconds < 400


def test_on_outage_wait_keeps_them(world):
    w = world(40, sims={"a": {"outages": ((0.0, 100.0),)}, "b": {}}, concurrency=8, routes=[{"use": ["a", "b"]}])
    assert w.run().exit_code == 0
    assert {result["model"] for result in w.results()} == {"a"}


def test_an_overload_with_a_hint_is_waited_out(world):
    script = Scripted(lambda nth, text, now: (0.1, bad(503, "server_is_overloaded", retry_after="20") if now < 10 else good()))
    w = world(30, scripts={"m": script}, concurrency=8)
    assert w.run().exit_code == 0
    assert not [at for at in script.times if 0.2 < at < 20]
    assert w.sql("SELECT sum(counted) FROM attempt_log") == [(0,)]


def test_a_row_that_its_fallback_rejects_waits_for_the_model_that_is_down(world):
    """Not the end of the run, and not the row's: the first model may still have an answer."""
    first = Scripted(lambda nth, text, now: (0.1, dead() if now < 60 else good("first")))
    second = Scripted(lambda nth, text, now: (0.1, bad(400, "invalid_value") if "row 3 " in text else good("second")))
    w = world(20, scripts={"a": first, "b": second}, routes=[{"use": ["a", "b"]}], retry={"on_outage": "fallback", "max_seconds": 5})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 20)
    assert [line["model"] for line in w.results()].count("a") >= 1
    assert w.results()[3]["model"] == "a"
    assert first.times[-1] < 70


def test_refusals_with_a_hint_are_no_part_of_an_outage_that_follows(world):
    """An account whose limit is used up answers; the first fault after that isn't an outage of ten minutes."""

    def reply(nth, text, now):
        return (0.1, bad(429, "rate_limit_exceeded", retry_after="120") if now < 600 else bad(503) if now < 661 else good("hi"))

    w = world(3, scripts={"m": Scripted(reply)}, retry={"outage_seconds": 300})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.stopped_by) == (0, 3, None)
    assert summary.refusals > 8


def test_rows_that_hang_do_not_keep_all_others_from_proving_that_the_endpoint_is_well(world):
    """They come first in a later run, and fill all its places: somebody else must get to probe."""
    late = Fault(kind=Kind.TIMEOUT, message="no complete answer", billed="maybe", counts=True)

    def reply(nth, text, now):
        return (3.0, late) if "hangs" in text else (0.1, good("hi"))

    w = world(
        [{"custom_id": f"r{i}", "text": f"{i} hangs" if i < 11 else f"{i}"} for i in range(60)],
        scripts={"m": Scripted(reply)},
        concurrency=4,
        retry={"max_seconds": 5},
    )
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.errors) == (1, 49, {"timeout": 11})


def test_few_refusals_are_no_outage_however_long_they_take(world):
    """With ten requests a day, two refusals in a row are hours apart."""
    script = Scripted(lambda nth, text, now: (0.1, bad(429) if nth in {3, 4, 5} else good("hi")))
    w = world(8, scripts={"m": script}, models={"m": {"limits": {"rpd": 4}}}, retry={"outage_seconds": 60})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.refusals) == (0, 8, 3)


def test_while_nobody_answers_no_time_left_is_told(world):
    script = Scripted(lambda nth, text, now: (0.1, dead() if now < 60 else good()))
    w = world(600, scripts={"m": script}, models={"m": {"limits": {"rpm": 600}}})
    assert w.run().exit_code == 0
    assert {progress.eta_seconds for progress in w.progress if progress.seconds < 60} == {None}
    assert [progress for progress in w.progress if progress.eta_seconds is not None]


def test_where_nothing_but_slow_rows_is_left_the_stop_says_what_else_it_may_be(world):
    """Alone, they can't be told from an endpoint that hangs."""
    late = Fault(kind=Kind.TIMEOUT, message="no complete answer within 3 s", billed="maybe", counts=True)
    w = world(10, scripts={"m": Scripted(lambda nth, text, now: (3.0, late))}, retry={"outage_seconds": 60, "max_seconds": 5})
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by, summary.rows.failed) == (4, "outage", 0)
    assert "retry.timeout_seconds" in (summary.message or "")
    other = world(10, scripts={"m": Scripted(lambda nth, text, now: (0.1, dead()))}, retry={"outage_seconds": 60, "max_seconds": 5})
    assert "timeout_seconds" not in (other.run().message or "")


def test_rows_that_always_hang_come_to_their_ends_over_runs_and_are_not_paid_for_for_ever(world):
    """A server of two places refuses the others, so it counts as down before anybody has hung, and each probe hangs."""
    rows = [{"text": f"[[sim:stall]] {i}" if i >= 40 else f"{i}"} for i in range(50)]
    w = world(
        rows, sims={"m": {"concurrency": 2, "latency_ms": 100}}, concurrency=8, retry={"outage_seconds": 60, "max_seconds": 60, "timeout_seconds": 3}
    )
    ends = []
    while not ends or (ends[-1].exit_code == 4 and len(ends) < 12):
        ends.append(w.run())
    assert [end.exit_code for end in ends[:2]] == [4, 4], "it may be an outage"
    assert (ends[-1].exit_code, ends[-1].errors) == (1, {"timeout": 10})
    assert w.sql("SELECT max(n) FROM (SELECT count(*) AS n FROM attempt_log WHERE billed = 'maybe' GROUP BY row_key)") <= [(8 + 3,)]
