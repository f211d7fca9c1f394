"""`extends`: what is merged, whose place a mistake is told at, whose folder a path is relative to, and circles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchllm.core.errors import SpecError
from batchllm.spec import build, load

TEAM = """\
request: {temperature: 0, max_tokens: 100}
models:
  mini: {provider: openai, model: gpt-6-luna, limits: {rpm: 500, tpm: 1000}}
  strong: {provider: anthropic, model: claude-sonnet-5-5}
routes: [{use: mini}]
budget: {usd: 5}
"""


def write(folder: Path, **texts: str) -> Path:
    """Files by name (`team`: team.yaml); returns the path of `job`."""
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder / "job.yaml"


def test_objects_merge_and_the_rest_is_replaced(tmp_path: Path) -> None:
    job = load(
        write(
            tmp_path,
            team=TEAM,
            job="extends: team.yaml\nrequest: {max_tokens: 5}\nmodels: {mini: {limits: {rpm: 9}}}\nroutes: [{use: strong}]\nbudget: null\n",
        )
    )
    assert job.name == "job"
    assert job.request == {"temperature": 0, "max_tokens": 5}
    assert (job.models["mini"].limits.rpm, job.models["mini"].limits.tpm) == (9, 1000)
    assert [route.use for route in job.routes] == [("strong",)]
    assert job.budget.usd is None


def test_through_several_files_and_from_python(tmp_path: Path) -> None:
    write(tmp_path, company="budget: {usd: 1, alerts: [0.3]}\nconcurrency: 7\n", team=f"extends: company.yaml\n{TEAM}")
    job = build({"extends": "team.yaml", "name": "x"}, folder=tmp_path)
    assert (job.concurrency, job.budget.usd, job.budget.alerts) == (7, 5, (0.3,))
    assert job.with_changes(**{"budget.usd": 2}).budget.usd == 2


def test_paths_are_those_of_their_file(tmp_path: Path) -> None:
    write(tmp_path, shared__team=f"{TEAM}prices: prices.yaml\ninput: data/*.jsonl\n", shared__prices="gpt-6-luna: {input: 1, output: 2}\n")
    job = load(write(tmp_path, job="extends: shared/team.yaml\n"))
    assert job.models["mini"].price is not None
    assert job.input_patterns({}) == (str(tmp_path / "shared/data/*.jsonl"),)
    assert load(write(tmp_path, job="extends: shared/team.yaml\ninput: mine.jsonl\n")).input_patterns({}) == (str(tmp_path / "mine.jsonl"),)


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ({"team": TEAM.replace("rpm: 500", "rpn: 500"), "job": "extends: team.yaml\n"}, "team.yaml:3:56: models.mini.limits.rpn"),
        ({"team": TEAM, "job": "extends: team.yaml\nmodels: {mini: {limits: {rpm: x}}}\n"}, "job.yaml:2:31: models.mini.limits.rpm"),
        ({"team": TEAM.replace("usd: 5", "usd: a"), "job": "extends: team.yaml\nbudget: {tokens: b}\n"}, "team.yaml:6:15: budget.usd"),
        ({"job": "extends: team.yaml\n"}, "job.yaml:1:10: extends: "),
        ({"job": "extends: [a, b]\n"}, "expected the path of a spec, got a list"),
        ({"job": "extends: job.yaml\n"}, "a circle"),
        ({"team": "extends: job.yaml\n", "job": "extends: team.yaml\n"}, "team.yaml:1:10: extends: job.yaml extends this file"),
        ({"team": "a: [\n", "job": "extends: team.yaml\n"}, "team.yaml:"),
    ],
)
def test_mistakes_are_told_at_their_place(texts: dict[str, Any], wanted: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        load(write(tmp_path, **texts))
    assert wanted in str(error.value)
    assert "Traceback" not in str(error.value)


def test_set_cannot_extend(tmp_path: Path) -> None:
    path = write(tmp_path, team=TEAM, job="models: {m: {provider: simulated}}\n")
    with pytest.raises(SpecError, match="extends"):
        load(path, set={"extends": "team.yaml"})
