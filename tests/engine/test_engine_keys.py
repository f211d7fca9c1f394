"""Several keys for one model: each with its own limits, in one virtual time; one that is refused is out while the others go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
from collections import Counter

import pytest

from batchllm.core.errors import SpecError
from batchllm.core.events import Note
from batchllm.core.nouns import Fault, Kind
from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.engine import Deps, RunOptions, run_job
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.spec import build
from tests.engine.world import bad

KEYS = {"A": "key-of-account-a", "B": "key-of-account-b"}
LIMITS = {"rpm": 600, "burst_seconds": 1}


class Pool:
    """One job whose model has several keys, and the provider behind them; `script(key, nth)` may answer in its place."""

    def __init__(self, folder, *, script=None, **settings):
        self.folder = folder
        self.settings = {"latency_ms": 100.0, "latency_sigma": 0.0, "burst_seconds": 1, "keys": frozenset(KEYS.values()), **settings}
        self.script = script
        self.sent = Counter()
        self.notes = []
        self.elapsed = 0.0

    def run(self, count, *, environ=KEYS, state=None, model=None, **keys):
        (self.folder / "in.jsonl").write_text("".join(json.dumps({"custom_id": f"r{i}", "text": f"row {i}"}) + "\n" for i in range(count)))
        deployment = {
            "provider": "openai", "model": "gpt-6-luna", "base_url": "http://127.0.0.1:9/v1", "api_key_env": list(environ),
            "price": {"input": 1, "output": 2}, "limits": LIMITS, **(model or {}),
        }  # fmt: skip
        spec = build(
            {"name": "t", "input": str(self.folder / "in.jsonl"), "prompt": "{{ text }}", "request": {"max_tokens": 20}, "durability": "normal",
             "models": {"m": deployment}, **keys},
            folder=self.folder,
        )  # fmt: skip

        async def main():
            self.clock = VirtualClock()
            self.sim = Simulator(Settings(**self.settings), started=0.0)
            deps = Deps(
                clock=self.clock,
                environ=environ,
                rng=random.Random(1),
                inline=True,
                listener=lambda event: self.notes.append(event.text) if isinstance(event, Note) else None,
                transports=lambda _name, _model: self,
                state=state,
            )
            return await run_job(spec, deps, RunOptions())

        return run_virtual(main)

    async def send(self, call, *, timeout_seconds):
        key = call.headers["Authorization"].reveal().removeprefix("Bearer ")
        nth = self.sent[key]
        self.sent[key] += 1
        scripted = self.script(key, nth) if self.script is not None else None
        if scripted is not None:
            await asyncio.sleep(0.1)
            return scripted
        return await SimulatedTransport(self.sim, self.clock).send(call, timeout_seconds=timeout_seconds)

    async def close(self):
        """Nothing is open."""

    def sql(self, query):
        with contextlib.closing(sqlite3.connect(self.folder / "t.db")) as connection:
            return connection.execute(query).fetchall()


A, B = KEYS.values()


def test_each_key_has_the_limits_for_itself(tmp_path):
    pool = Pool(tmp_path, rpm=600)
    summary = pool.run(600)
    assert (summary.exit_code, summary.rows.ok, pool.sim.audit.refusals) == (0, 600, 0)
    assert 28 < summary.seconds < 32, "600 requests at two times 600 a minute"
    assert pool.sent[A] == pytest.approx(300, abs=15)
    # One model to whoever looks at results; the ledger names the variable, and nobody the key.
    assert pool.sql("SELECT DISTINCT model FROM results") == [("m",)]
    assert pool.sql("SELECT key_env, count(*) FROM attempts GROUP BY 1") == [("A", pool.sent[A]), ("B", pool.sent[B])]
    assert "account-" not in b"".join(file.read_bytes() for file in tmp_path.iterdir()).decode(errors="replace")


def test_a_slow_job_takes_the_keys_in_turn(tmp_path):
    pool = Pool(tmp_path)
    pool.run(40, concurrency=1)
    assert (pool.sent[A], pool.sent[B]) == (20, 20)


@pytest.mark.parametrize("reply", [bad(401, "invalid_api_key", "wrong"), bad(429, "insufficient_quota", "no money")])
@pytest.mark.parametrize("from_nth", [0, 30])
def test_a_key_that_is_refused_for_good_is_out_and_the_others_go_on(tmp_path, reply, from_nth):
    pool = Pool(tmp_path, script=lambda key, nth: reply if key == A and nth >= from_nth else None)
    summary = pool.run(300)
    assert (summary.exit_code, summary.rows.ok) == (0, 300)
    assert pool.sent[A] < from_nth + 20, "what was in flight when it was refused"
    assert [note for note in pool.notes if "m (A) is out for this run, other keys go on" in note]
    assert pool.sql("SELECT count(*) FROM attempts WHERE outcome = 'ok'") == [(300,)]


def test_no_key_that_answers_stops_the_run(tmp_path):
    pool = Pool(tmp_path, script=lambda _key, _nth: bad(401, "invalid_api_key", "wrong"))
    summary = pool.run(50)
    assert (summary.exit_code, summary.stopped_by, summary.rows.pending) == (4, "provider", 50)
    assert "the key was refused" in summary.message


def test_a_pause_of_one_key_moves_its_rows_to_the_others(tmp_path):
    pool = Pool(tmp_path, script=lambda key, nth: bad(429, "rate_limit_exceeded", "slow down", retry_after="600") if key == A and nth >= 5 else None)
    summary = pool.run(300)
    assert (summary.exit_code, summary.rows.ok) == (0, 300)
    assert summary.seconds < 35, "B alone needs 30 s; nobody waits for A"


def test_one_key_whose_endpoint_is_down_doesnt_stop_the_run(tmp_path):
    gone = Fault(kind=Kind.UNREACHABLE, message="connection refused", billed="no", counts=False)
    pool = Pool(tmp_path, script=lambda key, _nth: gone if key == A else None)
    summary = pool.run(1200, retry={"outage_seconds": 20})
    assert (summary.exit_code, summary.rows.ok) == (0, 1200)
    assert summary.seconds > 60


def test_a_bad_row_fails_once_whatever_the_keys(tmp_path):
    pool = Pool(tmp_path, script=lambda _key, nth: bad(400, "invalid_value", "no") if nth == 3 else None)
    summary = pool.run(20, max_failed=2)
    assert (summary.exit_code, summary.rows.failed) == (0, 2)
    assert pool.sql("SELECT max(attempts) FROM results") == [(1,)]


def test_limits_per_day_are_a_keys_own_over_all_runs(tmp_path):
    limits = {"rpd": 20, "rpm": 6000}
    first = Pool(tmp_path)
    assert first.run(30, model={"limits": limits}).exit_code == 0
    second = Pool(tmp_path)
    summary = second.run(60, model={"limits": limits}, deadline="10s")
    assert (summary.exit_code, summary.stopped_by) == (3, "deadline")
    assert (first.sent[A] + second.sent[A], first.sent[B] + second.sent[B]) == (20, 20)


def test_keys_of_a_pool_have_accounts_of_their_own(tmp_path):
    """Shared with other runs by the key, not by the model."""
    pool = Pool(tmp_path, rpm=600)
    summary = pool.run(300, state=tmp_path / "state")
    assert (summary.exit_code, pool.sim.audit.refusals) == (0, 0)
    assert 13 < summary.seconds < 17


def test_embeddings_go_by_all_keys(tmp_path):
    pool = Pool(tmp_path, rpm=600)
    summary = pool.run(2000, endpoint="embeddings", prompt=None, request={}, model={"model": "text-embedding-3-small"})
    assert (summary.exit_code, summary.rows.ok) == (0, 2000)
    assert min(pool.sent.values()) >= 1


@pytest.mark.parametrize(
    ("environ", "words"),
    [({"A": "key", "B": "key"}, "A and B hold the same key"), ({"A": "key", "B": ""}, "the environment variable B is not set")],
)
def test_keys_that_are_no_pool_are_refused(tmp_path, environ, words):
    with pytest.raises(SpecError, match=words):
        Pool(tmp_path).run(1, environ=environ)


GONE = Fault(kind=Kind.UNREACHABLE, message="connection refused", billed="no", counts=False)


def test_a_key_that_was_down_is_probed_and_used_again(tmp_path):
    pool = Pool(tmp_path, script=lambda key, _nth: GONE if key == A and pool.clock.now() < 20 else None)
    summary = pool.run(1200)
    assert (summary.exit_code, summary.rows.ok) == (0, 1200)
    assert any("m (A) is back" in note for note in pool.notes)
    assert summary.seconds < 100, "B alone needs 120 s"


def test_the_model_is_down_since_the_last_of_its_keys_is(tmp_path):
    pool = Pool(tmp_path, script=lambda key, _nth: GONE if key == A or pool.clock.now() > 30 else None)
    summary = pool.run(1200, retry={"outage_seconds": 60})
    assert (summary.exit_code, summary.stopped_by) == (4, "outage")
    assert 88 < summary.seconds < 100


@pytest.mark.parametrize("status", [429, 503])
def test_a_key_that_is_told_to_wait_does_not_hold_up_what_a_limit_group_has_in_common(tmp_path, status):
    pool = Pool(tmp_path, script=lambda key, nth: bad(status, None, "slow", retry_after="600") if key == KEYS["A"] else None)
    summary = pool.run(200, limit_groups={"account": {"models": ["m"], "usd_per_day": 5}})
    assert (summary.exit_code, summary.rows.ok) == (0, 200)
    assert summary.seconds < 25
