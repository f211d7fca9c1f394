"""Guarantee 8: a later run sees what changed in the job, does what `on_change` says, and re-runs nothing for limits, prices or a new place in the file."""

from __future__ import annotations

import pytest
from world import Scripted, bad, good, rows

from batchllm.core.errors import SpecError
from batchllm.engine import RunOptions


def _changed(count: int, *, at: int) -> list[dict[str, str]]:
    return [{**row, "text": "other words"} if i == at else row for i, row in enumerate(rows(count))]


def _sent(w) -> int:
    return w.sims["m"].audit.requests


def test_a_finished_job_run_again_sends_nothing(world):
    w = world(30)
    first = w.run()
    before = (w.folder / "t.results.jsonl").read_bytes()
    again = w.run()
    assert (first.exit_code, again.exit_code, _sent(w), again.attempts) == (0, 0, 30, 30)
    assert (w.folder / "t.results.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"retry": {"max_attempts": 3}},
        {"budget": {"usd": 5}},
        {"concurrency": 3},
        {"models": {"m": {"provider": "simulated", "model": "m", "price": {"input": 7, "output": 9}, "limits": {"rpm": 100}}}},
        {"models": {"renamed": {"provider": "simulated", "model": "m", "price": {"input": 1, "output": 2}}}},
        {"keep_bodies": "none"},
    ],
    ids=["retry", "budget", "concurrency", "limits-price", "renamed", "bodies"],
)
def test_what_does_not_change_the_request_re_runs_nothing(world, change):
    w = world(30)
    w.run()
    again = w.run(**change)
    assert (again.exit_code, again.rows.ok, _sent(w)) == (0, 30, 30)
    assert w.compared[-1].unchanged == 30


def test_a_changed_row_is_refused_unless_told(world):
    w = world(30)
    w.run()
    w.put(_changed(30, at=7))
    with pytest.raises(SpecError, match=r"1 answered row.*--on-change rerun"):
        w.run()
    assert _sent(w) == 30
    # Nothing was decided, so the next run asks again.
    with pytest.raises(SpecError):
        w.run()


def test_a_changed_row_is_asked_again_and_its_old_answer_kept_in_history(world):
    w = world(30)
    w.run()
    old = w.results()[7]
    w.put(_changed(30, at=7))
    summary = w.run(on_change="rerun")
    assert (summary.exit_code, summary.rows.ok, _sent(w)) == (0, 30, 31)
    new = w.results()[7]
    assert new["output"] != old["output"]
    assert new["attempts"] == 2
    assert new["cost_usd"] == pytest.approx(w.records()[-1].cost_pico / 1e12)  # since its request last changed
    assert w.sql("SELECT reason, custom_id, output FROM history") == [("changed", "r7", old["output"])]
    assert (w.compared[-1].changed, w.compared[-1].unchanged) == (1, 29)
    assert w.run().exit_code == 0
    assert _sent(w) == 31


@pytest.mark.parametrize(("how", "ask"), [("keep", None), ("ask", "keep")])
def test_kept_answers_stay(world, how, ask):
    w = world(30)
    w.run()
    old = w.results()[7]
    w.put(_changed(30, at=7))
    assert w.run(on_change=how, ask=ask).exit_code == 0
    assert (w.results()[7], _sent(w)) == (old, 30)


def test_a_changed_prompt_changes_every_row(world):
    w = world(30)
    w.run()
    assert w.run(prompt="{{ text }}!", on_change="rerun").exit_code == 0
    assert (_sent(w), w.sql("SELECT count(*) FROM history")) == (60, [(30,)])


def test_new_removed_moved_and_returned_rows(world):
    w = world(30)
    w.run()
    full = rows(31)
    w.put(full[20:31] + full[:10])  # r10..r19 removed, r30 new, the others moved
    summary = w.run()
    assert (summary.exit_code, summary.rows.total, _sent(w)) == (0, 21, 31)
    seen = w.compared[-1]
    assert (seen.new, seen.changed, seen.removed, seen.unchanged) == (1, 0, 10, 20)
    assert [(line["row"], line["custom_id"]) for line in w.results()] == list(enumerate([f"r{i}" for i in [*range(20, 31), *range(10)]]))
    w.put(full)  # the removed ones come back with their answers
    assert w.run().rows.ok == 31
    assert (_sent(w), [line["custom_id"] for line in w.results()]) == (31, [f"r{i}" for i in range(31)])


def test_numbered_rows_are_matched_by_content_kth_to_kth(world):
    texts = ["a", "b", "a", "c", "a"]
    w = world([{"text": text} for text in texts])
    w.run()
    assert [line["custom_id"] for line in w.results()] == ["0", "1", "2", "3", "4"]
    w.put([{"text": text} for text in ["new", *texts, "a"]])
    assert w.run().rows.ok == 7
    assert _sent(w) == 7
    assert [line["custom_id"] for line in w.results()] == [str(i) for i in range(7)]
    by_content = {line["custom_id"]: line["output"] for line in w.results()}
    assert by_content["1"] == by_content["3"] == by_content["5"] == by_content["6"]


