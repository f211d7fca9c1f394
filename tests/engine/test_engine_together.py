"""Features that meet: packs with fallbacks, several answers with shared ones, keys with prompt caches. What each of them does alone is tested beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from typing import Any

import pytest
from test_engine_keys import KEYS, Pool
from test_engine_samples import Says
from world import Scripted, World, bad, good

from batchllm.core.nouns import Fault, Kind
from batchllm.core.wire import HttpReply
from batchllm.engine import packing
from batchllm.engine.attempt import LaneOut
from batchllm.simulator import SimulatedTransport


def test_a_row_that_was_sent_away_with_its_pack_asks_again(tmp_path, monkeypatch):
    """A pack is sent away from the door for the rows of it that can go elsewhere; a row that waits patiently rode along, and its model isn't lost."""
    real, times = packing._admitted, 0

    async def admitted(*args: Any) -> Any:
        nonlocal times
        times += 1
        if times < 4:
            raise LaneOut
        return await real(*args)

    monkeypatch.setattr(packing, "_admitted", admitted)
    w = World(tmp_path, 5, endpoint="embeddings", prompt=None, request={"dimensions": 8}, models={"m": {"price": {"input": 1, "output": 0}}})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.message) == (0, 5, None)


def test_who_asks_the_same_shares_an_answer_that_was_kept_before_a_crash(tmp_path):
    """`samples: 1`: the answer was written down, and then the process died before it could say that it is the row's result."""
    w = World(tmp_path, [{"custom_id": f"r{i}", "text": "the same"} for i in range(3)], samples=1, request={"max_tokens": 20, "temperature": 0})
    assert w.run().attempts == 1
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        connection.executescript("DELETE FROM outcomes; UPDATE rows SET state = 0")
    assert w.run(retry={"max_attempts": 7}).attempts == 1
    assert [line["shared_from"] for line in w.results()] == [None, "r0", "r0"]


def test_a_seed_in_the_raw_body_is_another_one_for_each_answer(tmp_path):
    says = Says("a", "b")
    World(tmp_path, 1, scripts={"m": says}, samples=2, models={"m": {"body": {"seed": 7}}}).run()
    assert [body["seed"] for body in says.bodies] == [7, 8]


def test_who_waits_for_a_prompt_cache_is_not_kept_by_a_key_that_rests(tmp_path):
    class Keys(Pool):
        async def send(self, call, *, timeout_seconds):
            key = call.headers["x-api-key"].reveal()
            self.sent[key] += 1
            if key == KEYS["A"]:
                await asyncio.sleep(0.1)
                return bad(429, "rate_limit_error", "slow down", retry_after="600")
            return await SimulatedTransport(self.sim, self.clock).send(call, timeout_seconds=timeout_seconds)

    pool = Keys(tmp_path)
    model = {
        "provider": "anthropic", "model": "claude-haiku-4-5", "base_url": "http://127.0.0.1:9",
        "price": {"input": 1, "output": 2, "cached_input": 0.1, "cache_write": 1.25},
    }  # fmt: skip
    prompt = {"messages": [{"role": "system", "content": "word and " * 5000}, {"role": "user", "content": "{{ text }}"}]}
    summary = pool.run(100, model=model, prompt=prompt)
    assert (summary.exit_code, summary.rows.ok, summary.message) == (0, 100, None)
    assert summary.seconds < 30, "the other key is free"
    assert pool.sent[KEYS["A"]] == 1


def test_the_time_that_a_budget_keeps_everybody_waiting_is_no_outage(tmp_path):
    """A dying endpoint breaks requests off that may be billed, and the day's budget is used up by them: until the next day nobody can say that it is still down."""
    midnight = 86_400.0
    cut = Fault(kind=Kind.NETWORK, message="reset", billed="maybe")
    script = Scripted(lambda nth, text, now: (0.5, cut if midnight - 3599.1 < now < midnight + 5 else good()))
    budget = {"usd_per_day": 0.0009, "when_used_up": "wait"}
    w = World(tmp_path, 20, scripts={"m": script}, concurrency=5, budget=budget, retry={"outage_seconds": 600, "max_seconds": 5})
    w.elapsed = midnight - 3600.0
    summary = w.run()
    assert any("m is down" in note.text for note in w.notes)
    assert (summary.exit_code, summary.rows.ok, summary.message) == (0, 20, None)
    assert 3600 < summary.seconds < 3630


