"""The Python API as a program uses it: scripts, running loops, threads; streams that are left, cancelled or read slowly; maps; stores read back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

import batchllm
from batchllm.store import is_locked

WIDTH = 4
POLL_SECONDS = 0.005
LONG_SECONDS = 30


def job(folder: Path, *, name="t", rows=60, latency_ms=5, **keys):
    """A simulated job with its input in the folder."""
    path = folder / f"{rows}.jsonl"
    if not path.exists():
        path.write_text("".join(json.dumps({"custom_id": f"r{i}", "text": f"number {i}"}) + "\n" for i in range(rows)))
    model = {"provider": "simulated", "limits": {"concurrency": WIDTH}, "simulator": {"latency_ms": latency_ms}}
    given = {
        "name": name,
        "input": str(path),
        "prompt": "Say {{ text }}",
        "request": {"max_tokens": 20},
        "models": {"m": model},
        "store": str(folder / f"{name}.db"),
        "results": str(folder / f"{name}.results.jsonl"),
        "concurrency": WIDTH,
        "budget": {"usd": 1},
    }
    return batchllm.Job(**given | keys)


def ask(spec, query: str):
    """One value from a job's store, as any SQLite browser would see it."""
    with contextlib.closing(sqlite3.connect(f"file:{spec.store}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(query).fetchone()[0]


def attempts(spec, **where: str) -> int:
    conditions = " AND ".join(f"{key} = '{value}'" for key, value in where.items()) or "1"
    return ask(spec, f"SELECT count(*) FROM attempts WHERE {conditions}")


async def until(condition) -> None:
    end = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(POLL_SECONDS)


def is_whole(spec, rows=60) -> None:
    """Exactly one result per row, in input order, and nobody was asked twice."""
    found = list(batchllm.results(spec))
    assert [result.row for result in found] == list(range(rows))
    assert {result.status for result in found} == {"ok"}
    assert ask(spec, "SELECT count(*) FROM (SELECT row_key FROM attempts WHERE outcome = 'ok' GROUP BY 1 HAVING count(*) > 1)") == 0
    assert is_locked(Path(spec.store)) is None


# Blocking.


def test_run_in_a_script_then_nothing_is_left_to_do(tmp_path):
    spec = job(tmp_path)
    summary = batchllm.run(spec, limit=10)
    assert (summary.exit_code, summary.rows.total, summary.rows.ok) == (0, 10, 10)
    assert batchllm.run(spec).attempts == 60
    again = batchllm.run(spec)
    assert (again.exit_code, again.attempts, again.rows.pending, again.cost_usd) == (
        0,
        60,
        0,
        pytest.approx(ask(spec, "SELECT sum(cost_usd) FROM attempts")),
    )
    is_whole(spec)
    lines = [json.loads(line) for line in (tmp_path / "t.results.jsonl").read_text().splitlines()]
    assert lines == [result.as_dict() for result in batchllm.results(spec)]


def test_run_takes_a_path_and_simulates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job(tmp_path)
    Path("spec.yaml").write_text(
        "input: 60.jsonl\nprompt: 'Say {{ text }}'\nrequest: {max_tokens: 5}\nmodels: {m: {provider: openai, model: gpt-6-luna, api_key_env: NOBODY_HAS_IT}}\n"
    )
    assert batchllm.run("spec.yaml", simulate=True, sample="50%").rows.total < 60
    summary = batchllm.run(Path("spec.yaml"), simulate=True, sample=5)
    assert (summary.rows.total, summary.store) == (5, str(tmp_path / "spec.sim.db"))
    with pytest.raises(batchllm.SpecError, match="NOBODY_HAS_IT"):
        batchllm.run("spec.yaml")


def test_run_inside_a_running_loop_and_from_threads(tmp_path):
    specs = [job(tmp_path, name=f"t{i}") for i in range(4)]
    summaries = []

    async def main():
        summaries.append(batchllm.run(specs[0]))
        return batchllm.map(["one"], model="simulated")

    assert asyncio.run(main())[0].ok
    threads = [threading.Thread(target=lambda spec=spec: summaries.append(batchllm.run(spec))) for spec in specs[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_SECONDS)
    assert [summary.exit_code for summary in summaries] == [0] * 4
    for spec in specs:
        is_whole(spec)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"limit": 0}, "limit"),
        ({"sample": "0%"}, "sample"),
        ({"sample": "some"}, "sample"),
        ({"retry_failed": ["timout"]}, "timout"),
        ({"if_running": "skip"}, "if_running"),
    ],
)
def test_flags_that_mean_nothing_are_refused(tmp_path, flags, words):
    with pytest.raises(batchllm.SpecError, match=words):
        batchllm.run(job(tmp_path), **flags)
    assert not (tmp_path / "t.db").exists()


