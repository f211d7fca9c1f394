"""`kill -9` at any moment: the results are those of an undisturbed run, nothing that was answered is asked again, and the cap holds (guarantees 1, 2, 3)."""

from __future__ import annotations

import random
import time
from datetime import datetime

from story_world import SimulatorProcess, World, simulator, steady

KILLS = 25
ROWS = 300


def kill_at_random(world: World, job: object, provider: SimulatorProcess, *, kills: int, seed: int, flags: tuple[str, ...] = ()) -> None:
    """Starts the run `kills` times; kills it while it starts (one in five) or a moment after it has begun to send."""
    rng = random.Random(seed)
    for n in range(kills):
        before = provider.requests
        run = world.start("run", str(job), *flags)
        if n % 5 == 4:
            time.sleep(rng.uniform(0.0, 0.45))
        else:
            while run.running and provider.requests == before:
                time.sleep(0.004)
            time.sleep(rng.uniform(0.0, 0.06))
        assert run.running, f"the run was over before kill {n + 1}: {run.end()}"
        run.kill()


def test_25_kills_change_no_result_and_repeat_nothing_that_was_answered(world: World) -> None:
    provider = simulator(world, latency_ms=30)
    world.rows(ROWS)
    # A compatible server is told the attempt's name as OpenAI is, or nobody could match its log with the store.
    job = world.job(provider.url, model={"provider": "openai-compatible", "limits": {"concurrency": 4}, "price": {"input": 1, "output": 2}})
    world.run("run", world.job(None, name="calm", store="calm.db", results="calm.results.jsonl")).expect(0)

    kill_at_random(world, job, provider, kills=KILLS, seed=25)
    ended = world.run("run", job, "--json").expect(0)

    assert ended.summary["rows"] == {"total": ROWS, "ok": ROWS, "failed": 0, "pending": 0}
    assert steady(world.results()) == steady(world.results("calm"))
    job_id = world.ask("SELECT job_id FROM job")[0][0]
    finished = {key: datetime.fromisoformat(at).timestamp() for key, at in world.ask("SELECT row_key, finished_at FROM results")}
    attempts = {
        f"{job_id}.{key}.{nth}": (outcome, billed)
        for key, nth, outcome, billed in world.ask("SELECT row_key, attempt, outcome, billed FROM attempts")
    }
    audit = provider.audit()
    names = [record["client_request_id"] for record in audit]
    assert len(set(names)) == len(names)
    # Times in the store are cut to milliseconds.
    late = [record for record in audit if record["time"] > finished[int(record["client_request_id"].split(".")[1])] + 0.001]
    assert late == []
    # One request for each row, and the others were in flight at a kill: listed as possibly billed.
    repeated = [attempts[name] for name in names if attempts[name] != ("ok", "yes")]
    assert len(names) == ROWS + len(repeated)
    assert set(repeated) <= {("cancelled", "maybe")}
    assert len(repeated) >= KILLS / 2, "the kills hit nothing in flight, so this test shows nothing"
    assert ended.summary["reserved_usd"] > 0
    status = world.run("status", job, "--json").expect(0).summary
    assert status["state"] == "finished"
    assert status["possibly_billed"]["attempts"] >= len(repeated)
    assert status["possibly_billed"]["usd_max"] == ended.summary["reserved_usd"]

    before = provider.requests
    world.run("run", job).expect(0)
    assert provider.requests == before


def test_the_cap_holds_over_kills_and_a_larger_one_goes_on(world: World) -> None:
    provider = simulator(world, latency_ms=30)
    world.rows(120)
    # About 20 + 30 tokens a row at the simulator's own prices (those of the book for this model).
    job = world.job(provider.url, model={"limits": {"concurrency": 4}, "price": {"input": 1, "output": 4}}, budget={"usd": 0.009})
    kill_at_random(world, job, provider, kills=6, seed=6)
    ended = world.run("run", job, "--json").expect(3)
    assert ended.summary["stopped_by"] == "budget"
    assert 0 < ended.summary["rows"]["ok"] < 120
    assert ended.summary["cost_usd"] + ended.summary["reserved_usd"] <= 0.009
    assert "--budget" in ended.err
    bill = sum(record["input_tokens"] * 1e-6 + record["output_tokens"] * 4e-6 for record in provider.audit() if record["billed"])
    assert 0 < bill <= 0.009
    # The same cap again sends nothing more.
    before = provider.requests
    world.run("run", job).expect(3)
    assert provider.requests == before

    done = world.run("run", job, "--budget", "5", "--json").expect(0)
    assert done.summary["rows"]["ok"] == 120
    assert [line["row"] for line in world.results()] == list(range(120))