def test_another_model_id_is_another_answer(world):
    w = world(10)
    w.run()
    other = {"models": {"m": {"provider": "simulated", "model": "another", "price": {"input": 1, "output": 2}}}}
    with pytest.raises(SpecError, match="changed"):
        w.run(**other)
    assert w.run(on_change="rerun", **other).rows.ok == 10
    assert (_sent(w), w.sql("SELECT count(*) FROM history")) == (20, [(10,)])


@pytest.mark.parametrize("part", [RunOptions(limit=25), RunOptions(sample_count=1), RunOptions(sample_fraction=0.001)])
def test_a_run_on_a_part_of_the_rows_leaves_changes_elsewhere_to_be_noticed(world, part):
    w = world(30, on_change="rerun")
    w.run()
    w.put(_changed(30, at=27))
    w.run(part)
    w.run()
    assert (_sent(w), w.records()[-1].client_request_id.split(".")[1]) == (31, "28")


def test_a_route_that_still_may_use_the_model_keeps_its_answers(world):
    w = world(10, sims={"m": {}, "b": {}}, routes=[{"use": "m"}])
    w.run()
    assert w.run(routes=[{"use": ["b", "m"]}]).exit_code == 0
    assert (_sent(w), w.sims["b"].audit.requests) == (10, 0)


def test_failed_rows_are_left_alone_until_told_or_changed(world):
    listed = [{"custom_id": f"r{i}", "text": f"[[sim:invalid_request]] {i}" if i < 5 else f"hello {i}"} for i in range(20)]
    listed[0]["text"] = "[[sim:content_policy]] 0"
    w = world(listed)
    assert w.run().errors == {"rejected": 4, "refused": 1}
    assert (w.run().exit_code, _sent(w)) == (1, 20)
    assert w.run(RunOptions(retry_failed=frozenset({"refused"}))).attempts == 21
    assert w.run(RunOptions(retry_failed=frozenset())).attempts == 26
    listed[3]["text"] = "mended"
    w.put(listed)
    assert w.run().errors == {"rejected": 3, "refused": 1}  # a failed row that changed goes anew, without a word
    assert _sent(w) == 27


def test_retry_failed_begins_its_attempts_anew(world):
    script = Scripted(lambda nth, text, now: (0.1, bad(500, "server_error", f"oops {nth}")))
    w = world(1, scripts={"m": script}, retry={"max_attempts": 4})
    assert (w.run().attempts, w.run(RunOptions(retry_failed=frozenset())).attempts) == (4, 8)
    assert (w.results()[0]["attempts"], w.sql("SELECT count(*) FROM history WHERE reason = 'retry'")) == (8, [(1,)])


def test_duplicates_and_bad_rows_get_one_line_each_in_order(world):
    w = world([
        {"custom_id": "a", "text": "one"}, "{broken", {"custom_id": "a", "text": "two"}, {"custom_id": "b", "text": "three"}, {"text": "no id"}, '"text"',
    ])  # fmt: skip
    summary = w.run()
    assert (summary.exit_code, summary.rows.total, summary.attempts) == (1, 6, 2)
    lines = [(line["row"], line["custom_id"], line["error"]["code"] if line["error"] else "ok") for line in w.results()]
    assert lines == [(0, "a", "ok"), (1, None, "bad_row"), (2, "a", "duplicate_id"), (3, "b", "ok"), (4, None, "bad_row"), (5, None, "bad_row")]
    assert (w.run().exit_code, _sent(w), len(w.results())) == (1, 2, 6)


def test_limit_judges_the_first_rows_only(world):
    w = world(30)
    some = w.run(RunOptions(limit=10))
    assert (some.exit_code, some.rows.total, some.rows.ok, some.rows.pending, _sent(w)) == (0, 10, 10, 0, 10)
    assert w.run().rows.ok == 30
    w.put(_changed(30, at=20))
    assert w.run(RunOptions(limit=10)).exit_code == 0  # the changed row is beyond it
    assert _sent(w) == 30


@pytest.mark.parametrize("options", [RunOptions(sample_count=12), RunOptions(sample_fraction=0.3)], ids=["count", "fraction"])
def test_a_sample_is_stable(world, options):
    w = world(60)
    first = w.run(options)
    chosen = {line["custom_id"] for line in w.results()}
    assert first.exit_code == 0
    assert 5 < len(chosen) < 35
    assert options.sample_count in (None, len(chosen))
    assert (w.run(options).exit_code, _sent(w)) == (0, len(chosen))
    w.put(list(reversed(rows(60))))
    w.run(options)
    assert _sent(w) == len(chosen)
    assert w.run().rows.ok == 60


def test_keep_carries_input_columns(world):
    w = world([{"custom_id": "a", "text": "x", "lang": "fr", "n": 3}, {"custom_id": "b", "text": "y", "n": None}])
    w.run(output={"keep": ["lang", "n"]})
    assert [line["input"] for line in w.results()] == [{"lang": "fr", "n": 3}, {"lang": None, "n": None}]


