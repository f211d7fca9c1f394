"""Two real processes on one key: together they use the quota up, without a refusal, and a killed one's part comes back within seconds."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from story_world import Process, SimulatorProcess, World, simulator, until

RPM = 1200
_KEY = "key-of-this-test"


@pytest.fixture
def provider(world: World) -> SimulatorProcess:
    """A strict one of this test's own."""
    return simulator(world, rpm=RPM, burst_seconds=1, key=_KEY, latency_ms=40)


def job(world: World, provider: SimulatorProcess, name: str, rows: int) -> str:
    """A job of its own rows, with the limit of the account declared."""
    world.rows(rows, name=f"{name}.jsonl")
    model = {"api_key_env": "KEY", "limits": {"rpm": RPM, "burst_seconds": 1}}
    return str(world.job(provider.url, name=name, model=model, input=f"{name}.jsonl"))


def start(world: World, path: str) -> Process:
    return world.start("run", path, "--no-progress", "--json", env={"KEY": _KEY})


def jobs(world: World) -> list[dict[str, Any]]:
    return json.loads(world.run("jobs", "--json").expect(0).out)["jobs"]


def per_minute(provider: SimulatorProcess, begin: float, end: float) -> float:
    """Requests that came in between two moments."""
    return sum(begin <= record["time"] < end for record in provider.audit()) / (end - begin) * 60


def test_two_runs_on_one_key_and_the_death_of_one(world: World, provider: SimulatorProcess) -> None:
    first, second = (start(world, job(world, provider, name, 400)) for name in ("first", "second"))
    until(lambda: provider.requests >= 40, what="both to be on their way")
    began = time.time()
    listed = jobs(world)
    assert {(one["job"], one["pid"], one["state"]) for one in listed} == {("first", first.pid, "running"), ("second", second.pid, "running")}
    assert len({one["accounts"][0]["account"] for one in listed}) == 1
    assert _KEY not in json.dumps(listed)
    until(lambda: provider.requests >= 100, what="a few seconds of both")
    killed = time.time()
    first.kill()
    assert [one["job"] for one in jobs(world)] == ["second"]
    until(lambda: time.time() > killed + 1.5, what="the next word of the one that is left")
    mark = provider.requests
    until(lambda: provider.requests >= mark + 50, what="the whole limit in one hand")
    ended = time.time()
    second.kill()
    assert per_minute(provider, began, killed) >= 0.9 * RPM
    assert per_minute(provider, killed + 1.5, ended) >= 0.9 * RPM, "it has the part of the dead"
    assert provider.totals()["refusals"] <= 1
    assert jobs(world) == []


def test_jobs_says_who_runs(world: World) -> None:
    assert world.run("jobs").expect(0).err == "no job is running\n"
    world.rows(2000)
    run = world.start("run", world.job(None, model={"simulator": {"latency_ms": 200}, "limits": {"concurrency": 4}}), "--no-progress")
    until(lambda: jobs(world), what="the run")
    (one,) = jobs(world)
    assert (one["job"], one["pid"], one["simulated"], one["accounts"]) == ("job", run.pid, True, [])
    assert one["store"] == str(world.folder / "job.db")
    said = world.run("jobs").expect(0)
    assert "simulated" in said.err
    assert said.out == ""
    run.kill()
    assert jobs(world) == []