def test_what_was_settled_in_a_run_that_died_is_in_its_rows_costs(tmp_path):
    cut = Fault(kind=Kind.NETWORK, message="reset", billed="maybe")
    script = Scripted(lambda nth, text, now: (1.0, cut) if nth == 0 else (10.0, good(usage=(1, 1))))
    w = World(tmp_path, 2, scripts={"m": script}, concurrency=1, retry={"initial_seconds": 0})

    async def dies() -> None:
        controls: list[Any] = []

        async def started(control: Any) -> None:
            controls.append(control)

        task = asyncio.ensure_future(w.go(on_start=started))
        await asyncio.sleep(5)
        await controls[0].answer({"do": "settle", "word": "worst"})
        await asyncio.sleep(10)
        task.cancel()
        await asyncio.wait([task])

    w.play(dies)
    assert w.sql("SELECT count(*) FROM outcomes") == [(1,)]
    assert w.run().exit_code == 0
    assert w.sql("SELECT sum(cost_pico) FROM outcomes") == w.sql("SELECT sum(cost_pico) FROM attempt_log")


def _nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def _calls(levels: int) -> HttpReply:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, "x": json.loads(_nested(levels))}
    return good(choices=[{"message": {"role": "assistant", "content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}])


@pytest.mark.parametrize("samples", [None, 2])
@pytest.mark.parametrize(
    ("reply", "keys", "errors"),
    [
        (good(_nested(190)), {"output": {"schema": {"type": "object"}}}, {}),
        (good(_nested(210)), {"output": {"schema": {"type": "object"}}}, {"invalid_output": 1}),
        (good(f"```json\n{_nested(900)}\n```"), {"output": {"schema": {"type": "object"}}}, {"invalid_output": 1}),
        (good(f'{{"label": {_nested(900)}}}'), {"output": {"choices": ["x", "y"]}}, {"invalid_output": 1}),
        (_calls(150), {}, {}),
        (_calls(400), {}, {"bad_response": 1}),
    ],
)
def test_an_answer_that_is_nested_too_deep_to_be_written_down_is_none(tmp_path, reply, keys, errors, samples):
    script = Scripted(lambda nth, text, now: (0.1, reply))
    w = World(
        tmp_path, 1, scripts={"m": script}, retry={"max_attempts": 2, "initial_seconds": 0.1}, **({"samples": samples} if samples else {}), **keys
    )
    assert w.run().errors == errors
    assert len(w.results()) == 1
    assert w.sql("SELECT count(*) FROM attempts WHERE outcome = 'in_flight'") == [(0,)]


def test_an_answer_to_a_trimmed_prompt_is_not_another_jobs(tmp_path):
    """The cache goes by what was asked; what this job's `context` took away from it, another job may well send."""
    turns = [{"role": role, "content": f"turn {at} " + "word " * 40} for at, role in enumerate(["user", "assistant"] * 4)] + [
        {"role": "user", "content": "so?"}
    ]
    listed = [{"custom_id": "long", "messages": turns}, {"custom_id": "short", "messages": turns[-1:]}]
    keys = {"prompt": None, "cache": str(tmp_path / "answers.db"), "request": {"max_tokens": 20, "temperature": 0}}
    asked = []
    for job, context in (("trims", {"max_tokens": 150, "trim": "oldest"}), ("whole", {})):
        (tmp_path / job).mkdir()
        w = World(tmp_path / job, listed, **keys, **({"context": context} if context else {}))
        assert w.run().exit_code == 0
        asked.append([row["custom_id"] for row in w.results() if row["shared_from"] is None])
    assert asked == [["long", "short"], ["long"]]
