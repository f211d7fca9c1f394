"""Real prompts (see `real_data` in tests/conftest.py): GSM8K under faults, limits and kills, and MT-bench with its nested turns."""

from __future__ import annotations

import json
import random
from pathlib import Path

from story_world import World, simulator, until


def test_100_questions_of_gsm8k_under_faults_and_kills(world: World, real_data: Path) -> None:
    provider = simulator(world, latency_ms=40, faults=0.05, rpm=6000, tpm=800_000, burst_seconds=1)
    lines = (real_data / "gsm8k_test.jsonl").read_text().splitlines()[:100]
    world.write("rows.jsonl", "\n".join(lines))
    job = world.job(
        provider.url,
        prompt={"system": "Solve the problem. End with the number.", "user": "{{ question }}"},
        request={"max_tokens": 60},
        model={"limits": {"rpm": 6000, "tpm": 800_000, "concurrency": 6}},
        retry={"timeout_seconds": 2, "initial_seconds": 0.1, "max_seconds": 1},
        output={"keep": ["answer"]},
        budget={"usd": 1},
    )
    rng = random.Random(8)
    for _ in range(4):
        before = provider.requests
        run = world.start("run", job)
        until(lambda run=run, before=before: not run.running or provider.requests >= before + rng.randint(1, 20), what="some requests")
        run.kill()
    ended = world.run("run", job, "--json").expect(0)
    assert ended.summary["rows"] == {"total": 100, "ok": 100, "failed": 0, "pending": 0}
    results = world.results()
    assert [line["row"] for line in results] == list(range(100))
    assert [line["input"]["answer"] for line in results] == [json.loads(line)["answer"] for line in lines]
    assert all(line["output"] for line in results)
    totals = provider.totals()
    assert totals["sent_max"] == 1
    assert totals["cost_usd"] <= ended.summary["cost_usd"] + ended.summary["reserved_usd"] <= 1


def test_mt_bench_rows_of_one_category_by_a_stronger_model(world: World, real_data: Path) -> None:
    world.write("mt_bench.jsonl", (real_data / "mt_bench_question.jsonl").read_bytes())
    spec = {
        "input": "mt_bench.jsonl",
        "id": "question_id",
        "prompt": "{{ turns[0] }}",
        "request": {"max_tokens": 40},
        "models": {name: {"provider": "simulated", "model": f"sim-{name}", "simulator": {"latency_ms": 1}} for name in ("small", "large")},
        "routes": [{"when": "category == 'math' or category == 'coding'", "use": "large"}, {"use": "small"}],
        "output": {"keep": ["category"]},
    }
    job = world.write("job.yaml", json.dumps(spec))
    ended = world.run("run", job, "--json").expect(0)
    assert ended.summary["rows"]["ok"] == 80
    results = world.results()
    assert [line["custom_id"] for line in results] == [str(n) for n in range(81, 161)]
    assert {(line["input"]["category"] in {"math", "coding"}, line["model"]) for line in results} == {(True, "large"), (False, "small")}
    # A later run notices another prompt, and re-runs nothing by itself.
    world.write("job.yaml", json.dumps({**spec, "prompt": "{{ turns[1] }}"}))
    refused = world.run("run", job).expect(2)
    assert "80 changed" in refused.err
    assert "--on-change" in refused.err
    kept = world.run("run", job, "--on-change", "keep", "--json").expect(0)
    assert kept.summary["attempts"] == 80