def test_unknown_flags_and_rows_that_are_none(tmp_path):
    with pytest.raises(TypeError, match="budgt"):
        batchllm.run(job(tmp_path), budgt=1)
    frame = types.SimpleNamespace(to_dict=None, columns=None)
    for rows, words in ((7, "int"), ("text", "str"), ({"a": 1}, "dict"), (frame, "to_dict")):
        with pytest.raises(TypeError, match=words):
            batchllm.run(job(tmp_path), rows=rows)


def test_errors_of_spec_and_store(tmp_path):
    with pytest.raises(batchllm.SpecError, match="did you mean"):
        batchllm.Job(modls={})
    with pytest.raises(batchllm.SpecError, match="no such file"):
        batchllm.load(tmp_path / "none.yaml")
    batchllm.run(job(tmp_path), limit=1)
    with pytest.raises(batchllm.StoreError, match="belongs to the job 't'") as caught:
        batchllm.run(job(tmp_path, name="other", store=str(tmp_path / "t.db")))
    assert (caught.value.exit_code, isinstance(caught.value, batchllm.BatchLLMError)) == (5, True)


def test_failed_rows_go_again_when_told(tmp_path):
    rows = [{"text": "fine"}, {"other": "no text"}]
    spec = job(tmp_path, prompt="Say {{ text }}")
    assert batchllm.run(spec, rows=rows).errors == {"template": 1}
    assert batchllm.run(spec, rows=rows, retry_failed=["timeout"]).errors == {"template": 1}
    assert batchllm.run(spec, rows=rows, retry_failed=True).exit_code == 1
    assert ask(spec, "SELECT count(*) FROM history") == 1


def test_notes_go_to_the_log_or_to_the_listener(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="batchllm")
    events = []
    spec = job(tmp_path, latency_ms=20)

    async def left(**flags):
        async with batchllm.open(spec, **flags) as session:
            async for _ in session.stream(new_only=True):
                break

    asyncio.run(left())
    assert "left by the program" in caplog.text
    caplog.clear()
    asyncio.run(left(listener=events.append))
    assert caplog.text == ""
    assert any("left by the program" in getattr(event, "text", "") for event in events)


# Ctrl-C.

SCRIPT = """
import asyncio, os, signal, sys, threading
import batchllm

class Kill:
    told = False
    def __call__(self, event):
        if type(event).__name__ == "Progress" and event.ok >= 4 and not self.told:
            self.told = True
            os.kill(os.getpid(), signal.SIGINT)

def mine(*args):
    raise AssertionError("the handler from before must not be called by a run's own signal")

signal.signal(signal.SIGINT, mine)
spec = batchllm.load(sys.argv[1])
def call():
    return batchllm.run(spec, listener=Kill())
async def in_loop():
    signal.signal(signal.SIGINT, mine)
    return call()
summary = asyncio.run(in_loop()) if sys.argv[2] == "loop" else call()
assert signal.getsignal(signal.SIGINT) is mine
print(summary.exit_code, summary.stopped_by, summary.rows.ok > 0, summary.reserved_usd)
"""