def test_columns_kept_later_or_changed_reach_the_answers_that_are_there(world):
    w = world(rows(3))
    w.run()
    labelled = [{**row, "gold": "a"} for row in rows(3)]
    w.put(labelled)
    assert w.run(output={"keep": ["gold"]}).attempts == 3
    assert [line["input"] for line in w.results()] == [{"gold": "a"}] * 3
    w.put([labelled[0], {**labelled[1], "gold": "b"}, labelled[2]])
    assert w.run(output={"keep": ["gold"]}).attempts == 3
    assert [line["input"]["gold"] for line in w.results()] == ["a", "b", "a"]


def test_records_of_a_program_are_added_never_removed(world):
    w = world(1)
    records = rows(10)
    assert w.run(RunOptions(records=records[:6])).rows.ok == 6
    assert w.run(RunOptions(records=records[3:])).rows.ok == 10
    assert _sent(w) == 10
    assert w.sql("SELECT count(*) FROM rows WHERE row IS NULL") == [(0,)]


def test_a_run_that_stops_before_the_end_looks_again(world):
    """A rerun cut short must not leave changed rows with their old answers taken for good."""
    w = world(30)
    w.run()
    w.put([{**row, "text": row["text"] + " again"} for row in rows(30)])
    assert w.run(on_change="rerun", budget={"usd": 0.0011}, concurrency=1).exit_code == 3
    left = 30 - (_sent(w) - 30)
    assert left > 0
    assert w.run(on_change="rerun", budget={"usd": 1}).rows.ok == 30
    assert _sent(w) == 60


def test_going_back_after_a_rerun_of_some_rows_is_a_change_again(world):
    """The inputs' record of the last whole run fits again, but not every answer does."""
    w = world(30, on_change="rerun")
    w.run()
    first = [line["output"] for line in w.results()]
    assert w.run(RunOptions(limit=10), prompt="{{ text }} and more").exit_code == 0
    assert [line["output"] for line in w.results()] != first
    assert w.run().exit_code == 0
    assert ([line["output"] for line in w.results()], _sent(w)) == (first, 50)


def test_an_answer_that_came_from_a_script_is_the_answer(world):
    w = world(3, scripts={"m": Scripted(lambda nth, text, now: (0.25, good(text.upper(), usage=(7, 3))))})
    w.run()
    assert w.results()[1] == {
        "custom_id": "r1", "row": 1, "status": "ok", "output": "ROW 1 SAYS HELLO", "parsed": None, "model": "m", "provider_model": "sim",
        "finish_reason": "stop", "tool_calls": None,
        "usage": {"input_tokens": 7, "output_tokens": 3, "cached_input_tokens": 0, "cache_write_tokens": 0, "reasoning_tokens": 0},
        "cost_usd": pytest.approx(13e-6), "attempts": 1, "latency_seconds": 0.25, "shared_from": None, "input": None, "error": None,
    }  # fmt: skip


def test_rows_that_name_a_foreign_model_are_counted_in_one_warning(world):
    """Also on the run after a change of the input, whose comparison looks at every row once more."""
    lines = [
        {
            "custom_id": f"r{i}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": name, "messages": [{"role": "user", "content": f"hi {i}"}]},
        }
        for i, name in enumerate(("m", "other", "other"))
    ]
    w = world(lines, prompt=None)
    assert w.run().exit_code == 0
    w.put([*lines, {**lines[1], "custom_id": "r3"}])
    assert w.run().exit_code == 0
    assert [note.text.split()[0] for note in w.notes if note.level == "warning"] == ["2", "1"]


def test_going_back_after_a_first_run_that_answered_nothing(world):
    """Answers to something else that a run in between gave are no answers to what was asked at first, though that run had no older answer to put away."""
    script = Scripted(lambda nth, text, now: (0.1, good(text) if nth else bad(401, "invalid_api_key")))
    w = world(300, scripts={"m": script}, concurrency=1)
    assert w.run().exit_code == 4
    assert w.run(prompt="not {{ text }}", budget={"usd": 0.0005}).exit_code == 3
    with pytest.raises(SpecError, match="answered rows now ask something else"):
        w.run()
    assert w.run(on_change="rerun").exit_code == 0
    assert not [line for line in w.results() if line["output"].startswith("not")]


@pytest.mark.parametrize("part", [{"limit": 4}, {"sample_count": 3}])
def test_failed_rows_beyond_a_runs_scope_keep_their_outcome(world, part):
    script = Scripted(lambda nth, text, now: (0.1, bad(400, "invalid_request_error", f"bad {nth}")))
    w = world(12, scripts={"m": script})
    w.run()
    assert w.run(RunOptions(**part, retry_failed=frozenset())).rows.failed == next(iter(part.values()))
    assert len(w.results()) == 12


def test_failed_rows_keep_their_outcome_when_a_changed_job_is_refused(world):
    script = Scripted(lambda nth, text, now: (0.1, bad(400, "invalid_request_error") if text.startswith("row 1 ") else good(text)))
    w = world(3, scripts={"m": script})
    w.run()
    with pytest.raises(SpecError, match="Nothing was sent"):
        w.run(RunOptions(retry_failed=frozenset()), prompt="not {{ text }}")
    assert w.sql("SELECT status FROM results ORDER BY row") == [("ok",), ("failed",), ("ok",)]
