"""What trying again took: attempts per answer, waits, time and money of attempts that came to nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from world import Scripted, World, WorldClock, bad, good

from batchllm.engine import Summary
from batchllm.report.state import JobState, read_state
from batchllm.report.status import state_lines
from batchllm.store.read import StoreReader

EMPTY = [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}]


def test_trouble_is_told(tmp_path: Path) -> None:
    def answer(nth: int, _text: str, _now: float) -> tuple[float, object]:
        return {0: (3.0, bad(500)), 1: (1.0, good(choices=EMPTY))}.get(nth, (2.0, good()))

    world = World(tmp_path, 3, scripts={"m": Scripted(answer)}, models={"m": {"limits": {"concurrency": 1}}})
    told = world.run().telemetry
    assert told["attempts_per_answer"] == 2.0
    assert (told["failed_attempts"], told["failed_seconds"], told["busy_seconds"]) == (2, 4.0, 8.0)
    assert sum(one["attempts"] for one in told["errors"].values()) == 2
    # 10 tokens in at $1 and 5 out at $2 a million, for an answer that was empty.
    assert told["failed_usd"] == pytest.approx(20e-6)
    assert told["waits"] == 1
    assert 0 < told["longest_wait_seconds"] == told["wait_seconds"]
    with StoreReader(tmp_path / "t.db") as reader:
        state = read_state(reader, results=None, now_utc=2e9)
    assert state.as_dict()["telemetry"] == told
    lines = "\n".join(state_lines(state, job="t.yaml"))
    assert "2 requests per answer, 2 of 4 failed" in lines


def test_no_trouble_is_not_told(tmp_path: Path) -> None:
    world = World(tmp_path, 3)
    told = world.run().telemetry
    assert (told["attempts_per_answer"], told["failed_attempts"], told["failed_usd"], told["waits"], told["errors"]) == (1.0, 0, 0.0, 0, {})
    with StoreReader(tmp_path / "t.db") as reader:
        assert "requests per answer" not in "\n".join(state_lines(read_state(reader, results=None, now_utc=2e9), job="t.yaml"))


def test_another_terminal_tells_the_time_left_by_rows_too(tmp_path: Path) -> None:
    """Each row is asked four times, so by requests it would be a quarter."""
    world = World(tmp_path, 600, sims={"m": {"latency_ms": 50.0}}, models={"m": {"limits": {"rpm": 600, "burst_seconds": 1}}}, samples=4)
    seen: list[JobState] = []

    async def looked_at() -> Summary:
        run = asyncio.ensure_future(world.go())
        await asyncio.sleep(120)
        with StoreReader(tmp_path / "t.db") as reader:
            seen.append(read_state(reader, results=None, now_utc=WorldClock(world.elapsed).utc()))
        return await run

    summary = world.play(looked_at)
    assert seen[0].state == "running"
    assert seen[0].eta_seconds == pytest.approx(summary.seconds - 120, rel=0.1)
    assert seen[0].requests_per_minute == pytest.approx(600, rel=0.05)
