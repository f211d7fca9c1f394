"""Ctrl-C, SIGTERM, SIGSTOP, and readers that go away: nothing is lost, nothing is paid for in vain, and the run goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest
from story_world import Process, SimulatorProcess, World, simulator, until

IN_FLIGHT = 8


def started(world: World, *, latency_ms: int, rows: int = 60, flags: tuple[str, ...] = ("--json",)) -> tuple[SimulatorProcess, Process]:
    """A run with requests in flight: its provider has answered a first few."""
    provider = simulator(world, latency_ms=latency_ms)
    world.rows(rows)
    run = world.start("run", world.job(provider.url, model={"limits": {"concurrency": IN_FLIGHT}}), *flags)
    until(lambda: provider.requests >= IN_FLIGHT, what="the first answers")
    return provider, run


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_the_first_signal_drains(world: World, number: int, name: str) -> None:
    provider, run = started(world, latency_ms=150)
    run.signal(number)
    ended = run.end().expect(130)
    assert name in ended.err
    assert "run again to continue" in ended.err
    summary = ended.summary
    assert summary["stopped_by"] == "interrupt"
    assert summary["reserved_usd"] == 0
    # What was in flight was finished and kept: everything that the provider saw is a result.
    audit = provider.audit()
    assert all(record["delivered"] for record in audit)
    assert summary["rows"]["ok"] == len(audit) == len(world.results())
    assert IN_FLIGHT < summary["rows"]["ok"] < 60
    done = world.run("run", "job.yaml", "--json").expect(0)
    assert done.summary["rows"]["ok"] == done.summary["attempts"] == provider.requests == 60


def test_the_second_signal_stops_at_once(world: World) -> None:
    provider = simulator(world, latency_ms=10)
    # Stalls stay in flight until the run lets go of them.
    world.write("rows.jsonl", "".join(f'{{"q": "number {n}{"" if n < 20 else " [[sim:stall*1]]"}"}}\n' for n in range(20 + IN_FLIGHT)))
    job = world.job(provider.url, model={"limits": {"concurrency": IN_FLIGHT}})
    err = world.folder / "err"
    with err.open("w") as stderr:
        run = world.start("run", job, "--json", stderr=stderr)
    until(lambda: provider.requests == 20, what="all but the stalls")
    until(lambda: world.ask("SELECT count(*) FROM attempts WHERE outcome = 'in_flight'") == [(IN_FLIGHT,)], what="the stalls in the journal")
    run.signal(signal.SIGINT)
    until(lambda: "Ctrl-C again" in err.read_text(), what="the first Ctrl-C's message")
    assert run.running
    began = time.monotonic()
    run.signal(signal.SIGINT)
    ended = run.end().expect(130)
    assert time.monotonic() - began < 5, "with a timeout of 120 seconds, this is at once"
    assert ended.summary["rows"]["ok"] == 20
    assert "export" in err.read_text()
    assert "Traceback" not in err.read_text()
    assert "job.results.jsonl" not in world.left()
    # All that was sent and not answered, and nothing else: by the provider's own log.
    listed = world.ask("SELECT outcome FROM attempts WHERE billed = 'maybe'")
    until(lambda: provider.requests == 20 + len(listed), what="the provider's word for each")
    assert set(listed) == {("cancelled",)}
    assert 0 < len(listed) <= IN_FLIGHT
    assert ended.summary["reserved_usd"] > 0
    done = world.run("run", job, "--json", "--set", "retry.timeout_seconds=2").expect(0)
    assert done.summary["rows"]["ok"] == len(world.results()) == 20 + IN_FLIGHT
    assert done.summary["attempts"] == provider.requests == 20 + len(listed) + IN_FLIGHT + (IN_FLIGHT - len(listed))


def test_a_run_that_was_suspended_goes_on(world: World) -> None:
    provider, run = started(world, latency_ms=60)
    run.signal(signal.SIGSTOP)
    time.sleep(1.5)
    stood = provider.requests
    time.sleep(0.3)
    assert provider.requests == stood
    assert run.running
    run.signal(signal.SIGCONT)
    ended = run.end().expect(0)
    assert ended.summary["rows"]["ok"] == 60
    assert ended.summary["attempts"] == provider.requests == 60


# Pipes.


def test_rows_from_stdin_and_results_to_stdout(world: World, provider: SimulatorProcess) -> None:
    lines = "".join(f'{{"q": "line {n}"}}\n' for n in range(40))
    job = world.job(provider.url)
    ended = world.run("run", job, "--input", "-", "--results", "-", "--json", text=lines).expect(0)
    results = [json.loads(line) for line in ended.out.splitlines()]
    assert [line["row"] for line in results] == list(range(40))
    assert {line["status"] for line in results} == {"ok"}
    assert json.loads(ended.err.splitlines()[-1])["rows"] == {"total": 40, "ok": 40, "failed": 0, "pending": 0}
    assert not (world.folder / "job.results.jsonl").exists()
    # The same lines again: nothing is sent, the same results. More lines are added.
    before = provider.requests
    again = world.run("run", job, "--input", "-", "--results", "-", "--json", text=lines).expect(0)
    assert again.out == ended.out
    assert provider.requests == before
    more = world.run("run", job, "--input", "-", "--results", "-", "--json", text='{"q": "one more"}\n').expect(0)
    assert provider.requests == before + 1
    assert [json.loads(line)["row"] for line in more.out.splitlines()] == [40]  # one line for each line given


def test_results_come_while_rows_still_do(world: World, provider: SimulatorProcess) -> None:
    run = world.start("run", world.job(provider.url), "--input", "-", "--results", "-", "--quiet", stdin=subprocess.PIPE)
    stdin, stdout = run.popen.stdin, run.popen.stdout
    assert stdin is not None
    assert stdout is not None
    for text in ("one", "two"):
        stdin.write(f'{{"q": "{text}"}}\n')
        stdin.flush()
        assert json.loads(stdout.readline())["status"] == "ok"  # its writer hasn't closed the pipe
    assert run.running
    assert run.end().code == 0


def test_where_holds_in_a_pipe(world: World, provider: SimulatorProcess) -> None:
    job = world.job(provider.url, input={"path": "rows.jsonl", "where": "n > 1"}, prompt="{{ n }}")
    ended = world.run("run", job, "--input", "-", "--results", "-", text='{"n": 1}\n{"n": 2}\n').expect(0)
    assert [json.loads(line)["row"] for line in ended.out.splitlines()] == [0]


def test_a_file_that_grows_is_followed(world: World, provider: SimulatorProcess) -> None:
    rows = world.write("rows.jsonl", '{"q": "one"}\n{"q": "left out"}\n')
    job = world.job(provider.url, input={"path": "rows.jsonl", "where": "q != 'left out'"})
    run = world.start("run", job, "--follow", "--results", "-", "--quiet")
    stdout = run.popen.stdout
    assert stdout is not None
    assert json.loads(stdout.readline())["row"] == 0
    with rows.open("a") as file:
        file.write('{"q": "tw')
        file.flush()
        file.write('o"}\n')
    assert json.loads(stdout.readline())["row"] == 1
    run.signal(signal.SIGINT)
    run.end().expect(130)
    ended = world.run("run", job, "--follow", "--idle", "0.3", "--json").expect(0)
    assert ended.summary["rows"] == {"total": 2, "ok": 2, "failed": 0, "pending": 0}
    assert ended.summary["attempts"] == 2
    assert [line["status"] for line in world.results()] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--follow", "--input", "-"], "stdin is read to its end anyway"),
        (["--idle", "5"], "--idle goes with --follow"),
        (["--follow", "--input", "x.csv"], "only a plain .jsonl file"),
        (["--follow", "--input", "*.jsonl"], "follows one file"),
        (["--follow", "--input", "nowhere.jsonl"], "No such file"),
    ],
)
def test_what_cannot_be_followed(world: World, flags: list[str], words: str) -> None:
    assert words in world.run("run", world.job(None), *flags).expect(2).err


def test_a_pipe_whose_reader_has_gone_sends_no_more(world: World) -> None:
    provider = simulator(world, latency_ms=20)
    lines = world.write("lines", "".join(f'{{"q": "line {n}"}}\n' for n in range(400)))
    reader, writer = os.pipe()
    with lines.open() as stdin:
        job = world.job(provider.url, model={"limits": {"concurrency": 4}})
        run = world.start("run", job, "--input", "-", "--results", "-", stdin=stdin.fileno(), stdout=writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as head:
        assert json.loads(head.readline())["row"] == 0
    ended = run.end().expect(130)
    assert "reader of the results has gone" in ended.err
    assert provider.requests < 400


def test_ctrl_c_is_heard_while_stdin_is_silent(world: World, provider: SimulatorProcess) -> None:
    reading, writing = os.pipe()
    before = provider.requests
    with os.fdopen(writing, "w") as pipe:
        run = world.start("run", world.job(provider.url), "--input", "-", stdin=reading)
        os.close(reading)
        pipe.write('{"custom_id": "only", "q": "hello"}\n')
        pipe.flush()
        until(lambda: provider.requests > before, what="the first request")
        run.signal(signal.SIGINT)
        assert run.end().code == 130  # the pipe is still open
    assert [line["custom_id"] for line in world.results()] == ["only"]


def test_empty_stdin_is_no_error(world: World, provider: SimulatorProcess) -> None:
    before = provider.requests
    ended = world.run("run", world.job(provider.url), "--input", "-", "--results", "-", "--json", text="").expect(0)
    assert ended.out == ""
    assert json.loads(ended.err.splitlines()[-1])["rows"]["total"] == 0
    assert provider.requests == before


def test_a_killed_pipe_resumes_with_the_same_lines(world: World) -> None:
    provider = simulator(world, latency_ms=40)
    lines = "".join(f'{{"q": "line {n}"}}\n' for n in range(60))
    job = world.job(provider.url, model={"limits": {"concurrency": 4}})
    rows = world.write("lines", lines)
    with rows.open() as stdin:
        run = world.start("run", job, "--input", "-", "--results", "-", stdin=stdin.fileno())
        until(lambda: provider.requests >= 12, what="a dozen answers")
        run.kill()
    ended = world.run("run", job, "--input", "-", "--results", "-", text=lines).expect(0)
    results = [json.loads(line) for line in ended.out.splitlines()]
    assert [line["row"] for line in results] == list(range(60))
    assert 60 <= provider.requests <= 64


def test_a_reader_that_goes_away_costs_nothing(world: World) -> None:
    world.rows(3000)
    job = world.job(None, model={"simulator": {"latency_ms": 0}})
    reader, writer = os.pipe()
    run = world.start("run", job, "--results", "-", stdout=writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as head:
        first = json.loads(head.readline())
    ended = run.end().expect(0)
    assert first["custom_id"] == "r0"
    assert "Exception ignored" not in ended.err
    assert "BrokenPipe" not in ended.err
    assert world.ask("SELECT count(*) FROM results WHERE status = 'ok'") == [(3000,)]


# shell's redirection -> exit code without and with `--results - --json`
STREAMS = {">&-": (0, 0), "2>&-": (0, 0), "<&- >&- 2>&-": (0, 0), "2>/dev/full": (0, 5), ">/dev/full": (0, 5)}


@pytest.mark.parametrize("closed", STREAMS)
def test_closed_and_full_streams_lose_nothing(world: World, provider: SimulatorProcess, closed: str) -> None:
    world.rows(20)
    world.write("job.yaml", world.job(provider.url, store="${STORE}").read_text())
    for code, store, flags in zip(STREAMS[closed], ("one", "two"), ((), ("--results", "-", "--json")), strict=True):
        shell = subprocess.run(
            ["sh", "-c", f'exec "$0" -m batchllm run job.yaml "$@" {closed}', world.python, *flags],
            cwd=world.folder, env={**world.environ, "STORE": f"{store}.db"}, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert "Traceback" not in shell.stderr
        assert "Exception ignored" not in shell.stderr
        assert world.ask("SELECT count(*) FROM results WHERE status = 'ok'", name=store) == [(20,)]
        assert shell.returncode == code
        if code and "2>" not in closed:
            assert "batchllm export" in shell.stderr
