"""Jobs one behind the other: results as input, joined and filtered; training data; what is new since a run; rows of a file that grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import batchllm
from batchllm.cli import main


def job(folder: Path, name: str, **keys: Any) -> Path:
    """A job file of a simulated model."""
    spec = {"models": {"m": {"provider": "simulated", "simulator": {"latency_ms": 1}}}, **keys}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(spec))
    return path


def command(*words: str | Path) -> int:
    """`batchllm WORDS` in this process."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A job that has labelled 24 rows; every fourth of them is refused."""
    rows = [{"id": f"r{n}", "text": f"number {n}" + (" [[sim:content_filter]]" if n % 4 == 3 else "")} for n in range(24)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = {"input": "in.jsonl", "id": "id", "prompt": {"system": "Label.", "user": "{{ text }}"}}
    path = job(tmp_path, "first", **keys, output={"choices": ["bug", "idea"], "keep": ["text"]})
    assert batchllm.run(path).exit_code == 1
    return path


def test_ok_results_are_the_rows_of_the_next_job(first: Path, tmp_path: Path) -> None:
    second = job(tmp_path, "second", input="first.yaml", prompt="{{ input.text }} is {{ parsed }}", output={"keep": ["parsed"]})
    assert batchllm.run(second).exit_code == 0
    before = {result.custom_id: result for result in batchllm.results(first) if result.ok}
    after = list(batchllm.results(second))
    assert [result.custom_id for result in after] == list(before)
    assert len(after) == 18
    assert [result.row for result in after] == list(range(18))
    assert all(result.input == {"parsed": before[result.custom_id].parsed} for result in after)
    assert batchllm.run(second).attempts == 18  # again: nothing is new, nothing is sent


def test_where_and_join(first: Path, tmp_path: Path) -> None:
    other = job(tmp_path, "other", input="in.jsonl", id="id", prompt="Sum up {{ text }}")
    assert batchllm.run(other, limit=10).exit_code == 1
    given = {"path": "first.db", "where": "parsed == 'bug' and b.output", "join": {"b": "other.yaml"}}
    third = job(tmp_path, "third", input=given, prompt="{{ b.output }}", output={"keep": ["b"]})
    assert batchllm.run(third).exit_code == 0
    summed = {result.custom_id: result.output for result in batchllm.results(other) if result.ok}
    bugs = [result.custom_id for result in batchllm.results(first) if result.ok and result.parsed == "bug"]
    got = {result.custom_id: (result.input or {})["b"]["output"] for result in batchllm.results(third)}
    assert got == {one: summed[one] for one in bugs if one in summed}
    assert 0 < len(got) < len(bugs)
    # More of the other job is more rows here, and nothing is asked twice.
    batchllm.run(other)
    again = batchllm.run(third)
    assert again.attempts == again.rows.ok > len(got)


def test_rows_without_ids_are_joined_by_their_number(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"q": "one"}\n{"q": "two"}\n')
    assert batchllm.run(job(tmp_path, "first", input="in.jsonl", prompt="{{ q }}")).exit_code == 0
    # A row in front moves the others: the numbers of both jobs follow.
    (tmp_path / "in.jsonl").write_text('{"q": "zero"}\n{"q": "one"}\n{"q": "two"}\n')
    assert batchllm.run(tmp_path / "first.yaml").exit_code == 0
    second = job(tmp_path, "second", input={"path": "in.jsonl", "join": {"f": "first.yaml"}}, prompt="{{ q }} {{ f.output }}", output={"keep": ["f"]})
    assert batchllm.run(second).exit_code == 0
    answers = [result.output for result in batchllm.results(tmp_path / "first.yaml")]
    assert [(result.input or {})["f"]["output"] for result in batchllm.results(second)] == answers


def test_where_holds_for_files_and_what_cannot_be_judged_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"n": 1}\n{"n": 9}\n{"n": "many"}\nbroken\n{"n": 7}\n')
    path = job(tmp_path, "some", input={"path": "in.jsonl", "where": "n > 5"}, prompt="{{ n }}", output={"keep": ["n"]})
    assert batchllm.run(path).exit_code == 1
    found = [(result.row, result.error.message if result.error else (result.input or {})["n"]) for result in batchllm.results(path)]
    assert [row for row, _ in found] == [0, 1, 2, 3]
    assert (found[0][1], found[3][1]) == (9, 7)
    assert "input.where can't be judged" in found[1][1]
    assert "is not JSON" in found[2][1]


def test_where_that_leaves_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    path = job(tmp_path, "none", input={"path": "in.jsonl", "where": "n > 5 or rare == true"}, prompt="{{ n }}")
    assert command("run", path) == 0
    assert "input.where leaves none of the 2 rows" in capsys.readouterr().err


