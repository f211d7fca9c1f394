"""What a second terminal may ask of a running job, to the second: pause, continue, stop, set, retry, settle. (How it gets there: tests/story/test_control.py.)"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
from typing import Any

import pytest
from world import Scripted, World, bad, dead, good, rows

from batchllm.core.nouns import Fault, Kind
from batchllm.store.store import reopen

REAL = {"provider": "openai-compatible", "model": "nobody-knows-it", "base_url": "http://localhost:1/v1", "api_key_env": "none"}
PAUSE, CONTINUE, STOP = {"do": "pause"}, {"do": "continue"}, {"do": "stop"}


def setting(*changes: str) -> dict[str, Any]:
    return {"do": "set", "changes": changes}


def steer(w: World, *plan: tuple[float, dict[str, Any]], **keys: Any) -> tuple[Any, list[dict[str, Any]]]:
    """A run of which things are asked at these seconds: its summary, and the answers."""
    answers: list[dict[str, Any]] = []

    async def main() -> Any:
        tasks: list[asyncio.Task[None]] = []

        async def on_start(control: Any) -> None:
            async def ask() -> None:
                now = 0.0
                for at, request in plan:
                    await asyncio.sleep(at - now)
                    now = at
                    answers.append(await control.answer(request))

            tasks.append(asyncio.create_task(ask()))

        summary = await w.go(on_start=on_start, **keys)
        await asyncio.gather(*tasks)
        return summary

    return w.play(main), answers


def one_a_second(count: int, **more: Any) -> dict[str, Any]:
    """A provider that takes a second for each, one at a time."""
    return {
        "input_rows": count,
        "scripts": {"m": Scripted(lambda nth, text, now: (1.0, good()))},
        "models": {"m": {"limits": {"concurrency": 1}}},
        **more,
    }


def test_nothing_is_sent_while_it_is_paused(world):
    w = world(**one_a_second(10))
    summary, answers = steer(w, (2.5, PAUSE), (9.5, CONTINUE))
    assert summary.rows.ok == 10
    # The third was in flight and finished; the others wait for the word.
    assert w.scripts["m"].times == pytest.approx([0, 1, 2, 9.5, 10.5, 11.5, 12.5, 13.5, 14.5, 15.5], abs=0.01)
    assert answers == [{"said": ["paused: nothing new is sent, 1 request in flight finishes"]}, {"said": ["going on after 7.0 s"]}]
    assert {progress.limited_by for progress in w.progress if 3 < progress.seconds < 9} == {"pause"}
    assert w.sql("SELECT what, run FROM changes") == [("pause", 1), ("continue", 1)]


def test_a_reader_that_takes_results_does_not_end_a_pause(world):
    w = world(**one_a_second(4))

    async def main() -> Any:
        async def on_start(control: Any) -> None:
            control.hold()
            control.pause()
            control.release()
            assert control.paused
            asyncio.get_running_loop().call_later(5, control.hold)
            asyncio.get_running_loop().call_later(6, control.resume)
            asyncio.get_running_loop().call_later(8, control.release)

        return await w.go(on_start=on_start)

    assert w.play(main).rows.ok == 4
    assert w.scripts["m"].times[0] == pytest.approx(8, abs=0.01)


def test_an_outage_does_not_grow_while_it_is_paused(world):
    script = Scripted(lambda nth, text, now: (0.1, dead() if now < 4000 else good()))
    w = world(20, scripts={"m": script}, retry={"outage_seconds": 60, "initial_seconds": 1, "max_seconds": 10})
    summary, _ = steer(w, (30, PAUSE), (4000, CONTINUE))
    assert summary.exit_code == 0
    assert not [at for at in script.times if 31 < at < 4000]
    # The same without a pause: it stops.
    other = world(20, scripts={"m": Scripted(lambda nth, text, now: (0.1, dead()))}, retry={"outage_seconds": 60, "max_seconds": 10}, name="u")
    assert other.run().stopped_by == "outage"


def test_a_deadline_ends_a_pause(world):
    summary, answers = steer(world(**one_a_second(50)), (2.5, PAUSE), (3, setting("deadline=20s")))
    assert (summary.exit_code, summary.stopped_by, summary.rows.ok) == (3, "deadline", 3)
    assert summary.seconds == pytest.approx(23, abs=0.6)
    assert "20s" in summary.message
    # In local time, whatever that is here.
    assert re.fullmatch(r"that is 2026-11-2[01] \d\d:\d\d:23", answers[1]["said"][1])


def test_stop_drains(world):
    w = world(**one_a_second(9))
    summary, answers = steer(w, (2.5, STOP), (2.6, STOP), (2.7, PAUSE))
    assert (summary.exit_code, summary.stopped_by, summary.rows.ok) == (130, "stop", 3)
    assert answers[0] == {"said": ["stopping: 1 request in flight finishes; run again to continue"]}
    assert "is ending" in answers[1]["said"][0]
    assert answers[2]["exit_code"] == 2
    assert w.run().rows.ok == 9
    assert len(w.scripts["m"].arrivals) == 9


# set


def test_another_rate_from_now_on(world):
    script = Scripted(lambda nth, text, now: (0.1, good()))
    w = world(2000, scripts={"m": script}, models={"m": {"limits": {"rpm": 60}}})
    summary, _ = steer(w, (60, setting("models.m.limits.rpm=600")), (120, setting("models.m.limits.rpm=null", "models.m.limits.tpm=600000")))
    assert summary.rows.ok == 2000
    by_minute = [len([at for at in script.times if low <= at < low + 60]) for low in (0, 60)]
    assert by_minute == [pytest.approx(60, abs=2), pytest.approx(600, abs=5)]
    # Then only tokens count, and they are few.
    assert script.times[-1] < 150
    assert w.sql("SELECT what, value FROM changes") == [
        ("models.m.limits.rpm", "600"), ("models.m.limits.rpm", "null"), ("models.m.limits.tpm", "600000")
    ]  # fmt: skip


def test_another_rate_for_a_group_of_models(world):
    scripts = {name: Scripted(lambda nth, text, now: (0.1, good())) for name in ("a", "b")}
    group = {"account": {"models": ["a", "b"], "rpm": 60}}
    routes = [{"when": "row.n % 2 == 0", "use": "a"}, {"use": "b"}]
    w = world([{"text": f"t{n}", "n": n} for n in range(300)], scripts=scripts, models={"a": {}, "b": {}}, limit_groups=group, routes=routes)
    steer(w, (60, setting("limit_groups.account.rpm=6000", "limit_groups.account.concurrency=2")))
    times = sorted(at for script in scripts.values() for at in script.times)
    assert len([at for at in times if at < 60]) == pytest.approx(60, abs=2)
    assert times[-1] == pytest.approx(60 + 240 * 0.1 / 2, abs=1)


@pytest.mark.parametrize(
    ("limits", "change", "most"),
    [
        ({"limits": {"concurrency": 2}}, ["models.m.limits.concurrency=32"], 32),
        ({"limits": {"concurrency": 32}}, ["models.m.limits.concurrency=3"], 3),
        ({"limits": "none"}, ["concurrency=5"], 5),
        ({"limits": {"rpm": 6000}}, ["concurrency=5"], 5),
        ({}, ["concurrency=5"], 5),
    ],
)
def test_other_slots_from_now_on(world, limits, change, most):
    script = Scripted(lambda nth, text, now: (1.0, good()))
    w = world(900, scripts={"m": script}, models={"m": limits})
    summary, _ = steer(w, (2.5, setting(*change)), (4.2, STOP))
    assert summary.stopped_by == "stop"
    # What was in flight has ended, and all that went out since the change is there at once.
    assert len([at for at in script.times if 3.2 < at < 4.2]) == most


def test_a_raised_budget_wakes_who_waits(world):
    # Each holds its bound (20 output tokens at 2, and its input) and gives most of it back, so only one is in flight under the small cap.
    w = world(12, scripts={"m": Scripted(lambda nth, text, now: (10.0, good(usage=(1, 1))))}, budget={"usd": 0.0001})
    summary, answers = steer(w, (5, setting("budget.usd=1")))
    assert summary.exit_code == 0
    first, *rest = w.scripts["m"].times
    assert first == pytest.approx(0, abs=0.01)
    assert rest[-1] == pytest.approx(5, abs=0.01)
    assert "budget.usd: 0.0001 -> 1" in answers[0]["said"]
    assert w.sql("SELECT cap_pico FROM runs") == [(10**12,)]


def test_a_budget_lowered_to_what_still_may_come_back_goes_on(world):
    script = Scripted(lambda nth, text, now: (10.0, good(usage=(1, 1))))
    w = world(40, scripts={"m": script}, models={"m": {"limits": {"concurrency": 4}}}, budget={"usd": 1})
    # Four are in flight, with more reserved than the new cap; their real cost is far below it, and three at once fit, then two, then one.
    summary, answers = steer(w, (15, setting("budget.usd=0.00019")))
    (reserved,) = [progress.reserved_pico for progress in w.progress if 12 < progress.seconds < 12.6][:1]
    assert 0.0002e12 < reserved < 0.00021e12
    assert len(answers[0]["said"]) == 2
    assert (summary.exit_code, summary.rows.ok) == (0, 40)
    assert {progress.in_flight for progress in w.progress if progress.seconds > 20.1} == {3, 2, 1, 0}
    assert all(progress.spent_pico + progress.reserved_pico <= 0.00019e12 for progress in w.progress if progress.seconds > 20.1)


def test_a_budget_below_what_is_spent_stops_with_3(world):
    w = world(**one_a_second(40, budget={"usd": 1}))
    summary, answers = steer(w, (5.5, setting("budget.usd=0.00001")))
    assert (summary.exit_code, summary.stopped_by, summary.rows.ok) == (3, "budget", 6)
    assert "the budget was lowered to $0.0000100, but $0.000100 is spent" in summary.message
    assert summary.message in answers[0]["said"][-1]
    assert summary.cost_usd == pytest.approx(6 * 20e-6)


def test_a_first_budget_needs_prices_and_bounds_and_is_kept(world):
    w = world(**one_a_second(9, models={"m": {**REAL, "limits": {"concurrency": 1}, "price": None}}))
    _, answers = steer(w, (2.5, setting("budget.usd=1")))
    assert "the price of 'nobody-knows-it' is not known" in answers[0]["problem"]
    assert w.sql("SELECT count(*) FROM changes") == [(0,)]


def test_rows_without_a_bound_that_wait_when_a_budget_comes_are_not_sent(world):
    audio = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}]
    plain = [{"role": "user", "content": "hello"}]
    script = Scripted(lambda nth, text, now: (1.0, good()))
    w = world(
        [{"messages": audio if n % 2 else plain} for n in range(8)],
        scripts={"m": script},
        models={"m": {**REAL, "limits": {"rpm": 60}}},
        prompt=None,
    )
    # All stand at the door when the budget comes; it lets one pass a second.
    summary, _ = steer(w, (2.5, setting("budget.usd=1")))
    assert len(script.arrivals) == 3 + 2
    assert (summary.rows.ok, dict(summary.errors)) == (5, {"bad_row": 3})
    assert "can't be sent under a budget" in w.results()[7]["error"]["message"]


def test_more_failures_may_be_allowed(world):
    fault = Fault(kind=Kind.BAD_REQUEST, message="no", http_status=400)
    script = Scripted(lambda nth, text, now: (1.0, fault if nth % 3 == 0 else good()))
    keys = {"scripts": {"m": script}, "models": {"m": {"limits": {"concurrency": 1}}}, "max_failed": 1}
    w = world(12, **keys)
    assert steer(w, (0.5, setting("max_failed=50%")))[0].exit_code == 0
    assert len(script.arrivals) == 12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["budget.usd=-1"], "budget.usd: must be at least 0, got -1"),
        (["budgt.usd=1"], "budgt: unknown key; did you mean `budget`?"),
        (["models.n.limits.rpm=5"], "models.n.limits.rpm: the spec has no model 'n'; there are: m"),
        (["limit_groups.x.rpm=5"], "the spec has no limit group 'x'; there are none"),
        (["models.m.limits.rpm=0"], "a limit of 0 would never send anything"),
        (
            ["budget.usd_per_day=5"],
            "this run began without such a budget and hasn't counted for it; stop it, then run it with --set budget.usd_per_day=",
        ),
        (["prompt=x"], "prompt can't be changed while the job runs; stop it, then run it with --set prompt=x"),
        (["models.m.limits={rpm: 5}"], "models.m.limits can't be changed"),
        (["retry.max_attempts=3"], "retry.max_attempts can't be changed"),
        (["budget.usd"], "expected KEY=VALUE, such as budget.usd=5, got 'budget.usd'"),
        ([], "say what to change"),
        (["deadline=25:00"], "deadline: expected a local time"),
        (["max_failed=x"], "max_failed: expected a count or a percentage"),
    ],
)
def test_a_change_that_is_wrong_changes_nothing(world, changes, words):
    w = world(**one_a_second(5))
    summary, answers = steer(w, (1.5, setting("concurrency=1", *changes) if changes else setting()))
    assert answers[0]["exit_code"] == 2
    assert words in answers[0]["problem"]
    assert "--set:" not in answers[0]["problem"]
    assert (summary.exit_code, w.sql("SELECT count(*) FROM changes")) == (0, [(0,)])


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "doesn't know what this asks for"),
        ({"do": "exec"}, "doesn't know what this asks for"),
        ({"do": ["set"]}, "doesn't know what this asks for"),
        ({"do": "set"}, "can't do what this asks for"),
        ({"do": "set", "changes": 5}, "can't do what this asks for"),
        ({"do": "retry", "rows": ["x"]}, "can't do what this asks for"),
        ({"do": "retry", "rows": list(range(6000))}, "at most"),
        ({"do": "settle", "word": "x", "sum_pico": -1}, "can't be negative"),
        ({"do": "settle", "word": "x", "sum_pico": "1"}, "can't be negative"),
        ({"do": "settle", "word": "x", "sum_pico": 10**19}, "nor above a million"),
    ],
)
def test_nothing_else_is_ever_done(world, request_, words):
    summary, answers = steer(world(**one_a_second(4)), (1.5, request_))
    assert words in answers[0]["problem"]
    assert summary.rows.ok == 4


# retry, settle


def test_rows_that_are_put_back_are_asked_again_by_this_run(world):
    fault = Fault(kind=Kind.BAD_REQUEST, message="no", http_status=400)
    script = Scripted(lambda nth, text, now: (1.0, fault if nth == 1 else good(f"answer {nth}")))
    w = world(6, scripts={"m": script}, models={"m": {"limits": {"concurrency": 1}}})
    # Rows 0 (ok) and 1 (failed), while row 4 is on its way; then row 0 once more, in the second round. Row 5 is still pending: it isn't touched.
    summary, answers = steer(w, (4.5, {"do": "retry", "rows": [1, 2, 6, 99]}), (7.5, {"do": "retry", "rows": [1]}))
    assert [answer["rows"] for answer in answers] == [2, 1]
    assert (summary.exit_code, summary.rows.ok, summary.rows.pending, summary.attempts) == (0, 6, 0, 9)
    asked = [text.split()[1] for _, text in script.arrivals]
    assert asked == ["0", "1", "2", "3", "4", "5", "0", "1", "0"]
    assert [result["output"] for result in w.results()[:2]] == ["answer 8", "answer 7"]
    assert w.sql("SELECT row_key, status FROM history ORDER BY id") == [(1, "ok"), (2, "failed"), (1, "ok")]
    assert w.progress[-1].ok == 6


def test_rows_that_are_put_back_before_they_are_met_are_asked_once(world):
    w = world(**one_a_second(600))
    w.run(models={"m": {"provider": "simulated", "model": "m", "limits": "none"}})
    assert len(w.scripts["m"].arrivals) == 600
    # A second run is at row 0; the rest is not read yet.
    w.put([{"custom_id": "new", "text": "row new"}, *({"custom_id": f"r{n}", "text": f"row {n} says hello"} for n in range(600))])
    summary, answers = steer(w, (0.5, {"do": "retry", "rows": [1, 2, 599, 600]}))
    assert answers[0]["rows"] == 4
    assert (summary.rows.ok, summary.rows.pending) == (601, 0)
    assert sorted(text.split()[1] for _, text in w.scripts["m"].arrivals[600:]) == ["0", "1", "598", "599", "new"]


def test_rows_may_be_sent_to_a_model_that_no_route_uses_when_nothing_runs(world):
    scripts = {name: Scripted(lambda nth, text, now, name=name: (1.0, good(name))) for name in ("a", "b")}
    w = world(3, scripts=scripts, models={"a": {}, "b": {}}, routes=[{"use": "a"}])
    _, answers = steer(w, (0.5, {"do": "retry", "rows": [1], "model": "b"}))
    assert "doesn't use the model 'b'" in answers[0]["problem"]
    with contextlib.closing(sqlite3.connect(w.folder / "t.db")) as connection, connection:
        reopen(connection, [1], reason="retry", now_utc=1.0, changed=False, pin="b")
    assert w.run().rows.ok == 3
    assert [result["output"] for result in w.results()] == ["b", "a", "a"]


def test_settled_money_can_be_spent(world):
    # The first two are cut after they were sent: their bounds stay reserved, and hold up the rest under this cap.
    cut = Fault(kind=Kind.NETWORK, message="reset", billed="maybe")
    script = Scripted(lambda nth, text, now: (1.0, cut if nth < 2 else good(usage=(1, 1))))
    w = world(30, scripts={"m": script}, models={"m": {"limits": {"concurrency": 1}}}, retry={"initial_seconds": 0}, budget={"usd": 1})
    summary, answers = steer(w, (10.5, {"do": "settle", "word": "0.00001", "sum_pico": 10**7}))
    settled = answers[0]["settled"]
    assert (settled["attempts"], settled["billed_pico"], answers[0]["simulated"]) == (2, 10**7, True)
    assert (summary.rows.ok, summary.reserved_usd, summary.exit_code) == (30, 0, 0)
    assert summary.cost_usd == pytest.approx(30 * 3e-6 + 1e-5)
    assert w.progress[-1].spent_pico == pytest.approx(30 * 3e6 + 10**7)
    assert w.progress[-1].reserved_pico == 0
    # What is in flight (the eleventh) is not settled; the rows' own costs hold the settled sum.
    assert w.sql("SELECT sum(cost_pico) FROM outcomes") == w.sql("SELECT sum(cost_pico) FROM attempt_log")
    assert json.loads(json.dumps(answers[0])) == answers[0]


def test_a_row_in_progress_gets_the_cost_that_was_settled_meanwhile(world):
    cut = Fault(kind=Kind.NETWORK, message="reset", billed="maybe")
    script = Scripted(lambda nth, text, now: (1.0, cut) if nth == 0 else (10.0, good(usage=(1, 1))))
    w = world(1, scripts={"m": script}, retry={"initial_seconds": 0})
    steer(w, (5, {"do": "settle", "word": "worst"}))
    (result,) = w.results()
    (worst,) = w.sql("SELECT billed_pico FROM settlements")[0]
    assert result["cost_usd"] == pytest.approx((worst + 3e6) / 1e12)


def test_settling_above_the_cap_stops_the_run(world):
    cut = Fault(kind=Kind.NETWORK, message="reset", billed="maybe")
    script = Scripted(lambda nth, text, now: (1.0, cut if nth == 0 else good()))
    w = world(30, scripts={"m": script}, models={"m": {"limits": {"concurrency": 1}}}, retry={"initial_seconds": 0}, budget={"usd": 0.01})
    summary, _ = steer(w, (3.5, {"do": "settle", "word": "1", "sum_pico": 10**12}))
    assert (summary.exit_code, summary.stopped_by) == (3, "budget")
    assert summary.cost_usd > 1


def test_a_row_that_was_put_back_and_failed_again_is_asked_once(world):
    """Its failure may be held back until the end of all rows; it isn't pending then."""
    script = Scripted(lambda nth, text, now: (1.0, bad(400, "invalid_request_error") if "row 599 " in text else good(text)))
    w = world(600, scripts={"m": script}, models={"m": {"limits": {"concurrency": 1}}})
    w.run()
    w.put([{**row, "text": row["text"] + "!"} for row in rows(599)] + rows(600)[599:])
    ((key,),) = w.sql("SELECT row_key FROM rows WHERE custom_id = 'r599'")
    summary, _ = steer(w, (0.5, {"do": "retry", "rows": [key]}), on_change="rerun")
    assert (summary.attempts, summary.rows.ok, summary.rows.failed) == (1200, 599, 1)
