"""Answers across jobs: what is reused and what isn't, and that a cache in trouble is never a run in trouble."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from world import Scripted, World, good

from batchllm.core.errors import SpecError
from batchllm.store import Store
from batchllm.store.cache import AnswerCache, CachedAnswer, CacheProblem, cache_path
from batchllm.store.store import keys_where, reopen

FIXED = {"max_tokens": 20, "temperature": 0}
LABELS = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"], "additionalProperties": False}


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., World]:
    """Makes jobs that share a cache, each in a folder of its own."""

    def make(name: str, *texts: str, **keys: Any) -> World:
        folder = tmp_path / name
        folder.mkdir()
        rows = [{"custom_id": f"{name}{i}", "text": text} for i, text in enumerate(texts)]
        return World(folder, rows, **{"request": FIXED, "cache": str(tmp_path / "c.db"), **keys})

    return make


def shared(w: World) -> list[str | None]:
    return [line["shared_from"] for line in w.results()]


def test_another_job_has_the_answer_for_nothing(job, tmp_path):
    first = job("a", "x", "y", "x")
    assert first.run().exit_code == 0
    assert shared(first) == [None, None, "a0"]
    told: list[Any] = []
    second = job("b", "y", "x", "z", "x")
    summary = second.play(lambda: second.go(on_result=told.extend))
    assert (summary.exit_code, summary.attempts, summary.shared) == (0, 1, 3)
    lines = second.results()
    assert shared(second) == ["cache:t:a1", "cache:t:a0", None, "cache:t:a0"]
    assert sorted((result.as_dict() for result in told), key=lambda line: line["row"]) == lines
    theirs = first.results()[1]
    assert lines[0] == {**theirs, "custom_id": "b0", "row": 0, "attempts": 0, "cost_usd": 0.0, "shared_from": "cache:t:a1"}
    # It stands, and the next job finds what this one added.
    assert second.run(budget={"usd": 1}).attempts == 1
    third = job("c", "z")
    assert (third.run().attempts, shared(third)) == (0, ["cache:t:b2"])
    assert stat.S_IMODE((tmp_path / "c.db").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        ({}, 0),
        ({"dedupe": False}, 0),
        ({"output": {"check": "row.text == 'x'"}}, 0),
        ({"output": {"check": "row.text == 'y'", "on_invalid": {"retries": 0}}}, 1),
        ({"cache": False}, 1),
        ({"request": {**FIXED, "temperature": 0.5}}, 1),
        ({"request": {**FIXED, "max_tokens": 21}}, 1),
        ({"models": {"m": {"model": "other"}}}, 1),
        ({"models": {"n": {"model": "m"}}, "sims": {"n": {}}}, 0),
        ({"models": {"m": {"simulator": {"seed": 2}}}}, 1),
        ({"output": {"schema": LABELS}}, 1),
        ({"prompt": "{{ text }}!"}, 1),
    ],
)
def test_what_is_reused(job, keys, asked):
    job("a", "x").run()
    w = job("b", "x", **keys)
    assert w.run().attempts == asked


def test_only_requests_that_are_meant_to_give_equal_answers(job):
    warm = {"request": {"max_tokens": 20}}
    job("a", "x", **warm).run()
    assert job("b", "x", **warm).run().attempts == 1
    job("c", "x", dedupe=True, **warm).run()
    assert job("d", "x", dedupe=True, **warm).run().attempts == 0


def test_an_answer_is_read_by_the_job_that_reuses_it(job):
    output = {"schema": LABELS}
    says = {"m": Scripted(lambda nth, text, now: (0.1, good('Sure: {"label": "x"}')))}
    job("a", "x", scripts=says, output=output).run()
    w = job("b", "x", output=output)
    assert (w.run().attempts, w.results()[0]["parsed"]) == (0, {"label": "x"})


def test_its_own_answers_are_no_news_to_a_job(job):
    """Or a row that is asked again by a person's wish would get its old answer back."""
    w = job("a", "x", "x", dedupe=False)
    assert w.run().attempts == 2
    w.put([{"custom_id": f"a{i}", "text": "x"} for i in range(3)])
    assert w.run().attempts == 3