@pytest.mark.parametrize("where", ["script", "loop"])
def test_ctrl_c_drains_and_returns_the_summary(tmp_path, where):
    spec = job(tmp_path, rows=2000, latency_ms=20)
    (tmp_path / "spec.json").write_text(spec.text)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "spec.json"), where], capture_output=True, text=True, timeout=LONG_SECONDS)
    assert done.stdout.split() == ["130", "interrupt", "True", "0.0"], done.stderr
    assert attempts(spec, outcome="in_flight") == attempts(spec, outcome="cancelled") == 0


# Async.


def test_a_cancelled_run_is_resumable_and_owns_up_to_what_was_in_flight(tmp_path):
    spec = job(tmp_path, latency_ms=50)

    async def main():
        task = asyncio.create_task(batchllm.run_async(spec))
        await until(lambda: Path(spec.store).exists() and is_there(spec, "SELECT count(*) > 5 FROM results"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert is_locked(Path(spec.store)) is None
        lost = attempts(spec, billed="maybe")
        assert 0 < lost <= WIDTH
        assert attempts(spec, outcome="in_flight") == 0
        summary = await batchllm.run_async(spec)
        assert (summary.exit_code, summary.attempts) == (0, 60 + lost)
        assert summary.reserved_usd > 0

    asyncio.run(main())
    is_whole(spec)


def is_there(spec, query) -> bool:
    try:
        return bool(ask(spec, query))
    except sqlite3.OperationalError:
        return False  # the schema is being made


def test_a_stream_gives_each_row_once_and_earlier_ones_first(tmp_path):
    spec = job(tmp_path)
    batchllm.run(spec, limit=7)

    async def main(**flags):
        async with batchllm.open(spec) as session:
            with pytest.raises(RuntimeError, match="goes on"):
                assert session.summary
            found = []
            async for result in session.stream(**flags):
                assert ask(spec, f"SELECT count(*) FROM results WHERE row = {result.row}") == 1, "delivered before its commit"
                found.append(result)
            with pytest.raises(RuntimeError, match="one stream"):
                session.stream()
        assert session.summary.exit_code == 0
        return found

    found = asyncio.run(main())
    assert [result.row for result in found[:7]] == list(range(7))
    assert sorted(result.row for result in found) == list(range(60))
    stored = {result.row: result for result in batchllm.results(spec)}
    assert all(result.as_dict() == stored[result.row].as_dict() for result in found)
    assert asyncio.run(main(new_only=True)) == []
    assert len(asyncio.run(main())) == 60


def test_a_stream_leaves_out_what_the_run_will_not_answer_or_answers_anew(tmp_path):
    path = tmp_path / "in.jsonl"

    def write(texts):
        path.write_text("".join(json.dumps({"custom_id": key, "text": text}) + "\n" for key, text in texts.items()))

    async def streamed(spec, **flags):
        async with batchllm.open(spec, **flags) as session:
            return [result.custom_id async for result in session.stream()]

    write({"a": "one", "b": "two", "c": "three", "d": "four"})
    batchllm.run(job(tmp_path, input=str(path)))
    write({"a": "one", "b": "other", "d": "four", "e": "five"})
    spec = job(tmp_path, input=str(path), on_change="rerun")
    found = asyncio.run(streamed(spec))
    assert (found[:2], sorted(found[2:])) == (["a", "d"], ["b", "e"])
    assert asyncio.run(streamed(spec, limit=2)) == ["a", "b"]
    assert set(asyncio.run(streamed(spec, sample="50%"))) < {"a", "b", "d", "e"}


@pytest.mark.parametrize("how", ["break", "error"])
def test_leaving_a_stream_drains_and_closes(tmp_path, how):
    spec = job(tmp_path, latency_ms=20)

    async def main():
        async with batchllm.open(spec) as session:
            async for _ in session.stream():
                await until(lambda: attempts(spec, outcome="in_flight") > 0)
                if how == "error":
                    raise KeyError("mine")
                break
        return session.summary

    if how == "error":
        with pytest.raises(KeyError, match="mine"):
            asyncio.run(main())
    else:
        summary = asyncio.run(main())
        assert (summary.exit_code, summary.stopped_by) == (130, "stop")
        assert summary.rows.ok < 60
    assert is_locked(Path(spec.store)) is None
    assert attempts(spec) == attempts(spec, outcome="ok") < 60, "what was in flight finished"
    batchllm.run(spec)
    is_whole(spec)
    assert attempts(spec) == 60


def test_a_session_that_is_not_read_sends_nothing(tmp_path):
    spec = job(tmp_path)

    async def main():
        async with batchllm.open(spec) as session:
            pass
        assert session.summary.attempts == 0
        with pytest.raises(RuntimeError, match="one run"):
            await session.__aenter__()
        with pytest.raises(RuntimeError, match="async with"):
            batchllm.open(spec).stream()

    asyncio.run(main())
    assert is_locked(Path(spec.store)) is None


def test_a_cancelled_reader_leaves_at_once(tmp_path):
    spec = job(tmp_path, latency_ms=5000)

    async def main():
        async with batchllm.open(spec) as session:
            async for _ in session.stream():
                raise AssertionError("an answer takes five seconds")

    async def around():
        task = asyncio.create_task(main())
        seen = []

        def on_their_way() -> bool:
            # The file shows a commit an instant before the run itself hears of it and sends: so it must be seen in several rounds of the loop.
            if Path(spec.store).exists() and is_there(spec, "SELECT count(*) > 0 FROM attempts WHERE outcome = 'in_flight'"):
                seen.append(True)
            return len(seen) >= 5

        await until(on_their_way)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 2
        assert is_locked(Path(spec.store)) is None

    asyncio.run(around())
    assert attempts(spec, billed="maybe") == attempts(spec) > 0


def test_errors_come_out_of_open(tmp_path):
    spec = job(tmp_path, latency_ms=20)

    async def main():
        async with batchllm.open(spec):
            with pytest.raises(batchllm.StoreError, match="in use"):
                async with batchllm.open(spec):
                    raise AssertionError("entered")
        with pytest.raises(batchllm.SpecError, match="no column"):
            async with batchllm.open(job(tmp_path, name="u"), rows=[{"txt": "a"}]):
                raise AssertionError("entered")

    asyncio.run(main())


def test_waiting_for_another_run(tmp_path):
    spec = job(tmp_path, latency_ms=20)

    async def main():
        async with batchllm.open(spec) as session:
            waiting = asyncio.create_task(batchllm.run_async(spec, if_running="wait"))
            async for _ in session.stream():
                assert not waiting.done()
        return await waiting

    assert asyncio.run(main()).attempts == 60


def test_a_slow_reader_holds_the_sender_back(tmp_path):
    spec = job(tmp_path, rows=300, latency_ms=1)

    async def main():
        seen = 0
        async with batchllm.open(spec) as session:
            async for _ in session.stream():
                seen += 1
                if seen in {1, 100}:
                    # The reader sleeps until the run stands still; unheld, it would only do so at its end.
                    await until(
                        lambda seen=seen: ask(spec, "SELECT count(*) FROM results") >= seen - 1 + WIDTH and attempts(spec, outcome="in_flight") == 0
                    )
                    assert attempts(spec) <= seen + 2 * WIDTH
        return seen

    assert asyncio.run(main()) == 300
    is_whole(spec, 300)


# A program's own rows.


def texts(count, prefix="x"):
    return [{"text": f"{prefix}{i}"} for i in range(count)]


async def collected(rows, spec, **flags):
    return [result async for result in batchllm.stream(rows, spec, **flags)]


@pytest.mark.parametrize("kind", ["list", "generator", "async"])
def test_rows_from_anywhere(tmp_path, kind):
    spec = job(tmp_path, latency_ms=0, concurrency=64)

    def rows(count):
        async def later():
            for row in texts(count):
                yield row

        return {"list": texts(count), "generator": (row for row in texts(count)), "async": later()}[kind]

    found = asyncio.run(collected(rows(400), spec))
    assert sorted(result.row for result in found) == list(range(400))
    again = asyncio.run(collected(rows(420), spec))
    assert len(again) == 420
    assert attempts(spec) == 420, "the first 400 were answered before"
    assert len(asyncio.run(collected(rows(430), spec, new_only=True))) == 10
    summary = batchllm.run(spec, rows=rows(5))
    assert (summary.exit_code, summary.rows.total, summary.rows.pending) == (0, 430, 0)


def test_rows_that_wait_for_answers_are_not_kept_waiting(tmp_path):
    """A source that gives its next row only after the answer to the last one: nothing may be gathered into larger pieces first."""
    spec = job(tmp_path)
    answered = asyncio.Event

    async def main():
        came = answered()
        came.set()

        async def conversation():
            for row in texts(8):
                await came.wait()
                came.clear()
                yield row

        found = 0
        async for _ in batchllm.stream(conversation(), spec):
            found += 1
            came.set()
        return found

    assert asyncio.run(asyncio.wait_for(main(), LONG_SECONDS)) == 8


def test_an_endless_source_is_read_no_faster_than_its_results_are_taken(tmp_path):
    spec = job(tmp_path)
    given = 0
    closed = []

    async def endless():
        nonlocal given
        try:
            while True:
                given += 1
                yield {"text": f"x{given}"}
        finally:
            closed.append(True)

    async def main():
        seen = 0
        async with contextlib.aclosing(batchllm.stream(endless(), spec)) as results:
            async for _ in results:
                seen += 1
                if seen == 200:
                    break
        assert closed == [True]
        assert is_locked(Path(spec.store)) is None

    asyncio.run(main())
    assert given < 200 + 2500, "a few pieces and the lane's queue, however long it goes on"


def test_bad_rows_need_no_request_and_still_wait_for_the_reader(tmp_path):
    spec = job(tmp_path)
    given = 0

    def bad():
        nonlocal given
        while True:
            given += 1
            yield {"other": given}

    async def main():
        async with batchllm.open(spec, rows=bad()) as session:
            async for result in session.stream():
                assert result.error.code == "template"
                # Unheld, thousands would be read in this time; a busy machine can only make the test easier.
                for _ in range(100):
                    await asyncio.sleep(POLL_SECONDS)
                    assert given < 1500
                break

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["generator", "async"])
def test_an_error_of_the_rows_is_raised_after_the_run_was_closed(tmp_path, kind):
    spec = job(tmp_path)

    def rows():
        yield from texts(30)
        raise LookupError("the cursor is gone")

    async def rows_async():
        for row in texts(30):
            yield row
        raise LookupError("the cursor is gone")

    with pytest.raises(LookupError, match="the cursor is gone"):
        asyncio.run(collected(rows() if kind == "generator" else rows_async(), spec))
    assert is_locked(Path(spec.store)) is None
    with pytest.raises(LookupError):
        batchllm.run(spec, rows=rows() if kind == "generator" else rows_async())
    assert len(asyncio.run(collected(texts(30), spec))) == 30


def test_a_source_that_blocks_does_not_keep_a_run_from_ending(tmp_path):
    spec = job(tmp_path)
    stuck = threading.Event()

    def rows():
        yield from texts(3)
        stuck.wait(LONG_SECONDS)

    async def main():
        async with batchllm.open(spec, rows=rows()) as session:
            async for _ in session.stream():
                break
        return session.summary

    began = time.monotonic()
    assert asyncio.run(main()).stopped_by == "stop"
    assert time.monotonic() - began < LONG_SECONDS / 2
    stuck.set()


def test_rows_that_ask_something_else_than_before(tmp_path):
    rows = [{"custom_id": "a", "text": "one"}, {"custom_id": "b", "text": "two"}]
    other = [{"custom_id": "a", "text": "one"}, {"custom_id": "b", "text": "another"}]
    batchllm.run(job(tmp_path), rows=rows)
    assert batchllm.run(job(tmp_path), rows=rows).attempts == 2
    with pytest.raises(batchllm.Stopped, match=r'say what to do: on_change="rerun" or on_change="keep"') as caught:
        asyncio.run(collected(other, job(tmp_path)))
    assert caught.value.summary.exit_code == 2
    assert batchllm.run(job(tmp_path, on_change="keep"), rows=other).attempts == 2
    assert batchllm.run(job(tmp_path, on_change="rerun"), rows=other).attempts == 3


def test_a_stream_that_stops_early_says_so(tmp_path):
    spec = job(tmp_path, budget={"usd": 0.00005})

    async def main():
        found = []
        with pytest.raises(batchllm.Stopped, match="budget") as caught:
            async for result in batchllm.stream(texts(60), spec):
                found.append(result)  # noqa: PERF401 - what came before the error is wanted
        return found, caught.value.summary

    found, summary = asyncio.run(main())
    assert (summary.exit_code, summary.stopped_by, summary.rows.ok) == (3, "budget", len(found))
    assert 0 < len(found) < 60


# map.


@pytest.mark.parametrize(
    ("items", "prompt", "statuses"),
    [
        (["one", "two", "one"], None, ["ok", "ok", "ok"]),
        (["one", "two"], "Say {{ text }}", ["ok", "ok"]),
        (["one", "two"], {"system": "Short.", "user": "{{ item }}"}, ["ok", "ok"]),
        ([{"a": 1}, {"a": "x"}], "Say {{ a }}", ["ok", "ok"]),
        ([{"messages": [{"role": "user", "content": "hello"}]}, {"prompt": "{{ not a template }}"}, 7], None, ["ok", "ok", "failed"]),
        ([{"custom_id": "k", "text": "a"}, {"custom_id": "k", "text": "b"}], "Say {{ text }}", ["ok", "failed"]),
        ([], None, []),
    ],
)
def test_map(items, prompt, statuses):
    found = batchllm.map(iter(items), model="simulated", prompt=prompt, budget_usd=1, request={"max_tokens": 20})
    assert [result.status for result in found] == statuses
    assert [result.row for result in found] == list(range(len(items)))


def test_map_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    batchllm.map(["one"], model="simulated")
    with pytest.raises(batchllm.Stopped):
        batchllm.map(["one"], model="simulated", budget_usd=0)
    assert list(tmp_path.iterdir()) == []


def test_map_keeps_the_order_and_goes_on_in_a_store(tmp_path):
    store = tmp_path / "kept.db"
    model = {"provider": "simulated", "simulator": {"latency_ms": 1}}
    first = batchllm.map([f"word {i}" for i in range(20)], model, store=store)
    mixed = batchllm.map([f"word {i}" for i in (30, 5, 19, 0, 5)], model, store=store)
    assert [mixed[i].output for i in (1, 2, 3)] == [first[i].output for i in (5, 19, 0)]
    assert attempts(types.SimpleNamespace(store=store)) == 22, "only the new word and the second 5 were asked"
    cold = batchllm.map(["word 5"], model, store=store, request={"temperature": 0.5})
    assert attempts(types.SimpleNamespace(store=store)) == 23, "another request is another answer"
    assert cold[0].ok
    assert sum(1 for _ in batchllm.results(store)) == 22


def test_map_that_stops_early(tmp_path):
    items = [f"word {i}" for i in range(40)]
    keys = {"request": {"max_tokens": 10}, "store": tmp_path / "s.db", "concurrency": 2}
    with pytest.raises(batchllm.Stopped, match=r"raise budget_usd to go on.*call again") as caught:
        batchllm.map(items, "simulated", budget_usd=0.00002, **keys)
    stopped = caught.value
    assert (len(stopped.results), stopped.summary.stopped_by, stopped.summary.exit_code) == (40, "budget", 3)
    done = [result for result in stopped.results if result is not None]
    assert 0 < len(done) < 40
    assert all(stopped.results[result.row] is result for result in done)
    assert all(result.ok for result in batchllm.map(items, "simulated", budget_usd=1, **keys))
    with pytest.raises(batchllm.Stopped, match="store="):
        batchllm.map(items, "simulated", budget_usd=0)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"model": "gpt-6-luna"}, "openai:gpt-6-luna"),
        ({"model": 3}, "int"),
        ({"model": "opnai:gpt-6-luna"}, "opnai"),
        ({"model": "simulated", "schema": {"type": "objekt"}}, "output.schema"),
        ({"model": "simulated", "request": {"temperature": "hot"}}, "temperature"),
        ({"model": "simulated", "prompt": "{{ txt }}"}, "txt"),
        ({"model": "simulated", "budget_usd": -1}, "budget.usd"),
        ({"model": {"provider": "openai", "model": "x", "api_key_env": "NOBODY_HAS_IT"}}, "NOBODY_HAS_IT"),
    ],
)
def test_map_says_what_is_wrong(keys, words):
    with pytest.raises(batchllm.SpecError, match=words):
        batchllm.map(["one"], **keys)


