"""Guarantees 1 and 2: a run that dies - at any instant, between any two commits - is gone on with, and nobody could tell from the results.

A death is played by copying the store as it is at that instant (the file and its unfolded WAL) and going on with the copy; the provider lives on.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from world import World

DIFFERS = ("attempts", "latency_seconds", "cost_usd")
# Faults that a retry heals however often they come: with others, how a row ends may depend on which tries a death took away.
HEALING = ("502", "503_retry_after", "429_retry_after_ms", "409", "refuse", "reset", "reset_mid", "short_body", "gzip")
SIM = {"fault_kinds": HEALING, "latency_ms": 400.0, "latency_sigma": 0.6, "faults": 0.15, "rpm": 6000, "burst_seconds": 1}
LISTED = [
    {"custom_id": f"r{i}" if i != 70 else "r3", "text": "[[sim:invalid_request]]" if i % 40 == 9 else f"row {i} says hello"} for i in range(200)
]
KEYS = {"sims": {"m": SIM}, "concurrency": 12, "retry": {"timeout_seconds": 10, "max_attempts": 20}}


def alike(results):
    """What must be equal between an uninterrupted run and any other. (Each life has a folder of its own, so the input's name differs by its folder.)"""
    lines = [{name: value for name, value in line.items() if name not in DIFFERS} for line in results]
    for line in lines:
        if line["error"] is not None:
            line["error"]["message"] = re.sub(r"\S*in\.jsonl:", "in.jsonl:", line["error"]["message"])
    return lines


class _Dies:
    """Runs a world and takes an image of its folder at chosen moments; the first image is what the next life starts from."""

    def __init__(self, world: World, to: Path) -> None:
        self.world = world
        self.to = to

    async def at(self, seconds: float) -> bool:
        """Whether the run was cut at this time (False: it was over before)."""
        task = asyncio.ensure_future(self.world.go())
        await asyncio.wait([task], timeout=seconds)
        if task.done():
            task.result()
            return False
        self.world.image(self.to)
        await self._end(task)
        return True

    async def after_commits(self, count: int) -> bool:
        """Cut right after the commit of this many results, inside the commit's own callback."""
        left = count

        def count_down(results: list[object]) -> None:
            nonlocal left
            left -= len(results)
            if left <= 0 and not self.to.exists():
                self.world.image(self.to)

        task = asyncio.ensure_future(self.world.go(on_result=count_down))
        while not task.done() and not self.to.exists():  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
        if self.to.exists():
            await self._end(task)
            return True
        task.result()
        return False

    @staticmethod
    async def _end(task: asyncio.Task[object]) -> None:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("seed", range(6))
def test_results_after_many_deaths_equal_those_of_one_life(tmp_path, seed):
    rng = random.Random(seed)
    (tmp_path / "0").mkdir()
    (tmp_path / "calm").mkdir()
    w = World(tmp_path / "0", LISTED, **KEYS)
    deaths: list[tuple[set[str], set[int]]] = []  # what had arrived, and which rows were committed
    for life in range(1, 60):
        ends = _Dies(w, tmp_path / str(life))
        at, commits = rng.uniform(0, 1.2), rng.randrange(1, 15)
        if not w.play(lambda ends=ends, at=at, commits=commits: ends.at(at) if seed % 2 else ends.after_commits(commits)):
            break
        w.folder = tmp_path / str(life)
        deaths.append(({record.request_id for record in w.records()}, {key for (key,) in w.sql("SELECT row_key FROM outcomes")}))
    assert len(deaths) >= 5

    whole = World(tmp_path / "calm", LISTED, **{**KEYS, "input": str(tmp_path / "0" / "in.jsonl")})
    assert whole.run().exit_code == 1  # some rows fail for good
    assert len(whole.results()) == 200
    assert alike(w.results()) == alike(whole.results())

    # No row was sent again after its outcome was committed.
    for arrived, committed in deaths:
        later = [record.client_request_id for record in w.records() if record.request_id not in arrived]
        assert not committed & {int(name.split(".")[1]) for name in later}
    # Whatever reached the provider is in the ledger under its own name, once; what it billed and we never saw is listed as possibly billed.
    ((job_id,),) = w.sql("SELECT job_id FROM job")
    ledger = {f"{job_id}.{key}.{attempt}": billed for key, attempt, billed in w.sql("SELECT row_key, attempt, billed FROM attempt_log")}
    names = Counter(record.client_request_id for record in w.records())
    assert set(names) <= set(ledger)
    assert max(names.values()) == 1
    assert {ledger[record.client_request_id] for record in w.records() if record.billed and not record.delivered} <= {"maybe"}
    bill = sum(record.cost_pico or 0 for record in w.records())
    ((spent, reserved),) = w.sql("SELECT sum(cost_pico), coalesce(sum(CASE WHEN billed = 'maybe' THEN reserved_pico END), 0) FROM attempt_log")
    assert spent <= bill <= spent + reserved


@pytest.mark.parametrize("seed", range(4))
def test_the_cap_holds_over_deaths(tmp_path, seed):
    rng = random.Random(seed)
    folder = tmp_path / "0"
    folder.mkdir()
    w = World(folder, 400, sims={"m": SIM}, concurrency=12, budget={"usd": 0.004}, retry={"timeout_seconds": 10})
    for life in range(1, 60):
        ends, at = _Dies(w, tmp_path / str(life)), rng.uniform(0, 1.0)
        cut = w.play(lambda ends=ends, at=at: ends.at(at))
        assert w.sims["m"].audit.cost_pico <= 4 * 10**9
        if not cut:
            break
        w.folder = tmp_path / str(life)
    last = w.run()
    assert (last.exit_code, last.stopped_by) == (3, "budget")
    assert w.sims["m"].audit.cost_pico <= 4 * 10**9
    done = w.run(budget={"usd": 1})
    assert (done.exit_code, done.rows.ok) == (0, 400)


def test_attempts_cut_by_a_death_use_up_no_tries_and_keep_their_reservation(tmp_path):
    folder = tmp_path / "0"
    folder.mkdir()
    w = World(folder, 8, sims={"m": {"latency_ms": 5000.0}}, retry={"max_attempts": 1})
    for life in range(1, 4):
        ends = _Dies(w, tmp_path / str(life))
        assert w.play(lambda ends=ends: ends.at(1.0))
        w.folder = tmp_path / str(life)
    summary = w.run()
    assert (summary.exit_code, summary.attempts) == (0, 32)
    assert w.sql("SELECT count(*), sum(counted) FROM attempt_log WHERE outcome = 'cancelled' AND billed = 'maybe'") == [(24, 0)]
    assert summary.reserved_usd > 0
    assert {line["attempts"] for line in w.results()} == {4}


def test_a_cancelled_run_leaves_the_store_resumable(tmp_path):
    """`run_async` cancelled by its program: not a death, the store is closed and says what may have been billed."""
    w = World(tmp_path, 50, sims={"m": {"latency_ms": 1000.0}}, concurrency=10)

    async def cut() -> None:
        task = asyncio.ensure_future(w.go())
        await asyncio.wait([task], timeout=2.5)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    w.play(cut)
    assert w.sql("SELECT outcome, billed, count(*) FROM attempt_log GROUP BY 1, 2") == [("cancelled", "maybe", 10), ("ok", "yes", 20)]
    assert (w.run().exit_code, w.sims["m"].audit.executed) == (0, 60)


def test_a_death_in_the_middle_of_the_intake(tmp_path):
    """The store knows a part of the input only; the next life takes the rest in as new and repeats stay repeats."""
    folder = tmp_path / "0"
    folder.mkdir()
    listed = [{"text": f"text {i % 700}"} for i in range(5000)]
    w = World(folder, listed, concurrency=64)
    assert w.play(lambda: _Dies(w, tmp_path / "1").at(0.5))
    w.folder = tmp_path / "1"
    ((known, total),) = w.sql("SELECT (SELECT count(*) FROM rows), (SELECT total_rows FROM job)")
    assert 0 < known < 5000
    assert total is None
    summary = w.run()
    assert (summary.exit_code, summary.rows.total) == (0, 5000)
    assert [line["custom_id"] for line in w.results()] == [str(i) for i in range(5000)]
    assert w.sql("SELECT max(nth), count(*) FROM rows") == [(8, 5000)]
