"""Several answers per row: each is paid for once, whatever happens in between, and the result says what most of them say."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from test_engine_crash import _Dies, alike
from world import Scripted, World, bad, good, rows

from batchllm.core.errors import SpecError
from batchllm.engine.deps import RunOptions

LABELS = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"], "additionalProperties": False}


class Says(Scripted):
    """Gives these replies in order, the last one for ever; keeps the bodies it was sent."""

    def __init__(self, *replies: Any) -> None:
        self.bodies: list[dict[str, Any]] = []
        super().__init__(lambda nth, text, now: (0.1, self._reply(replies[min(nth, len(replies) - 1)])))

    @staticmethod
    def _reply(said: Any) -> Any:
        return good(said) if isinstance(said, str) else said

    async def send(self, call, *, timeout_seconds):
        self.bodies.append(json.loads(call.body))
        return await super().send(call, timeout_seconds=timeout_seconds)


def label(word: str) -> str:
    return json.dumps({"label": word})


def test_a_row_gets_its_answers_in_one_result(world):
    says = Says("a", "b", "c")
    w = world(1, scripts={"m": says}, samples=3, request={"max_tokens": 20, "seed": 7})
    told: list[Any] = []
    summary = w.play(lambda: w.go(on_result=told.extend))
    assert (summary.exit_code, summary.rows.ok, summary.attempts, summary.retries) == (0, 1, 3, 0)
    (line,) = w.results()
    assert line["samples"] == [{"output": text, "parsed": None, "finish_reason": "stop"} for text in "abc"]
    assert (line["output"], line["agreement"], line["attempts"]) == ("a", None, 3)
    assert line["cost_usd"] == pytest.approx(3 * 20e-6)
    assert told[0].as_dict() == line
    # A seed is another one each time; everything else is the same.
    assert [body.pop("seed") for body in says.bodies] == [7, 8, 9]
    assert says.bodies[0] == says.bodies[1] == says.bodies[2]
    assert w.sql("SELECT kind, outcome FROM attempts") == [("first", "ok")] * 3
    assert w.run(budget={"usd": 1}).attempts == 3


def test_one_sample_is_a_result_with_one(world):
    w = world(2, samples=1)
    assert w.run().exit_code == 0
    assert [len(line["samples"]) for line in w.results()] == [1, 1]


@pytest.mark.parametrize(
    ("said", "vote", "output", "agreement"),
    [
        (["x", "y", "y"], "output", "y", 2 / 3),
        (["x", "y", "z"], "output", "x", 1 / 3),
        (["y", "x", "x", "y"], "output", "y", 1 / 2),
        (["Yes", "no", "YES"], "output | lower", "Yes", 2 / 3),
        (["x", "y"], "parsed.label", "x", 0),
        (["x", "yy", "zz"], "output | length > 1", "yy", 2 / 3),
    ],
)
def test_the_result_is_an_answer_of_the_majority(world, said, vote, output, agreement):
    w = world(1, scripts={"m": Says(*said)}, samples=len(said), output={"vote": vote})
    assert w.run().exit_code == 0
    (line,) = w.results()
    assert (line["output"], line["agreement"]) == (output, pytest.approx(agreement))


def test_votes_on_what_was_parsed_and_answers_that_must_have_a_form(world):
    says = Says(label("bad"), "nonsense", label("good"), label("good"))
    w = world(1, scripts={"m": says}, samples=3, output={"schema": LABELS, "vote": "parsed.label"})
    assert w.run().exit_code == 0
    (line,) = w.results()
    assert (line["parsed"], line["agreement"]) == ({"label": "good"}, pytest.approx(2 / 3))
    assert [sample["parsed"]["label"] for sample in line["samples"]] == ["bad", "good", "good"]
    assert w.sql("SELECT kind FROM attempts") == [("first",), ("first",), ("repair",), ("first",)]
    assert w.sql("SELECT label FROM answers") == [("good",)]


def test_a_failure_ends_the_row_and_what_was_paid_is_kept(world):
    w = world(1, scripts={"m": Says("a", bad(400, "invalid_value", "no"), "b", "c")}, samples=3)
    assert w.run().errors == {"rejected": 1}
    (line,) = w.results()
    assert (line["status"], line["attempts"], "samples" in line) == ("failed", 2, False)
    # Tried again, only the missing ones are asked for.
    assert w.run(RunOptions(retry_failed=frozenset())).attempts == 4
    assert [sample["output"] for sample in w.results()[0]["samples"]] == ["a", "b", "c"]


def test_another_number_is_a_change_and_only_the_missing_ones_are_paid(world):
    w = world(2, scripts={"m": Scripted(lambda nth, text, now: (0.1, good(f"{text[4]}{nth}")))}, concurrency=1, samples=2)
    assert w.run().attempts == 4
    with pytest.raises(SpecError, match="2 answered rows now ask something else"):
        w.run(samples=3)
    assert w.run(samples=3, on_change="rerun").attempts == 6
    assert w.run(samples=1, on_change="rerun").attempts == 6
    assert [[sample["output"] for sample in line["samples"]] for line in w.results()] == [["00"], ["12"]]
    # Another question makes all of them old.
    assert w.run(samples=3, on_change="rerun", prompt="again {{ text }}").attempts == 12


def test_a_person_who_asks_again_gets_new_answers(world):
    w = world(1, scripts={"m": Says("a", "b", "c", "d")}, samples=2)
    w.run()

    from batchllm.store import Store
    from batchllm.store.store import reopen

    store = Store.existing(w.folder / "t.db")
    store.transaction(lambda connection: reopen(connection, [1], reason="retry", now_utc=1.0, changed=False))
    store.close()
    assert w.run().attempts == 4
    assert [sample["output"] for sample in w.results()[0]["samples"]] == ["c", "d"]


def test_answers_of_the_ladder_are_kept_too(world):
    output = {"schema": LABELS, "on_invalid": {"retries": 0, "escalate": "strong"}, "vote": "parsed.label"}
    scripts = {"cheap": Says("no"), "strong": Says(label("x"), bad(400, "invalid_value", "no"), label("y"))}
    w = world(1, scripts=scripts, routes=[{"use": "cheap"}], samples=2, output=output)
    assert w.run().exit_code == 1
    assert w.run(RunOptions(retry_failed=frozenset())).exit_code == 0
    assert [sample["parsed"]["label"] for sample in w.results()[0]["samples"]] == ["x", "y"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"output": {"vote": "output"}}, "nothing to vote on"),
        ({"samples": 0}, "samples"),
        ({"samples": 2, "output": {"vote": "parsed."}}, "output.vote"),
        ({"samples": 2, "output": {"vote": "row.x"}}, "output.vote"),
        ({"samples": 2, "endpoint": "embeddings"}, "an embedding is the same each time"),
    ],
)
def test_what_makes_no_sense_is_refused(world, keys, words):
    w = world(1, **keys)
    with pytest.raises(SpecError, match=words):
        w.run()


def test_the_cap_holds_for_every_one_of_them(world):
    w = world(20, samples=3, budget={"usd": 0.001})
    summary = w.run()
    assert summary.exit_code == 3
    assert w.sims["m"].audit.cost_pico <= 10**9
    assert 0 < summary.rows.ok < 20
    done = w.run(budget={"usd": 1})
    assert (done.exit_code, done.attempts, w.sims["m"].audit.executed) == (0, 60, 60)


SIM = {"fault_kinds": ("502", "503_retry_after", "409", "reset"), "latency_ms": 300.0, "latency_sigma": 0.6, "faults": 0.1}


@pytest.mark.parametrize("seed", range(4))
def test_no_death_is_seen_and_no_answer_is_paid_twice(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    keys: dict[str, Any] = {
        "sims": {"m": SIM},
        "concurrency": 8,
        "samples": 3,
        "request": {"max_tokens": 20, "seed": 1},
        "output": {"vote": "output"},
    }
    (tmp_path / "0").mkdir()
    (tmp_path / "calm").mkdir()
    w = World(tmp_path / "0", rows(60), **keys)
    for life in range(1, 60):
        ends, at = _Dies(w, tmp_path / str(life)), rng.uniform(0.5, 2.0)
        if not w.play(lambda ends=ends, at=at: ends.at(at)):
            break
        w.folder = tmp_path / str(life)
    assert life > 3
    whole = World(tmp_path / "calm", rows(60), **{**keys, "input": str(tmp_path / "0" / "in.jsonl")})
    assert whole.run().exit_code == 0
    assert alike(w.results()) == alike(whole.results())
    assert w.sql("SELECT count(*) FROM attempt_log WHERE outcome = 'ok'") == [(180,)]


def test_a_stumble_before_an_answer_does_not_count_against_the_next_one(world):
    oops = bad(500, "server_error", "oops")
    says = Says(oops, oops, "one", oops, oops, "two", "three")
    w = world(rows(1), scripts={"m": says}, samples=3, retry={"initial_seconds": 0.01})
    assert w.run().exit_code == 0
    assert [sample["output"] for sample in w.results()[0]["samples"]] == ["one", "two", "three"]


def test_the_time_left_is_told_by_rows_not_by_requests(world):
    w = world(600, sims={"m": {"latency_ms": 50.0}}, models={"m": {"limits": {"rpm": 600, "burst_seconds": 1}}}, samples=4)
    summary = w.run()
    (half,) = [progress for progress in w.progress if 120 <= progress.seconds < 120.5]
    assert half.eta_seconds == pytest.approx(summary.seconds - half.seconds, rel=0.1)