# Results.


def test_results_of_jobs_and_stores(tmp_path, monkeypatch):
    spec = job(tmp_path, output={"keep": ["text"]})
    with pytest.raises(batchllm.StoreError, match="no store yet"):
        list(batchllm.results(spec))
    batchllm.run(spec)
    (tmp_path / "spec.json").write_text(spec.text)
    for where in (spec, tmp_path / "t.db", str(tmp_path / "spec.json")):
        found = batchllm.results(where)
        assert [result.row for result in found] == [result.row for result in found] == list(range(60))
    assert repr(found) == f"Results('{tmp_path}/t.db')"
    for none in (tmp_path / "none.db", tmp_path / "none.yaml"):
        with pytest.raises(batchllm.BatchLLMError, match="no store yet|no such file"):
            list(batchllm.results(none))

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install"):
        found.to_pandas()
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=list))
    line = found.to_pandas()[3]
    assert (line["custom_id"], line["input.text"], line["error_code"]) == ("r3", "number 3", None)
    assert line["output_tokens"] > 0


def test_signals_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    batchllm.run(job(tmp_path), limit=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


KEEP_CANCELLING = """
import asyncio, random, sys
import batchllm
from batchllm.store import is_locked

random.seed(7)
def spec(words, **keys):
    model = {"provider": "simulated", "limits": "none", "simulator": {"latency_ms": 1}}
    return batchllm.Job(name="t", input="in.jsonl", prompt=words + " {{ text }}", request={"max_tokens": 5}, models={"m": model}, **keys)

async def cancelled(job, **keys):
    task = asyncio.create_task(batchllm.run_async(job, **keys))
    await asyncio.sleep(random.uniform(0.02, 0.1))
    for _ in range(3):  # impatient: while it closes, it is cancelled again
        task.cancel()
        for _ in range(random.randint(0, 20)):
            await asyncio.sleep(0)
    try:
        await task
    except (asyncio.CancelledError, batchllm.SpecError):
        return

async def main():
    for _ in range(8):
        await cancelled(spec("a"))
    await batchllm.run_async(spec("a"))
    for _ in range(8):
        await cancelled(spec("b"))  # in the pass that compares, which works in a thread
    print(len(list(batchllm.results(spec("a")))))

with open("in.jsonl", "w") as file:
    file.writelines('{"text": "x%d"}\\n' % i for i in range(2000))
asyncio.run(main())
"""


def test_cancelling_again_and_again_never_takes_the_process_down(tmp_path):
    done = subprocess.run([sys.executable, "-c", KEEP_CANCELLING], capture_output=True, text=True, timeout=2 * LONG_SECONDS, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "2000"), done.stderr[-2000:]
