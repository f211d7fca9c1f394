"""Plan: what it counts, and that its forecast of time and cost holds against the run itself, in virtual time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from world import World, rows

from batchllm.core.errors import SpecError
from batchllm.engine import RunOptions, plan_count, plan_play
from batchllm.engine import plan as plans
from batchllm.engine.plan import Plan, plan_job
from batchllm.engine.plan_drift import check_drift, read_plan
from batchllm.engine.plan_live import read_live
from batchllm.report.plan import as_dict, plan_lines
from batchllm.spec import build
from batchllm.store.read import StoreReader

UTC = 1_795_219_200.0


def planned(world: World, options: RunOptions | None = None, **keys: object) -> Plan:
    return plan_job(build({**world.keys, **keys}, folder=world.folder), {}, options or RunOptions(), utc=UTC)


def texts(count: int) -> list[dict[str, object]]:
    """Rows of very different lengths."""
    return [{"custom_id": f"r{i}", "text": f"{i} " + "word " * (3 + (i * 7919) % 60), "lang": "fr" if i % 3 == 0 else "en"} for i in range(count)]


JOBS: dict[str, dict[str, object]] = {
    "requests per minute": {"models": {"m": {"limits": {"rpm": 600}, "simulator": {"latency_ms": 400}}}},
    "tokens per minute": {
        "models": {"m": {"limits": {"rpm": 100_000, "tpm": 30_000}, "simulator": {"latency_ms": 900}}},
        "request": {"max_tokens": 100},
    },
    "concurrency": {"models": {"m": {"limits": {"concurrency": 8}, "simulator": {"latency_ms": 700}}}},
    "two models, input and output apart": {
        "models": {
            "m": {"limits": {"rpm": 900}, "simulator": {"latency_ms": 300}},
            "big": {
                "limits": {"rpm": 500, "itpm": 20_000, "otpm": 6_000},
                "price": {"input": 3, "output": 15},
                "simulator": {"latency_ms": 2000, "accounting": "anthropic"},
            },
        },
        "routes": [{"when": "lang == 'fr'", "use": ["big", "m"]}, {"use": ["m"]}],
    },
    "weights": {
        "models": {
            "m": {"limits": {"rpm": 400}, "simulator": {"latency_ms": 300}},
            "n": {"limits": {"tpm": 20_000}, "price": {"input": 2, "output": 8}, "simulator": {"latency_ms": 800}},
        },
        "routes": [{"use": {"m": 60, "n": 40}}],
    },
    "embeddings in packs": {
        "endpoint": "embeddings",
        "prompt": {"user": "{{ text }}"},
        "request": {},
        "models": {"m": {"limits": {"tpm": 60_000, "rpm": 600}, "simulator": {"latency_ms": 300}}},
    },
    "a cap that only a few rows fit under at once": {
        "models": {"m": {"limits": {"rpm": 6000}, "simulator": {"latency_ms": 3000}}},
        "request": {"max_tokens": 4000},
        "budget": {"usd": 0.3},
    },
}


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("part", [False, True], ids=["whole", "sampled"])
def test_the_forecast_holds(tmp_path: Path, name: str, part: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    job, count = JOBS[name], 2000 if part else 1000
    models = job["models"]
    sims = {model: {"latency_ms": keys["simulator"]["latency_ms"], "latency_sigma": 0.3} for model, keys in models.items()}
    world = World(tmp_path, texts(count), sims=sims, **job)
    if part:
        monkeypatch.setattr(plan_count, "WHOLE", 100)
        monkeypatch.setattr(plan_count, "KEPT", 40)
        monkeypatch.setattr(plan_play, "LEAST_PLAYED", 800)
        monkeypatch.setattr(plan_play, "_ROUNDS", 0)
    plan = planned(world)
    assert (plan.played < plan.requests) is (part and "endpoint" not in job)
    assert (plan.counted < count) is part
    summary = world.run()
    assert summary.exit_code == 0
    told = as_dict(plan)
    assert told["cost_usd"]["expected"] == pytest.approx(summary.cost_usd, rel=0.05 if part else 1e-6)
    assert told["seconds"] == pytest.approx(summary.seconds, rel=0.05)
    assert told["tokens"]["input"] == pytest.approx(summary.tokens.input, rel=0.05 if part else 1e-6)
    assert told["cost_usd"]["worst"] >= summary.cost_usd


def test_what_the_reading_finds(tmp_path: Path) -> None:
    lines: list[object] = [
        *rows(10),
        {"custom_id": "again", "text": "row 3 says hello"},
        {"custom_id": "r1", "text": "a used id"},
        "no json",
        {"custom_id": "none", "text": None},
        {"custom_id": "bare"},
    ]
    world = World(tmp_path, lines, models={"m": {"limits": {"rpm": 600}}})
    told = as_dict(planned(world))
    assert (told["rows"], told["duplicates"], told["shared"], told["bad_rows"], told["nulls"]) == (15, 1, 0, 3, 1)
    assert told["errors"] == {"duplicate_id": 1, "bad_row": 1, "template": 1}
    assert told["requests"] == told["models"]["m"]["rows"] == 12
    assert set(told) >= {"rows", "duplicates", "bad_rows", "tokens", "cost_usd", "seconds", "limited_by", "models"}
    assert set(told["models"]["m"]) >= {"rows", "tokens", "cost_usd"}
    shared = as_dict(planned(world, request={"max_tokens": 20, "temperature": 0}))
    assert (shared["duplicates"], shared["shared"], shared["requests"]) == (1, 1, 11)
    assert world.run(request={"max_tokens": 20, "temperature": 0}).attempts == 11
    assert as_dict(planned(world, RunOptions(limit=4)))["rows"] == 4
    assert as_dict(planned(world, RunOptions(sample_count=5)))["rows"] == 5
    assert as_dict(planned(world, RunOptions(sample_count=3, limit=4)))["rows"] == 3


def test_repeats_are_counted_beyond_the_first_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_count, "_SEEN_AT_ONCE", 3)
    repeats = plan_count.Repeats()
    assert [repeats.add(value) for value in (1, 2, 3, 1, 70, 70, 4, 3)] == [False, False, False, True, False, False, False, True]
    assert repeats.count() == 3


def test_a_cap_that_stops_the_job(tmp_path: Path) -> None:
    world = World(tmp_path, texts(600), budget={"usd": 0.02}, models={"m": {"limits": {"rpm": 1200}, "simulator": {"latency_ms": 100}}})
    plan = planned(world)
    summary = world.run()
    assert (summary.exit_code, plan.stopped_by) == (3, "budget")
    assert plan.stopped_at == pytest.approx(summary.rows.ok, rel=0.05)
    assert any("stops by the budget" in line for line in plan_lines(plan, job="t.yaml"))


def test_limits_of_a_day_count_requests(tmp_path: Path) -> None:
    world = World(tmp_path, texts(300), samples=2, request={"temperature": 1}, models={"m": {"limits": {"rpm": 6000, "rpd": 200}}})
    # 600 requests: a day's worth at once, the other 400 at the day's rate.
    assert (planned(world).limited_by, planned(world).seconds) == ("rpd", pytest.approx(2 * 86_400))
    packs = planned(world, endpoint="embeddings", samples=None, request={}, prompt={"user": "{{ text }}"})
    assert (packs.requests, packs.limited_by) == (3, "latency")


def test_no_machine_is_as_fast_as_virtual_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, 3000, models={"m": {"limits": {"concurrency": 1000}, "simulator": {"latency_ms": 1}}})
    monkeypatch.setattr(plan_play, "LEAST_PLAYED", 1600)
    monkeypatch.setattr(plan_play, "_ROUNDS", 0)
    plan = planned(world)
    assert plan.seconds == pytest.approx(3000 / plan_play.MOST_PER_SECOND)
    assert any("this computer is the limit" in note for note in plan.notes)


def test_days_and_deadlines(tmp_path: Path) -> None:
    world = World(tmp_path, texts(600), models={"m": {"limits": {"rpm": 6000, "rpd": 200}}})
    # A day's worth at once, the other 400 at the day's rate.
    assert (planned(world).limited_by, planned(world).seconds) == ("rpd", pytest.approx(2 * 86_400))
    slow = planned(world, models={"m": {**world.keys["models"]["m"], "limits": {"rpm": 1}}})
    assert (slow.played < 600, slow.limited_by, slow.seconds) == (True, "rpm", pytest.approx(36_000, rel=0.02))
    late = planned(world, deadline="8h")
    assert (late.stopped_by, late.seconds) == ("deadline", 8 * 3600)


REAL = {
    "mini": {"provider": "openai", "model": "gpt-6-luna", "price": None, "limits": {"rpm": 600}},
    "local": {
        "provider": "openai-compatible",
        "model": "x",
        "base_url": "http://127.0.0.1:1/v1",
        "api_key_env": "MY_KEY",
        "price": {"input": 1, "output": 1},
    },
}


def test_no_key_and_no_network_and_what_is_assumed(tmp_path: Path) -> None:
    world = World(tmp_path, texts(40), models=REAL, routes=[{"use": ["mini", "local"]}])
    plan = planned(world, request={"max_tokens": 1000})
    told = as_dict(plan)
    assert told["models"]["mini"]["mean_output_tokens"] == 256
    assert told["models"]["mini"]["output_basis"] == "assumed"
    assert told["tokens"]["output_worst"] == 40_000
    # A fallback's host gets prompts, too, sooner or later.
    assert told["hosts"] == [
        {"base_url": "https://api.openai.com/v1", "models": ["mini"], "key": "OPENAI_API_KEY"},
        {"base_url": "http://127.0.0.1:1/v1", "models": ["local"], "key": "MY_KEY"},
    ]
    assert (told["models"]["local"]["rows"], told["models"]["local"]["mean_output_tokens"]) == (0, None)
    assert {saving["by"] for saving in told["savings"]} >= {"batch"}
    assert any("assumed to have 256 tokens" in note for note in told["notes"])
    assert not list(tmp_path.glob("*.db"))
    second = planned(world, routes=[{"use": ["local"]}])
    assert as_dict(second)["hosts"][0]["key"] == "MY_KEY"
    with pytest.raises(SpecError, match="the price of 'x' is not known"):
        planned(world, budget={"usd": 1}, models={"local": {**REAL["local"], "price": None}}, routes=[{"use": ["local"]}])


def test_answers_in_the_store_replace_the_guess(tmp_path: Path) -> None:
    from world import Scripted, good

    world = World(
        tmp_path,
        30,
        scripts={"m": Scripted(lambda nth, _text, _now: (2.0, good("x", usage=(20, 11))))},
        models={"m": {**REAL["local"], "limits": {"concurrency": 10}}},
    )
    world.keys["models"]["m"]["api_key_env"] = "none"
    world.run(RunOptions(limit=10))
    told = as_dict(planned(world))
    assert told["models"]["m"]["mean_output_tokens"] == 11
    assert told["models"]["m"]["output_basis"] == "learnt"
    assert told["stored"]["ok"] == 10
    # 20 rows are left, 10 at once, 2 s each.
    assert told["seconds"] == pytest.approx(4.0, rel=0.3)


def test_a_job_that_is_half_done_is_planned_for_its_other_half(tmp_path: Path) -> None:
    world = World(tmp_path, texts(600), models={"m": {"limits": {"rpm": 1200}}}, budget={"usd": 0.05})
    first = world.run(RunOptions(limit=350))
    plan = planned(world)
    told = as_dict(plan)
    assert (told["rows"], told["done"], told["requests"]) == (600, {"ok": 350, "failed": 0}, 250)
    second = world.run()
    assert told["cost_usd"]["expected"] == pytest.approx(second.cost_usd - first.cost_usd, rel=1e-6)
    assert told["seconds"] == pytest.approx(second.seconds, rel=0.05)
    # What was spent is no longer there to be spent.
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({**row, "custom_id": f"{row['custom_id']}b"}) + "\n" for row in texts(2000)))
    more = planned(world)
    assert more.stopped_by == "budget"
    third = world.run()
    assert third.exit_code == 3
    assert more.stopped_at == pytest.approx(third.rows.ok, rel=0.05)


def test_what_stands_and_what_is_asked_again(tmp_path: Path) -> None:
    world = World(tmp_path, 10, models={"m": {}})
    assert world.run().rows.ok == 10
    assert as_dict(planned(world))["requests"] == 0
    assert as_dict(planned(world))["models"]["m"]["cost_usd"] == {"expected": 0.0, "worst": 0.0}
    hotter = {"max_tokens": 20, "temperature": 1}
    for word, requests in (("ask", 10), ("rerun", 10), ("keep", 0)):
        told = as_dict(planned(world, request=hotter, on_change=word))
        assert told["requests"] == requests
        assert any("ask something else now" in note for note in told["notes"]) is bool(requests)


def test_failed_rows_stay_unless_they_are_to_be_tried_again(tmp_path: Path) -> None:
    lines = [*rows(4), {"custom_id": "bad", "text": "[[sim:400]]"}]
    world = World(tmp_path, lines, models={"m": {}})
    assert world.run().rows.failed == 1
    assert as_dict(planned(world))["done"] == {"ok": 4, "failed": 1}
    assert planned(world, RunOptions(retry_failed=frozenset())).requests == 1
    assert planned(world, RunOptions(retry_failed=frozenset({"timeout"}))).requests == 0


def test_live_rows_give_intervals(tmp_path: Path) -> None:
    world = World(tmp_path, texts(400), models={"m": {"limits": {"rpm": 1200}}})
    world.run(RunOptions(sample_count=60))
    with StoreReader(tmp_path / "t.db") as reader:
        live = read_live(reader)
    plan = plan_job(build(world.keys, folder=tmp_path), {}, RunOptions(), utc=UTC, live=live)
    told = as_dict(plan)["live"]
    summary = world.run()
    assert told["rows"] == told["ok"] == 60
    assert told["cost_usd"][0] < summary.cost_usd < told["cost_usd"][1]
    assert told["valid"][0] > 0.9
    assert told["seconds"][0] <= plan.seconds <= told["seconds"][1] * 1.05
    assert any("95 %" in line for line in plan_lines(plan, job="t.yaml"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"models": {"m": {"provider": "simulated", "model": "m", "price": {"input": 1, "output": 2.1}}}}, None),
        ({"models": {"m": {"provider": "simulated", "model": "m", "price": {"input": 1, "output": 2.5}}}}, "output tokens of m cost"),
        ({"models": {"m": {"provider": "simulated", "model": "other"}}}, "models.m is 'other' now"),
        ({"name": "u"}, "another job"),
        ({"input": "more.jsonl"}, "the input has 60 rows, the plan 40"),
    ],
)
def test_a_run_is_held_to_its_plan(tmp_path: Path, change: dict[str, object], words: str | None) -> None:
    world = World(tmp_path, texts(40))
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts(60)))
    (tmp_path / "plan.json").write_text(json.dumps(as_dict(planned(world))))
    saved = read_plan(tmp_path / "plan.json")
    spec = build({**world.keys, **change}, folder=tmp_path)

    def check() -> None:
        check_drift(saved, "plan.json", spec, {}, RunOptions(), bound=0.1, utc=UTC)

    if words is None:
        check()
        return
    with pytest.raises(SpecError, match=words):
        check()


def test_longer_answers_are_drift(tmp_path: Path) -> None:
    world = World(tmp_path, texts(40))
    saved = as_dict(planned(world))
    world.run(request={"max_tokens": 200})
    with pytest.raises(SpecError, match="the answers of m have .* in the plan"):
        check_drift(saved, "plan.json", build(world.keys, folder=tmp_path), {}, RunOptions(), bound=0.1, utc=UTC)


def test_a_plan_only_reads_the_store(tmp_path: Path) -> None:
    world = World(tmp_path, 20)
    world.run(RunOptions(limit=5))
    before = (tmp_path / "t.db").read_bytes()
    assert plans.plan_job(build(world.keys, folder=tmp_path), {}, RunOptions(), utc=UTC).stored.ok == 5
    assert (tmp_path / "t.db").read_bytes() == before


def test_what_sharing_would_save_is_told_by_model(tmp_path: Path) -> None:
    asked = [{"custom_id": str(i), "text": f"number {i % 40}"} for i in range(100)]
    world = World(tmp_path, asked, models={"m": {}, "n": {}}, routes=[{"use": {"m": 50, "n": 50}}])
    told = as_dict(planned(world, request={"max_tokens": 20, "temperature": 1}))
    saved = {one["model"]: int(one["how"].split(":")[-1].split()[0]) for one in told["savings"] if one["by"] == "dedupe"}
    assert set(saved) == {"m", "n"}
    assert sum(saved.values()) == told["duplicates"]
    shared = world.run(request={"max_tokens": 20, "temperature": 1}, dedupe=True)
    assert shared.attempts == 100 - told["duplicates"]


def test_what_came_on_top_so_far_is_told(tmp_path: Path) -> None:
    world = World(tmp_path, 40, models={"m": {}}, output={"check": "row.custom_id > 'r2'", "on_invalid": {"retries": 1}})
    world.run(RunOptions(limit=20))
    plan = planned(world)
    assert plan.stored.on_top is not None
    assert plan.stored.on_top > 0.3
    assert any("further attempts" in note and "what first ones did" in note for note in plan.notes)


def test_what_was_used_of_a_day_is_taken_off(tmp_path: Path) -> None:
    model = {"limits": {"rpm": 6000, "rpd": 200}, "simulator": {"latency_ms": 100}}
    world = World(tmp_path, texts(600), models={"m": model})
    world.run(RunOptions(limit=150))
    # 50 are left of today's 200 for the other 450 rows.
    assert (planned(world).limited_by, planned(world).seconds) == ("rpd", pytest.approx(2 * 86_400, rel=0.01))
    assert planned(world, RunOptions(limit=200)).seconds < 60
    known = world.keys["models"]["m"]
    gemini = {**known, "simulator": {"latency_ms": 100, "accounting": "gemini"}}
    # Its day begins at midnight in California (8:00 UTC in winter), with all of the limit.
    assert planned(world, models={"m": gemini}).seconds == 8 * 3600 + 86_400
    free = {**known, "limits": {"rpm": 6000}}
    spent = planned(world).stored.spent_pico or 0
    rest = planned(world).total("expected_pico") or 0
    cap = {"usd_per_day": (spent + rest / 4) / 1e12, "when_used_up": "wait"}
    more = planned(world, models={"m": free}, budget=cap)
    assert (more.limited_by, more.seconds) == ("budget", 2 * 86_400)
    group = {"all": {"models": ["m"], "usd_per_day": cap["usd_per_day"]}}
    same = planned(world, models={"m": free}, limit_groups=group, budget={"when_used_up": "wait"})
    assert (same.limited_by, same.seconds) == ("budget", more.seconds)
    assert same.binding is not None
    assert same.binding.budget == "limit_groups.all.usd_per_day"
    # A cap that today's rows have used up to a quarter of what is left stops the run there.
    stops = planned(world, models={"m": free}, budget={"usd_per_day": cap["usd_per_day"]})
    assert stops.stopped_by == "budget"
    assert stops.stopped_at == pytest.approx(450 / 4, rel=0.15)
