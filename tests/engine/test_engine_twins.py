"""Rows that ask the same share one answer: which do, who is sent, what the others get, and that no crash can be seen in it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from test_engine_crash import _Dies, alike
from world import PRICE, Scripted, World, bad, dead, good

from batchllm.engine import twins
from batchllm.engine.deps import RunOptions

FIXED = {"max_tokens": 20, "temperature": 0}


def said(*texts: str, **more: Any) -> list[dict[str, Any]]:
    return [{"custom_id": f"r{i}", "text": text, **more} for i, text in enumerate(texts)]


def shared(w: World) -> list[str | None]:
    return [line["shared_from"] for line in w.results()]


def sent(w: World) -> list[str]:
    return [key for (key,) in w.sql("SELECT custom_id FROM attempts ORDER BY attempt_id")]


def echo(seconds: float = 0.1) -> Scripted:
    return Scripted(lambda nth, text, now: (seconds, good(f"{text} #{nth}")))


def test_the_first_of_equal_rows_is_sent_and_the_others_share_its_answer(world):
    w = world(said("a", "b", "a", "a", "b"), scripts={"m": echo()}, request=FIXED, output={"keep": ["text"]})
    told: list[Any] = []
    summary = w.play(lambda: w.go(on_result=told.extend))
    assert (summary.exit_code, summary.rows.ok, summary.attempts, summary.shared) == (0, 5, 2, 3)
    assert sorted(sent(w)) == ["r0", "r1"]
    first, _, third, *_ = lines = w.results()
    assert shared(w) == [None, None, "r0", "r0", "r1"]
    assert third == {**first, "custom_id": "r2", "row": 2, "attempts": 0, "cost_usd": 0.0, "shared_from": "r0"}
    assert sorted((result.as_dict() for result in told), key=lambda line: line["row"]) == lines
    assert w.run(budget={"usd": 1}).attempts == 2


@pytest.mark.parametrize(
    ("keys", "more", "asked"),
    [
        ({"request": {"max_tokens": 20}}, {}, 3),
        ({"request": {**FIXED, "temperature": 0.1}}, {}, 3),
        ({"request": {"seed": 0}}, {}, 1),
        ({"request": FIXED}, {}, 1),
        ({"request": FIXED, "dedupe": False}, {}, 3),
        ({"request": {"max_tokens": 20}, "dedupe": True}, {}, 1),
        ({"request": FIXED, "models": {"m": {"request": {"temperature": 1}}}}, {}, 3),
        ({"request": {}, "models": {"m": {"request": {"temperature": 0}}}}, {}, 1),
        ({"request": FIXED, "models": {"m": {"body": {"temperature": 1}}}}, {}, 3),
        # Rows that bring their own parameters.
        ({"request": {}, "overrides": {"request": "p"}}, {"p": {"temperature": 0}}, 1),
        ({"request": FIXED, "overrides": {"request": "p"}}, {"p": {"temperature": None}}, 3),
        # What is right for one row may be wrong for another.
        ({"request": FIXED, "output": {"check": "row.custom_id != null"}}, {}, 3),
        ({"request": FIXED, "output": {"check": "output != null"}}, {}, 1),
    ],
)
def test_who_shares(world, keys, more, asked):
    w = world(said("a", "a", "a", **more), **keys)
    assert (w.run().exit_code, w.sims["m"].audit.executed) == (0, asked)


def test_rows_that_go_other_ways_share_nothing(world):
    rows = [{"custom_id": f"r{i}", "text": "a", "to": "xy"[i // 3 % 2], "p": {"seed": 1} if i > 8 else {}} for i in range(12)]
    models = {
        "a": {"request": {"seed": 1}},
        "b": {},
    }
    routes = [{"when": "to == 'x'", "use": ["a", "b"]}, {"use": ["b", "a"]}]
    w = world(rows, models=models, routes=routes, request=FIXED, overrides={"request": "p"})
    assert w.run().exit_code == 0
    # r9.. say what model a says anyway, but the next model of their chain would be asked for more.
    assert shared(w) == [None, "r0", "r0", None, "r3", "r3", "r0", "r0", "r0", None, "r9", "r9"]
    w = world(said(*["a"] * 40), sims={"a": {}, "b": {}}, routes=[{"use": {"a": 50, "b": 50}}], request=FIXED, name="w")
    assert w.run().attempts == 2


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (bad(400, "invalid_value", "This row can't be done"), "rejected"),
        (bad(400, "context_length_exceeded", "This model's maximum context length is 100 tokens"), "too_long"),
        (good(choices=[{"index": 0, "message": {"role": "assistant", "content": None, "refusal": "No."}, "finish_reason": "stop"}]), "refused"),
    ],
)
def test_what_is_wrong_with_the_request_fails_all_alike(world, reply, code):
    script = Scripted(lambda nth, text, now: (0.1, reply if text == "a" else good()))
    w = world(said("a", "b", "a", "a"), scripts={"m": script}, request=FIXED, concurrency=1)
    summary = w.run()
    assert (summary.exit_code, summary.errors, summary.attempts) == (1, {code: 3}, 2)
    assert [(line["shared_from"], line["attempts"]) for line in w.results()] == [(None, 1), (None, 1), ("r0", 0), ("r0", 0)]
    # A row that comes later fails alike too; one that is tried again is sent.
    w.put(said("a", "b", "a", "a", "a"))
    assert w.run().attempts == 2
    assert shared(w)[4] == "r0"
    assert w.run(RunOptions(retry_failed=frozenset({code}))).attempts == 3
    assert shared(w) == [None, None, "r0", "r0", "r0"]


def test_a_failure_that_is_held_back_holds_its_twins_too(world):
    """Failures at a run's start may be everybody's: nobody is failed by them, and the next run shares the good answer."""
    script = Scripted(lambda nth, text, now: (0.1, bad(422, "invalid_value", "not so") if now < 5 else good(text)))
    rows = said(*(f"t{i % 30}" for i in range(90)))
    w = world(rows, scripts={"m": script}, request=FIXED, concurrency=4)
    first = w.run()
    assert (first.exit_code, first.rows.failed, first.shared) == (4, 0, 0)
    w.elapsed = 10
    last = w.run()
    assert (last.exit_code, last.rows.ok, last.shared) == (0, 90, 60)
    assert shared(w)[30:60] == [f"r{i}" for i in range(30)]


def test_with_any_other_failure_the_next_one_is_sent(world):
    replies = {0: bad(500, None, "oops"), 1: bad(500, None, "oops"), 2: good("late")}
    script = Scripted(lambda nth, text, now: (0.1, replies.get(nth, good("never"))))
    w = world(said("a", "a", "a", "a", "a"), scripts={"m": script}, request=FIXED, retry={"max_attempts": 1})
    assert (w.run().exit_code, sent(w)) == (1, ["r0", "r1", "r2"])
    assert [(line["status"], line["output"], line["shared_from"]) for line in w.results()] == [
        ("failed", None, None),
        ("failed", None, None),
        ("ok", "late", None),
        ("ok", "late", "r2"),
        ("ok", "late", "r2"),
    ]
    # Tried again, the failed ones share what is there. What their own requests cost isn't known.
    assert w.run(RunOptions(retry_failed=frozenset())).attempts == 3
    assert [(line["shared_from"], line["attempts"], line["cost_usd"]) for line in w.results()][:2] == [("r2", 1, None), ("r2", 1, None)]


def test_the_last_of_the_twins_is_sent_after_the_last_row_was_read(world):
    """Every one fails on its own; each is asked by the worker that lost the one before it, when no other worker is there any more."""
    w = world(
        said(*["a"] * 30), scripts={"m": Scripted(lambda nth, text, now: (1, bad(500)))}, request=FIXED, retry={"max_attempts": 1}, max_failed=30
    )
    summary = w.run()
    assert (summary.stopped_by, summary.attempts, summary.rows.failed) == ("provider", 20, 0)


def test_a_stop_leaves_those_that_wait_pending(world):
    w = world(said("a", "a", "a"), scripts={"m": Scripted(lambda nth, text, now: (0.1, dead()))}, request=FIXED, deadline="5s")
    first = w.run()
    assert (first.stopped_by, first.rows.pending) == ("deadline", 3)
    w.scripts["m"] = echo()
    assert (w.run(deadline=None).exit_code, shared(w)) == (0, [None, "r0", "r0"])


def test_a_budget_that_has_no_room_for_one_has_none_for_its_twins(world):
    long = "long " * 500
    w = world(said("a", long, "b", long, long, "c"), request=FIXED, budget={"usd": 0.0005})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.rows.pending) == (3, 3, 3)
    assert "and 2 more" in summary.message
    assert w.run(budget={"usd": 1}).shared == 2


def test_no_more_wait_than_fit_into_memory(world, monkeypatch):
    monkeypatch.setattr(twins.Twins.__init__, "__kwdefaults__", {"most_waiting": 10})
    most = 0

    def answer(nth: int, text: str, now: float) -> Any:
        nonlocal most
        most = max(most, nth)
        return 1.0, bad(422, "invalid_value", "not so") if text == "wrong" else good(text)

    # The failure is held back while nothing else happens: the reader must not wait for it for ever.
    texts = ["wrong"] * 40 + ["a", "b", "a", "c"] * 20 + ["d"] * 60
    w = world(said(*texts), scripts={"m": Scripted(answer)}, request=FIXED)
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.rows.failed, summary.attempts) == (1, 140, 40, 5)

    async def stopped() -> Any:
        async def start(control: Any) -> None:
            import asyncio

            asyncio.get_running_loop().call_later(2.0, lambda: control.stop(message="enough"))

        return await w.go(on_start=start, store="u.db")

    w.scripts["m"] = Scripted(lambda nth, text, now: (100.0, good()))
    w.put(said(*["a"] * 60))
    late = w.play(stopped)
    # What the leader still answers is everybody's who waited.
    assert (late.stopped_by, late.rows.ok) == ("stop", 11)


def test_a_leader_may_end_before_its_twin_is_met(world):
    """Rows of one chunk: what the store said of it is old by then."""
    w = world(said(*(f"t{i % 200}" for i in range(400))), request=FIXED, concurrency=1)
    assert (w.run().shared, w.sims["m"].audit.executed) == (200, 200)
    assert shared(w) == [*[None] * 200, *(f"r{i}" for i in range(200))]


def test_a_row_that_is_asked_again_gives_nobody_its_old_answer(world):
    w = world(said("a", "a", "b"), scripts={"m": echo()}, request=FIXED)
    assert w.run().exit_code == 0
    w.put([*said("a", "a", "b"), {"custom_id": "r3", "text": "a"}])
    assert w.run().attempts == 2
    assert shared(w) == [None, "r0", None, "r0"]
    # The first one asks something else now: those that shared its answer keep it, a new one asks anew.
    w.put([*said("x", "a", "b", "a"), {"custom_id": "r4", "text": "a"}, {"custom_id": "r5", "text": "x"}])
    assert w.run(on_change="rerun").attempts == 4
    assert shared(w) == [None, "r0", None, "r0", None, "r0"]
    assert [line["output"] for line in w.results()][3:] == ["a #0", "a #3", "x #2"]


TEXTS = [f"text {i * i % 101}" if i % 23 else "[[sim:invalid_request]]" for i in range(240)]
HEALING = ("502", "503_retry_after", "429_retry_after_ms", "409", "reset", "short_body")
KEYS = {
    "sims": {"m": {"fault_kinds": HEALING, "latency_ms": 300.0, "latency_sigma": 0.8, "faults": 0.15}},
    "concurrency": 6,
    "retry": {"timeout_seconds": 10, "max_attempts": 20},
    "request": FIXED,
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("named", [True, False])
def test_no_death_is_seen_in_what_is_shared(tmp_path: Path, seed: int, named: bool) -> None:
    rng = random.Random(seed)
    listed = [{"text": text, **({"custom_id": f"r{i}"} if named else {})} for i, text in enumerate(TEXTS)]
    (tmp_path / "0").mkdir()
    (tmp_path / "calm").mkdir()
    w = World(tmp_path / "0", listed, **KEYS)
    for life in range(1, 60):
        ends = _Dies(w, tmp_path / str(life))
        at, commits = rng.uniform(0, 1.2), rng.randrange(1, 40)
        if not w.play(lambda ends=ends, at=at, commits=commits: ends.at(at) if seed % 2 else ends.after_commits(commits)):
            break
        w.folder = tmp_path / str(life)
    assert life > 3
    whole = World(tmp_path / "calm", listed, **{**KEYS, "input": str(tmp_path / "0" / "in.jsonl")})
    assert whole.run().exit_code == 1
    assert alike(w.results()) == alike(whole.results())
    # Everybody shares with the first that asks the same.
    assert shared(w) == [None if TEXTS.index(text) == i else f"{'r' * named}{TEXTS.index(text)}" for i, text in enumerate(TEXTS)]
    assert w.sql("SELECT count(DISTINCT row_key) FROM attempt_log") == [(len(set(TEXTS)),)]


def test_put_back_rows_share_too(world):
    """`retry` at a second terminal while the run goes on."""
    script = Scripted(lambda nth, text, now: (0.1 if text == "a" else 5.0, bad(400, "invalid_value", "not so") if nth == 0 else good(text)))
    w = world(said("a", "a", "a", "b", "c"), scripts={"m": script}, request=FIXED, concurrency=1)

    async def main() -> Any:
        import asyncio

        async def start(control: Any) -> None:
            async def later() -> None:
                await asyncio.sleep(7)
                assert (await control.answer({"do": "retry", "rows": [1, 2, 3]}))["rows"] == 3

            tasks.append(asyncio.ensure_future(later()))

        tasks: list[Any] = []
        return await w.go(on_start=start)

    summary = w.play(main)
    assert (summary.exit_code, summary.rows.ok, summary.attempts) == (0, 5, 4)
    assert shared(w) == [None, "r0", "r0", None, None]


def test_the_price_of_shared_rows_is_nothing(world):
    w = world(said("a", "a"), request=FIXED, models={"m": {"price": PRICE}})
    summary = w.run()
    assert summary.cost_usd == pytest.approx(sum(line["cost_usd"] for line in w.results()))


def test_who_shares_names_its_source_by_the_number_it_has_now(world):
    w = world([{"text": text} for text in "abb"], request=FIXED)
    w.run()
    assert [line["shared_from"] for line in w.results()] == [None, None, "1"]
    w.put([{"text": text} for text in "cabb"])
    w.run()
    assert [line["shared_from"] for line in w.results()] == [None, None, None, "2"]
