"""What is refused before anything is sent: each message names the place and the mend, exit 2 or 5, nothing sent, nothing left behind. And bad rows, which fail alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from story_world import SimulatorProcess, World, until

JOB = """\
input: rows.jsonl
prompt: "Answer: {{ q }}"
request: {max_tokens: 30}
models:
  m:
    provider: openai
    model: gpt-6-luna
    base_url: URL
    api_key_env: none
"""

# name -> (what is replaced in JOB, by what, flags, what the message must name)
SPECS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "typo": ("prompt:", "promt:", (), ("job.yaml:2:1", "promt", "did you mean", "prompt")),
    "nested typo": ("{max_tokens: 30}", "{max_tokens: 30}\nretry: {max_attemps: 3}", (), ("job.yaml:4:", "retry.max_attemps", "max_attempts")),
    "wrong type": ("{max_tokens: 30}", "{max_tokens: 30}\nconcurrency: many", (), ("job.yaml:4:", "concurrency", "many")),
    "duplicate key": ("models:", "input: other.jsonl\nmodels:", (), ("job.yaml:4:", "input", "line 1")),
    "not YAML": ("models:", "models: [", (), ("job.yaml:",)),
    "missing key": ("model: gpt-6-luna", "", (), ("job.yaml:5:3", "models.m.model", "required")),
    "unknown name in a template": ("{{ q }}", "{{ question }}", (), ("prompt", "question", "custom_id", "q")),
    "no key in the environment": ("    api_key_env: none", "    api_key_env: NO_SUCH_KEY", (), ("models.m", "NO_SUCH_KEY", "--simulate")),
    "another host": ("    api_key_env: none", "", (), ("base_url", "api_key_env")),
    "unset variable": ("base_url: URL", "base_url: http://127.0.0.1:${NO_SUCH_PORT}/v1", (), ("models.m.base_url", "NO_SUCH_PORT")),
    "missing input": ("rows.jsonl", "nowhere.jsonl", (), ("job.yaml:1:8: input: nowhere.jsonl: the input file doesn't exist",)),
    "missing --input": ("", "", ("--input", "gone.jsonl"), ("error: --input: gone.jsonl: the input file doesn't exist",)),
    "a rule over text cells": ("models:", "routes: [{when: 'q > 3', use: m}]\nmodels:", (), ("job.yaml:4:17: routes.0.when", "column 'q' is text")),
    "glob without files": ("rows.jsonl", "'more/*.jsonl'", (), ("input", "more/*.jsonl")),
    "empty input": ("rows.jsonl", "empty.jsonl", (), ("empty.jsonl", "empty")),
    "unknown price under a cap": ("gpt-6-luna", "my-own-model", ("--budget", "1"), ("models.m", "my-own-model", "price")),
    "unknown bound under a cap": (
        "{max_tokens: 30}\nmodels:\n  m:\n    provider: openai\n    model: gpt-6-luna\n",
        "{}\nmodels:\n  m:\n    provider: openai\n    model: my-own-model\n    price: {input: 1, output: 2}\n",
        ("--budget", "1"),
        ("models.m", "max_tokens"),
    ),
    "bad --set": ("", "", ("--set", "retry.max_attemps=3"), ("--set", "retry.max_attemps", "max_attempts")),
    "bad --budget": ("", "", ("--budget", "lots"), ("--budget", "lots")),
    "bad --sample": ("", "", ("--sample", "a few"), ("--sample", "a few")),
    "bad --retry-failed": ("", "", ("--retry-failed", "timeouts"), ("--retry-failed", "timeouts", "timeout")),
    "unknown flag": ("", "", ("--limmit", "3"), ("--limmit", "--limit")),
    "results of an unknown format": ("", "", ("--results", "out.xlsx"), ("xlsx", "csv")),
    "id that no row has": ("input: rows.jsonl", "input: rows.jsonl\nid: key", (), ("id", "key", "custom_id")),
    "kept column that no row has": ("input: rows.jsonl", "input: rows.jsonl\noutput: {keep: [lang]}", (), ("output.keep", "lang", "custom_id")),
}


@pytest.mark.parametrize("case", SPECS)
def test_a_wrong_job_is_refused_before_anything_happens(world: World, provider: SimulatorProcess, case: str) -> None:
    old, new, flags, words = SPECS[case]
    assert old in JOB
    text = JOB.replace(old, new, 1) if old else JOB
    world.write("job.yaml", text.replace("URL", provider.url))
    world.rows(3)
    world.write("empty.jsonl", "\n")
    before = provider.requests
    ended = world.run("run", "job.yaml", *flags).expect(2)
    for word in words:
        assert word in ended.err, ended.err
    assert ended.out == ""
    assert provider.requests == before
    assert world.left() == {"job.yaml", "rows.jsonl", "empty.jsonl"}


def test_all_problems_of_a_spec_are_said_at_once(world: World) -> None:
    world.write("job.yaml", "input: rows.jsonl\npromt: hi\nmodels: {m: {provider: simulated, model: x, limits: {rpm: fast}}}\n")
    ended = world.run("run", "job.yaml").expect(2)
    assert "promt" in ended.err
    assert "models.m.limits.rpm" in ended.err


def test_a_job_file_that_is_not_there(world: World) -> None:
    ended = world.run("run", "jbo.yaml").expect(2)
    assert "jbo.yaml" in ended.err
    assert world.left() == set()


# Stores that can't be used: exit 5.


def not_sqlite(path: Path) -> None:
    path.write_bytes(b"notes of mine, not a database" * 50)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")


@pytest.mark.parametrize(("make", "word"), [(not_sqlite, "no SQLite file"), (foreign, "not a batchllm store"), (Path.mkdir, "directory")])
def test_a_file_that_is_no_store_is_left_as_it_is(world: World, make: object, word: str) -> None:
    path = world.folder / "job.db"
    make(path)
    content = path.read_bytes() if path.is_file() else None
    world.rows(2)
    ended = world.run("run", world.job(None)).expect(5)
    assert "job.db" in ended.err
    assert word in ended.err.replace("Is a d", "d")
    assert (path.read_bytes() if path.is_file() else None) == content


def test_a_store_of_a_newer_program(world: World) -> None:
    world.rows(2)
    job = world.job(None)
    world.run("run", job).expect(0)
    with closing(sqlite3.connect(world.folder / "job.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    ended = world.run("run", job).expect(5)
    assert "newer" in ended.err
    assert "upgrade" in ended.err


def test_a_store_of_another_job(world: World) -> None:
    world.rows(2)
    world.run("run", world.job(None)).expect(0)
    ended = world.run("run", world.job(None, name="other", store="job.db")).expect(5)
    assert "'job'" in ended.err
    assert "--name" in ended.err
    world.run("run", "other.yaml", "--name", "job").expect(0)


@contextmanager
def transaction(path: Path) -> Iterator[None]:
    """Another program in the middle of a write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_a_store_that_another_program_has_locked(world: World) -> None:
    world.rows(2)
    job = world.job(None)
    world.run("run", job, "--limit", "1").expect(0)
    with transaction(world.folder / "job.db"):
        ended = world.run("run", job).expect(5)
    assert "locked" in ended.err
    assert "another program" in ended.err
    world.run("run", job).expect(0)
    assert len(world.results()) == 2


