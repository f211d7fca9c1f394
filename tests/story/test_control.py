"""A running job, steered from a second terminal: pause, continue, stop, set, retry, settle - with real processes, by what the provider saw."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from story_world import Ended, Process, SimulatorProcess, World, simulator, until

from batchllm.store.address import addresses, is_mine, is_same_user, make_folder

IN_FLIGHT = 4
ROWS = 120
WIDE = "models.m.limits.concurrency=64"


def started(world: World, *, rows: int = ROWS, latency_ms: int = 60, **keys: Any) -> tuple[SimulatorProcess, Process]:
    """A run with a first few answers, and its provider."""
    provider = simulator(world, latency_ms=latency_ms)
    world.rows(rows)
    keys = {"model": {"limits": {"concurrency": IN_FLIGHT}}, **keys}
    run = world.start("run", world.job(provider.url, **keys), "--json")
    until(lambda: provider.requests >= IN_FLIGHT, what="the first answers")
    return provider, run


def changes(world: World) -> list[tuple[str, str | None]]:
    return world.ask("SELECT what, value FROM changes ORDER BY id")


def finish(run: Process, code: int = 0) -> Ended:
    return run.end().expect(code)


def test_pause_and_continue(world: World) -> None:
    provider, run = started(world)
    (place,) = [path for path in world.folder.iterdir() if path.name == "job.db.sock"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    began = time.monotonic()
    said = world.run("pause", "job.yaml").expect(0)
    assert "paused: nothing new is sent" in said.err
    assert time.monotonic() - began < 5
    until(lambda: world.ask("SELECT count(*) FROM attempts WHERE outcome = 'in_flight'") == [(0,)], what="the drain")
    seen = provider.requests
    state = json.loads(world.run("status", "job.yaml", "--json").expect(0).out)
    assert (state["state"], state["limited_by"], state["eta_seconds"]) == ("running", "pause", None)
    people = world.run("status", "job.yaml").err
    assert "paused for" in people
    assert "batchllm continue job.yaml" in people
    assert "paused already" in world.run("pause", "job.yaml").expect(0).err
    assert provider.requests == seen == state["rows"]["ok"] < ROWS
    assert "going on after" in world.run("continue", "job.yaml").expect(0).err
    assert "not paused" in world.run("continue", "job.yaml").expect(0).err
    world.run("set", "job.yaml", WIDE).expect(0)
    ended = finish(run)
    assert ended.summary["rows"]["ok"] == provider.requests == ROWS
    assert "from another terminal: paused" in ended.err
    assert changes(world) == [("pause", None), ("continue", None), ("models.m.limits.concurrency", "64")]
    assert world.ask("SELECT DISTINCT run, at > 1e9 FROM changes") == [(1, 1)]
    assert not place.exists()


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
def test_stop_drains_as_ctrl_c_does(world: World, paused: bool) -> None:
    provider, run = started(world, latency_ms=120)
    if paused:
        world.run("pause", "job.yaml").expect(0)
    assert "stopping" in world.run("stop", "job.yaml").expect(0).err
    ended = finish(run, 130)
    assert ended.summary["stopped_by"] == "stop"
    assert "run again to continue" in ended.err
    # What was in flight is answered and kept.
    assert IN_FLIGHT <= ended.summary["rows"]["ok"] == provider.requests < ROWS
    assert ended.summary["reserved_usd"] == 0
    assert world.ask("SELECT exit_code, stopped_by FROM runs") == [(130, "stop")]
    assert changes(world)[-1] == ("stop", None)
    assert world.run("run", "job.yaml", "--json", "--set", WIDE).expect(0).summary["rows"]["ok"] == provider.requests == ROWS


def test_set_makes_it_faster(world: World) -> None:
    _, run = started(world, rows=400, latency_ms=100, model={"limits": {"rpm": 600, "concurrency": 2}}, concurrency=8)
    limits = ["models.m.limits.rpm=600000", "models.m.limits.concurrency=64", "concurrency=100"]
    said = world.run("set", "job.yaml", *limits, "max_failed=3", "deadline=2h").expect(0)
    for words in ("models.m.limits.rpm: 600 -> 600000", "concurrency: 8 -> 100", "max_failed: null -> 3", "deadline: null -> 2h"):
        assert words in said.err
    # At ten requests a second it would have taken forty seconds.
    began = time.monotonic()
    ended = finish(run)
    assert ended.summary["rows"]["ok"] == 400
    assert time.monotonic() - began < 15
    assert "concurrency: 8 -> 100" in ended.err
    assert changes(world) == [
        ("models.m.limits.rpm", "600000"), ("models.m.limits.concurrency", "64"), ("concurrency", "100"), ("max_failed", "3"), ("deadline", '"2h"')
    ]  # fmt: skip


def test_set_that_is_wrong_changes_nothing(world: World) -> None:
    _, run = started(world)
    said = world.run("set", "job.yaml", "concurrency=9", "budget.usd=-1").expect(2)
    assert "error: budget.usd: must be at least 0, got -1" in said.err
    world.run("stop", "job.yaml").expect(0)
    finish(run, 130)
    assert changes(world) == [("stop", None)]


def test_a_budget_below_what_is_spent_books_the_truth_and_ends_with_3(world: World) -> None:
    provider, run = started(world, latency_ms=100, budget={"usd": 1})
    until(lambda: world.ask("SELECT sum(cost_pico) > 0 FROM attempt_log") == [(1,)], what="money spent")
    said = world.run("set", "job.yaml", "budget.usd=0.0000001").expect(0)
    assert "budget.usd: 1 -> " in said.err
    assert "this stops the run: the budget was lowered to" in said.err
    ended = finish(run, 3)
    assert ended.summary["stopped_by"] == "budget"
    totals = provider.totals()
    assert totals["requests"] == ended.summary["rows"]["ok"] == ended.summary["attempts"] < ROWS
    assert ended.summary["cost_usd"] == pytest.approx(totals["cost_usd"])
    assert world.ask("SELECT cap_pico FROM runs") == [(100_000,)]


def test_retry_of_a_running_job_is_asked_by_that_run(world: World) -> None:
    provider, run = started(world, rows=60)
    until(lambda: world.ask("SELECT count(*) FROM results WHERE custom_id IN ('r0', 'r1')") == [(2,)], what="the first two")
    said = world.run("retry", "job.yaml", "--id", "r0", "--id", "r1").expect(0)
    assert "2 rows put back to pending. The run that is going on asks them again" in said.err
    ended = finish(run)
    assert ended.summary["rows"] == {"total": 60, "ok": 60, "failed": 0, "pending": 0}
    assert ended.summary["attempts"] == provider.requests == 62
    assert world.ask("SELECT custom_id, attempts FROM results WHERE attempts > 1 ORDER BY row") == [("r0", 2), ("r1", 2)]
    assert world.ask("SELECT count(*) FROM history") == [(2,)]
    assert len(world.results()) == 60


def test_settle_of_a_running_job_frees_its_money(world: World) -> None:
    # Two that time out may have been billed; each holds its worst case.
    provider = simulator(world, latency_ms=30)
    lines = ["one [[sim:stall*1]]", "two [[sim:stall*1]]", *(f"n {n}" for n in range(100))]
    world.write("rows.jsonl", "".join(json.dumps({"q": line}) + "\n" for line in lines))
    keys = {"model": {"limits": {"concurrency": 4}}, "retry": {"timeout_seconds": 0.5, "initial_seconds": 0}, "budget": {"usd": 1}}
    run = world.start("run", world.job(provider.url, **keys), "--json")
    maybe = "SELECT count(*) FROM attempt_log WHERE billed = 'maybe' AND outcome = 'timeout'"
    until(lambda: provider.requests > 4, what="the first answers")
    until(lambda: world.ask(maybe) == [(2,)], what="the timeouts")
    world.run("pause", "job.yaml").expect(0)
    assert "what it has in flight is not counted" in world.run("settle", "job.yaml").expect(0).err
    said = world.run("settle", "job.yaml", "--billed", "0.000001").expect(0)
    assert "settled 2 requests" in said.err
    assert world.ask(maybe) == [(0,)]
    world.run("continue", "job.yaml").expect(0)
    ended = finish(run)
    assert ended.summary["reserved_usd"] == 0
    assert ended.summary["rows"]["ok"] == len(lines)
    # The sum is in the ledger, and in the rows that it was for.
    assert world.ask("SELECT word, attempts, billed_pico FROM settlements") == [("0.000001", 2, 1_000_000)]
    rows, attempts = (world.ask(f"SELECT sum(cost_pico) FROM {table}") for table in ("outcomes", "attempt_log"))
    assert rows == attempts


def test_nothing_runs(world: World) -> None:
    world.rows(3)
    job = world.job(None)
    world.run("run", job).expect(0)
    for command in (["stop"], ["set", "budget.usd=3"]):
        said = world.run(command[0], "job.yaml", *command[1:]).expect(2)
        assert f"nothing to {command[0]}" in said.err
        assert "batchllm run job.yaml" in said.err
    assert world.left() == {"job.yaml", "rows.jsonl", "job.db", "job.db.lock", "job.results.jsonl"}
    assert changes(world) == []


def test_what_a_killed_run_leaves_is_not_believed(world: World) -> None:
    provider, run = started(world)
    run.kill()
    assert (world.folder / "job.db.sock").is_socket()
    assert "nothing to pause" in world.run("pause", "job.yaml").expect(2).err
    # The next run takes the place.
    seen = provider.requests
    run = world.start("run", "job.yaml", "--json")
    until(lambda: provider.requests > seen, what="the next run")
    world.run("stop", "job.yaml").expect(0)
    finish(run, 130)
    assert not (world.folder / "job.db.sock").exists()


def test_a_store_whose_path_is_too_long_for_a_socket(world: World) -> None:
    deep = world.folder / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    # pytest's own folders are too deep for a socket.
    temporary = Path(tempfile.mkdtemp(prefix="b"))
    world.environ["TMPDIR"] = str(temporary)
    try:
        _, run = started(world, store=str(deep / "job.db"))
        (place,) = temporary.glob("batchllm-*/*.sock")
        assert [stat.S_IMODE(path.stat().st_mode) for path in (place, place.parent)] == [0o600, 0o700]
        world.run("stop", "job.yaml").expect(0)
        finish(run, 130)
        assert not place.exists()
    finally:
        del world.environ["TMPDIR"]
        shutil.rmtree(temporary)


def test_the_socket_takes_nothing_but_its_verbs(world: World) -> None:
    _, run = started(world)
    place = str(world.folder / "job.db.sock")
    for sent, word in (
        (b"garbage\n", "doesn't know what this asks for"),
        (b"[1]\n", "doesn't know what this asks for"),
        (b'{"do": "exec", "code": "1"}\n', "doesn't know what this asks for"),
        (b'{"do": "set"}\n', "can't do what this asks for"),
        (b'{"do": "retry", "rows": ["x"]}\n', "can't do what this asks for"),
        (b'{"do": "retry", "rows": [1], "model": "n"}\n', "doesn't use the model 'n'"),
        (b'{"do": "settle", "word": "x", "sum_pico": -1}\n', "negative"),
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(place)
            connection.sendall(sent)
            assert word in json.loads(connection.makefile().readline())["problem"]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(place)
        with pytest.raises(OSError, match="[Bb]roken pipe|reset"):
            connection.sendall(b"x" * (1 << 22))
            connection.sendall(b"x" * (1 << 22))
    assert changes(world) == []
    assert finish(run).summary["rows"]["ok"] == ROWS


# Who may ask.


def test_only_the_same_user_may_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert is_same_user(ours)
        if not hasattr(socket, "SO_PEERCRED"):
            pytest.skip("this kernel doesn't tell who is at the other end")
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        assert not is_same_user(ours)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder with a short path: pytest's own are too deep for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="b"))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


def test_a_place_that_others_may_meddle_with_is_not_used(tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / ("x" * 120) / "job.db"
    (address,) = addresses(store)
    assert address.parent.parent == short
    make_folder(address, store)
    make_folder(address, store)
    address.parent.chmod(0o770)
    with pytest.raises(PermissionError, match="only you"):
        make_folder(address, store)
    address.parent.chmod(0o700)
    address.write_text("no socket")
    assert not is_mine(address)
    address.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(address.parent)
        listener.bind(address.name)
        assert is_mine(address)
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        assert not is_mine(address)