def test_a_row_that_a_person_asks_again_gets_a_new_answer(job):
    job("a", "x", "y").run()
    w = job("b", "x", "y", "x")
    w.run()
    with contextlib.closing(Store.existing(w.folder / "t.db")) as store:
        keys = keys_where(store.connection, "custom_id = 'b0'")
        store.transaction(lambda connection: reopen(connection, keys, reason="retry", now_utc=0.0, changed=False))
    assert w.run().attempts == 1
    assert shared(w) == [None, "cache:t:a1", "cache:t:a0"]


def test_cut_and_failed_answers_are_not_kept(job):
    cut = good(choices=[{"index": 0, "message": {"role": "assistant", "content": "cu"}, "finish_reason": "length"}])
    job("a", "x", scripts={"m": Scripted(lambda nth, text, now: (0.1, cut))}).run()
    assert job("b", "x").run().attempts == 1


def _no_cache(path: Path) -> None:
    path.write_bytes(b"this is no database at all " * 100)


def _another_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (a)")


def _newer(path: Path) -> None:
    AnswerCache(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _folder(path: Path) -> None:
    path.mkdir()


def _below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file")


@pytest.mark.parametrize("spoil", [_no_cache, _another_database, _newer, _folder, _below_a_file])
def test_a_cache_that_cannot_be_used_is_a_note(job, tmp_path, spoil):
    path = tmp_path / "sub" / "c.db"
    path.parent.mkdir()
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    w = job("a", "x", cache=str(path))
    assert w.run().exit_code == 0
    (note,) = [note for note in w.notes if "cache" in note.text]
    assert note.level == "warning"
    assert str(path) in note.text
    assert before is None or path.read_bytes() == before


def test_a_cache_that_breaks_is_given_up(job, tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise CacheProblem("c.db: database or disk is full")

    monkeypatch.setattr(AnswerCache, "put", full)
    w = job("a", *(f"x{i}" for i in range(50)), concurrency=1, sims={"m": {"latency_ms": 1000.0}})
    assert w.run().exit_code == 0
    assert [note.text for note in w.notes if "cache" in note.text] == ["the cache is not used any more in this run: c.db: database or disk is full"]


def test_many_runs_at_once(tmp_path):
    def answer(key: int, job: int) -> CachedAnswer:
        return CachedAnswer(key.to_bytes(16), f"job{job}", f"job{job}", None, 1.0, f"{key}", *(None,) * 9)

    problems: list[BaseException] = []

    def work(job: int) -> None:
        try:
            cache = AnswerCache(tmp_path / "c.db")
            for first in range(0, 400, 20):
                cache.put([answer(key, job) for key in range(first, first + 20)])
                cache.get([key.to_bytes(16) for key in range(first)], but_job_id="")
            cache.close()
        except BaseException as error:  # noqa: BLE001 - it belongs to the test
            problems.append(error)

    threads = [threading.Thread(target=work, args=(job,)) for job in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    with contextlib.closing(sqlite3.connect(tmp_path / "c.db")) as connection:
        kept = {int.from_bytes(key): output for key, output in connection.execute("SELECT key, output FROM answers")}
    assert kept == {key: str(key) for key in range(400)}


@pytest.mark.parametrize(
    ("given", "environ", "path"),
    [
        ("c.db", {}, "/job/c.db"),
        ("/x/c.db", {"BATCHLLM_CACHE": "/y"}, "/x/c.db"),
        (True, {"BATCHLLM_CACHE": "/y", "XDG_CACHE_HOME": "/z", "HOME": "/h"}, "/y/answers.db"),
        (True, {"XDG_CACHE_HOME": "/z", "HOME": "/h"}, "/z/batchllm/answers.db"),
        (True, {"XDG_CACHE_HOME": "z", "HOME": "/h"}, "/h/.cache/batchllm/answers.db"),
        (True, {}, None),
    ],
)
def test_where_it_is(given, environ, path):
    assert cache_path(given, environ, Path("/job")) == (Path(path) if path is not None else None)


def test_old_answers_are_no_independent_samples(job):
    with pytest.raises(SpecError, match="independent"):
        job("a", "x", samples=2).run()