def test_a_folder_that_takes_no_store(world: World) -> None:
    world.rows(2)
    world.write("file", "")
    ended = world.run("run", world.job(None), "--store", "file/job.db").expect(5)
    assert "file" in ended.err
    assert "--store" in ended.err


# Two runs of one job.


def test_a_second_run_fails_waits_or_skips(world: World, provider: SimulatorProcess) -> None:
    world.rows(60)
    job = world.job(provider.url, model={"limits": {"concurrency": 1}})
    first = world.start("run", job)
    until(
        lambda: (world.folder / "job.db.lock").exists() and (world.folder / "job.db.lock").read_text() == str(first.pid), what="the first run's lock"
    )
    waits = world.start("run", job, "--if-running", "wait", "--json")
    second = world.run("run", job).expect(5)
    assert str(first.pid) in second.err
    assert "--if-running" in second.err
    skips = world.run("run", job, "--if-running", "skip").expect(0)
    assert "already running" in skips.err
    assert first.running, "the first run was over too soon; this test shows nothing"
    first.end().expect(0)
    waited = waits.end().expect(0)
    assert waited.summary["rows"]["ok"] == 60
    assert waited.summary["attempts"] == 60


# Bad rows fail alone.


def test_bad_rows_fail_alone_with_their_line_and_code(world: World) -> None:
    lines = [
        b'{"custom_id": "a", "q": "fine"}',
        b"{not json",
        b'{"custom_id": "b", "q": "\xff\xfe"}',
        b'["a", "list"]',
        b'{"custom_id": "c"}',
        b'{"custom_id": "a", "q": "again"}',
        b"",
        b'{"q": "no id"}',
        b'{"custom_id": {"x": 1}, "q": "odd id"}',
        b'{"custom_id": 7, "q": "number id"}',
    ]
    world.write("rows.jsonl", b"\n".join(lines) + b"\n")
    ended = world.run("run", world.job(None), "--json").expect(1)
    got = [(line["row"], line["custom_id"], line["status"], line["error"] and line["error"]["code"]) for line in world.results()]
    assert got == [
        (0, "a", "ok", None),
        (1, None, "failed", "bad_row"),
        (2, None, "failed", "bad_row"),
        (3, None, "failed", "bad_row"),
        (4, "c", "failed", "template"),
        (5, "a", "failed", "duplicate_id"),
        (6, None, "failed", "bad_row"),
        (7, None, "failed", "bad_row"),
        (8, "7", "ok", None),
    ]
    messages = [line["error"]["message"] for line in world.results() if line["error"]]
    for message, number in zip(messages, (2, 3, 4, 5, 6, 8, 9), strict=True):
        assert f"rows.jsonl:{number}" in message
    assert ended.summary["errors"] == {"bad_row": 5, "duplicate_id": 1, "template": 1}
    assert ended.summary["rows"] == {"total": 9, "ok": 2, "failed": 7, "pending": 0}
    # The good ones are not asked again, and failed ones are left alone; within --max-failed they are success.
    again = world.run("run", "job.yaml", "--json", "--max-failed", "7").expect(0)
    assert again.summary["attempts"] == 2
    world.run("run", "job.yaml", "--max-failed", "50%").expect(1)