def test_a_limit_ends_a_followed_file(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"n": 1}\n{"n": 2}\n{"n": 3}\n')
    path = job(tmp_path, "few", input="in.jsonl", prompt="{{ n }}")
    # Without --idle: waiting for a fourth line would never end.
    assert command("run", path, "--follow", "--limit", "3", "--quiet") == 0
    assert len(lines(tmp_path / "few.results.jsonl")) == 3


def test_where_and_join_hold_for_another_input(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.jsonl").write_text('{"custom_id": "r0", "n": 9}\n{"custom_id": "r1", "n": 1}\n')
    given = {"path": "in.jsonl", "where": "n > 5", "join": {"label": "first.yaml"}}
    path = job(tmp_path, "again", input=given, prompt="{{ n }} {{ label.parsed }}", output={"keep": ["label"]}, results="none")
    assert command("run", path, "--input", tmp_path / "other.jsonl", "--quiet") == 0
    (result,) = batchllm.results(path)
    assert result.custom_id == "r0"
    assert (result.input or {})["label"]["parsed"] in {"bug", "idea"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("self.yaml", "this is the job itself"),
        ("unrun.yaml", "unrun.yaml has no results yet: run it first"),
        ("nowhere.yaml", "no such file"),
        (["first.yaml", "in.jsonl"], "one job or store can be the input, alone"),
        ({"path": "first.yaml", "types": {"a": "number"}}, "are for CSV files"),
        ({"path": "in.jsonl", "where": "text =="}, "input.where"),
        ({"path": "in.jsonl", "where": "tokens > 5"}, "`tokens` isn't known here"),
        ({"path": "in.jsonl", "join": {"b": "unrun.yaml"}}, "input.join.b: unrun.yaml has no results yet"),
        ({"path": "in.jsonl", "join": {"b": "in.jsonl"}}, "input.join.b: in.jsonl is no job"),
        ({"path": "first.yaml", "where": "label == 'bug'"}, "input.where: no row has 'label'; there are custom_id, output"),
        ({"path": "in.jsonl", "where": "txt != ''"}, "input.where: no row has 'txt'; did you mean 'text'?"),
    ],
)
def test_a_wrong_input_is_told_before_anything_is_sent(first: Path, tmp_path: Path, given: Any, words: str) -> None:
    job(tmp_path, "unrun", input="in.jsonl", prompt="{{ text }}")
    with pytest.raises(batchllm.SpecError) as error:
        batchllm.run(job(tmp_path, "self", input=given, prompt="{{ text or output }}"))
    assert words in str(error.value)


def test_training_data(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "train.jsonl"
    flags = ("export", first, "--format", "finetune", "--to", target, "--validation", "30%", "--model", "gpt-4.1-mini", "--epochs", "3")
    assert command(*flags) == 0
    said = capsys.readouterr().err
    training, validation = lines(target), lines(tmp_path / "train.validation.jsonl")
    assert len(training) + len(validation) == 18
    assert 0 < len(validation) < len(training)
    labels = {result.input["text"]: result.parsed for result in batchllm.results(first) if result.ok and result.input}
    for line in training + validation:
        system, user, answer = line["messages"]
        assert system == {"role": "system", "content": "Label."}
        assert answer == {"role": "assistant", "content": labels[user["content"]]}
    assert "x 3 epochs at $5 per million" in said
    # The same rows are set aside when there are more or fewer.
    assert command(*flags, "--where", "row < 12") == 1  # too few for OpenAI
    assert {json.dumps(line) for line in lines(tmp_path / "train.validation.jsonl")} <= {json.dumps(line) for line in validation}
    # Another prompt: the answers were not given to it.
    first.write_text(first.read_text().replace("Label.", "Judge."))
    assert command(*flags) == 1
    assert "left out 18 rows: the row or its prompt has changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--validation", "10%"], "--validation goes with --format finetune"),
        (["--format", "finetune", "--validation", "10%"], "name the first one with --to"),
        (["--format", "finetune", "--with", "text"], "lines of a fixed form"),
        (["--format", "finetune", "--status", "failed"], "lines of a fixed form"),
        (["--since", "soon"], "expected a run's number"),
    ],
)
def test_flags_that_make_no_sense(first: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("export", first, *flags) == 2
    assert words in capsys.readouterr().err


def test_since_a_run(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (first.parent / "in.jsonl").open("a") as file:
        file.write('{"id": "late", "text": "more"}\n')
    batchllm.run(first)

    def exported(*flags: str) -> list[str]:
        capsys.readouterr()
        main_flags = ["export", str(first), *flags]
        with pytest.raises(SystemExit):
            main(main_flags)
        return [json.loads(line)["custom_id"] for line in capsys.readouterr().out.splitlines()]

    assert len(exported()) == len(exported("--since", "1h")) == 25
    assert exported("--since", "2") == ["late"]
    assert exported("--since", "2100-01-01") == []
    command("export", first, "--since", "20261120")
    assert "--since 20261120 is a run's number, and the last run is 2" in capsys.readouterr().err
