"""`plan`, `compare` and `diff` as a person types them: no key, no network, bad input; and a plan that a run is held to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from story_world import World

ROWS = "".join(json.dumps({"custom_id": f"r{n}", "q": f"question number {n}", "team": "ab"[n % 2]}) + "\n" for n in range(40))
JOB = """
input: rows.jsonl
prompt: {system: Be short., user: "Answer: {{ q }}"}
request: {max_tokens: 30}
models:
  mini: {provider: openai, model: gpt-6-luna, limits: {rpm: 60000}}
  strong: {provider: anthropic, model: claude-sonnet-5-5, limits: {rpm: 60000}}
routes: [{use: [mini, strong]}]
output: {choices: [a, b], keep: [team]}
"""


@pytest.fixture
def job(world: World) -> Path:
    world.write("rows.jsonl", ROWS)
    return world.write("job.yaml", JOB)


def test_a_plan_needs_no_key_and_leaves_nothing(world: World, job: Path) -> None:
    before = world.left()
    text = world.run("plan", job).expect(0).err
    assert "OPENAI_API_KEY" in text
    assert "assumed" in text
    told = world.run("plan", job, "--json").expect(0).summary
    assert (told["rows"], told["bad_rows"], told["models"]["mini"]["rows"]) == (40, 0, 40)
    assert 0 < told["cost_usd"]["expected"] <= told["cost_usd"]["worst"]
    assert world.left() == before


def test_a_plan_says_what_is_left_and_what_stops_a_run(world: World, job: Path) -> None:
    world.run("run", job, "--simulate", "--limit", 30, "--quiet").expect(0)
    told = world.run("plan", job, "--simulate", "--json").expect(0).summary
    assert (told["done"], told["requests"], told["models"]["mini"]["rows"]) == ({"ok": 30, "failed": 0}, 10, 10)
    assert "go on with it" in world.run("plan", job, "--simulate").expect(0).err
    changed = ("plan", job, "--simulate", "--set", "prompt.system=Be brief.")
    assert "30 rows were answered and ask something else now" in world.run(*changed).expect(0).err
    assert world.run(*changed, "--on-change", "keep", "--json").expect(0).summary["requests"] == 10
    assert "belongs to the job 'job'" in world.run("plan", job, "--name", "other", "--store", "job.sim.db", "--simulate").expect(0).err


def test_a_plan_follows_the_flags(world: World, job: Path) -> None:
    world.write("v2.md", "Think long and hard about this one, then answer in one word only: {{ q }}")
    plain, longer = (world.run("plan", job, "--json", *more).expect(0).summary for more in ((), ("--set", "prompt.user=@v2.md")))
    assert longer["tokens"]["input"] >= plain["tokens"]["input"] + 40 * 10
    assert world.run("plan", job, "--json", "--limit", 7).expect(0).summary["rows"] == 7
    assert world.run("plan", job, "--json", "--sample", 9).expect(0).summary["rows"] == 9
    assert world.run("plan", job, "--json", "--input", "-", text=ROWS[:200].rpartition("\n")[0]).expect(0).summary["rows"] == 3
    missing = world.run("plan", job, "--set", "prompt.user=@nope.md").expect(2)
    assert "no such file: nope.md" in missing.err


def test_the_forecast_of_a_simulated_run_is_its_cost(world: World, job: Path) -> None:
    told = world.run("plan", job, "--simulate", "--json").expect(0).summary
    ran = world.run("run", job, "--simulate", "--json", "--quiet").expect(0).summary
    assert told["cost_usd"]["expected"] == pytest.approx(ran["cost_usd"], rel=0.05)
    assert ran["telemetry"]["attempts_per_answer"] == 1.0


def test_live_rows_are_kept_and_a_run_is_held_to_the_plan(world: World, job: Path) -> None:
    planned = world.run("plan", job, "--simulate", "--live", 12, "--save", "plan.json", "--json").expect(0).summary
    assert (planned["live"]["rows"], planned["live"]["ok"], planned["stored"]["ok"]) == (12, 12, 12)
    assert json.loads((world.folder / "plan.json").read_text()) == planned
    world.write("rows.jsonl", ROWS + ROWS.replace('"r', '"s'))
    refused = world.run("run", job, "--simulate", "--plan", "plan.json").expect(2)
    assert "the input has 80 rows, the plan 40" in refused.err
    ran = world.run("run", job, "--simulate", "--plan", "plan.json", "--drift", "100%", "--json", "--quiet").expect(0).summary
    assert ran["attempts"] == 80


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("plan", "nope.yaml"), "no such file"),
        (("plan", "job.yaml", "--sample", "x"), "--sample: expected a percentage"),
        (("plan", "job.yaml", "--live", "5", "--sample", "9"), "--live draws rows of its own"),
        (("plan", "job.yaml", "--input", "gone.jsonl"), "error: --input: gone.jsonl: the input file doesn't exist"),
        (("try", "job.yaml", "--input", "gone.jsonl"), "error: --input: gone.jsonl: "),
        (("compare", "job.yaml", "--input", "gone.jsonl"), "error: --input: gone.jsonl: "),
        (("plan", "job.yaml", "--save", "no/where.json"), "can't be written"),
        (("plan", "job.yaml", "--set", "prompt.user=Say {{ qq }}"), "did you mean 'q'?"),
        (("run", "job.yaml", "--simulate", "--plan", "job.yaml"), "is no saved plan"),
        (("run", "job.yaml", "--simulate", "--drift", "3%"), "--drift goes with --plan"),
        (("compare", "job.yaml", "--models", "mini,tiny"), "'tiny' is neither a model of the job (mini, strong) nor PROVIDER:MODEL"),
        (("compare", "job.yaml", "--models", "mini", "--live", "0"), "--live"),
        (("diff", "job.yaml", "job.yaml"), "are the same store"),
    ],
)
def test_bad_input(world: World, job: Path, words: tuple[str, ...], told: str) -> None:
    assert told in world.run(*words).expect(2).err


def test_models_are_compared(world: World, job: Path) -> None:
    text = world.run("compare", job, "--models", "mini,strong,openai:gpt-6.1-terra").expect(0).err
    assert "cheapest: mini" in text
    live = world.run("compare", job, "--simulate", "--live", 5, "--html", "c.html", "--json").expect(0).summary
    assert live["models"]["mini"]["live"]["rows"] == live["models"]["strong"]["live"]["ok"] == 5
    assert set(live["models"]["mini"]["answers"]) == set(live["models"]["strong"]["answers"])
    page = (world.folder / "c.html").read_text()
    assert "http" not in page
    assert all(key in page for key in live["models"]["mini"]["answers"])
    assert world.ask("SELECT count(*) FROM attempts", name="job.compare.sim") == [(10,)]
    again = world.run("compare", job, "--simulate", "--live", 5, "--json").expect(0).summary
    assert again["models"] == live["models"]
    assert world.ask("SELECT count(*) FROM attempts", name="job.compare.sim") == [(10,)]
    # What is asked otherwise now is asked again, without a question.
    world.run("compare", job, "--simulate", "--live", 5, "--set", "prompt.system=Be quick.", "--json").expect(0)
    assert world.ask("SELECT count(*) FROM attempts", name="job.compare.sim") == [(20,)]
    assert "the price of nope is not known" in world.run("compare", job, "--models", "openai:nope").expect(0).err


def test_two_jobs_are_compared(world: World, job: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        world.run("run", job, "--simulate", "--name", name, "--quiet", "--set", f"prompt.system=Be short {seed}.").expect(0)
    told = world.run("diff", "one.sim.db", "two.sim.db", "--on", "parsed", "--gold", "team", "--to", "d.jsonl", "--json").expect(0).summary
    assert (told["both"], told["compared"]) == (40, 40)
    nowhere = world.run("diff", "one.sim.db", "two.sim.db", "--on", "parsed.label").expect(2).err
    assert "no answer of either job has 'parsed.label'; `parsed` is one plain value: compare `parsed`" in nowhere
    assert 0 < told["agreed"] < 40
    lines = [json.loads(line) for line in (world.folder / "d.jsonl").read_text().splitlines()]
    assert len(lines) == 40 - told["agreed"] == sum(flip["rows"] for flip in told["flips"])
    assert set(lines[0]) == {"custom_id", "input", "a", "b"}
    assert lines[0]["input"]["q"].startswith("question number")
    assert {line["a"] for line in lines} | {line["b"] for line in lines} == {"a", "b"}
    right = {name: dict(world.ask("SELECT custom_id, parsed FROM results", name=f"{name}.sim")) for name in ("one", "two")}
    truth = {f"r{n}": "ab"[n % 2] for n in range(40)}
    for side, name in (("a", "one"), ("b", "two")):
        assert told[side]["right"] == sum(json.loads(right[name][key]) == value for key, value in truth.items())
    assert told["gold"]["fixed"] - told["gold"]["broken"] == told["b"]["right"] - told["a"]["right"]
