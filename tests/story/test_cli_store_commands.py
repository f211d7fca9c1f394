"""status, export, errors, retry and settle, as a user calls them on a store that a killed run left behind."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from batchllm.cli import main
from batchllm.core.virtual import run_virtual
from batchllm.rows.files import resolve
from batchllm.rows.read import read
from batchllm.store import Deployment, Store
from batchllm.store.intake import Intake
from batchllm.store.lock import StoreLock
from batchllm.store.records import Answer, AttemptEnd, AttemptStart, Body
from batchllm.store.settle import shares

SPEC = """
input: in.jsonl
prompt: "Label: {{ text }}"
output: {keep: [lang]}
models:
  mini: {provider: openai-compatible, model: m-1, base_url: "http://127.0.0.1:9/v1", api_key_env: none}
  large: {provider: openai-compatible, model: m-2, base_url: "http://127.0.0.1:9/v1", api_key_env: none}
routes: [{use: mini}]
"""
LINES = [
    *({"custom_id": f"r{n}", "text": f"text {n}", "lang": "en"} for n in range(4)),
    None,
    *({"custom_id": f"r{n}", "text": f"text {n}", "lang": "fr"} for n in (5, 6)),
]
COMPLETION = {"id": "chatcmpl-theirs", "object": "chat.completion", "choices": [{"message": {"content": "out0"}}]}
REJECTED = {"error": {"message": "bad parameter", "type": "invalid_request_error"}}


class Attempts:
    """Writes attempts and answers into a store, one row after the other."""

    def __init__(self, store: Store, deployment: int, *, simulated: bool) -> None:
        self.store, self.deployment, self.simulated = store, deployment, int(simulated)
        self.attempt_id = 0
        self.per_row: dict[int, int] = {}

    async def attempt(self, key, *, outcome, billed, cost, reserved=1000, status=None, body=None):
        writer = self.store.writer
        self.attempt_id += 1
        self.per_row[key] = self.per_row.get(key, 0) + 1
        kind = "first" if self.per_row[key] == 1 else "retry"
        await writer.journal(AttemptStart(self.attempt_id, key, self.per_row[key], kind, self.deployment, self.simulated, 1000.0, reserved, "v", 1))
        if outcome is None:
            return
        tokens = (10, 4, 0, 0, 0) if outcome == "ok" else (None,) * 5
        stored = Body(self.attempt_id, key, self.per_row[key], '{"model":"m-1"}', body) if body is not None else None
        writer.end(
            AttemptEnd(1001.0, status, outcome, 0, 0, billed, cost, None, *tokens, f"req_{self.attempt_id}", None, None, self.attempt_id), stored
        )

    def answer(self, key, *, output=None, cost=None, error=None, sent=True):
        code, message, status, provider_code, retryable = error or (None,) * 5
        tokens = (10, 4, 0, 0, 0) if error is None else (None,) * 5
        self.store.writer.answer(
            Answer(
                key, "ok" if error is None else "failed", output, None, self.deployment if sent else None, "m-1-2026", "stop" if error is None else None,
                None, *tokens, cost, self.per_row.get(key, 0), 0.5, code, message, status, provider_code, retryable, None, f"v1:{key}", 1, 1001.0,
                '{"lang":"en"}' if sent else None, self.attempt_id if sent else None,
            ),
            None,
        )  # fmt: skip


def build(folder: Path, *, simulated: bool = False, spec: str = SPEC, name: str = "job") -> Path:
    """Seven rows: two ok, four failed (timeout, 400, bad line, 404), one in flight when its run died."""
    (folder / f"{name}.yaml").write_text(spec)
    (folder / "in.jsonl").write_text("".join((json.dumps(line) if line else "no json") + "\n" for line in LINES))
    store = Store.open(
        folder / f"{name}.db", name=name, spec_text=spec, spec_path=str(folder / f"{name}.yaml"), folder=str(folder), version="0", now_utc=1.0
    )
    deployment = store.deployment(Deployment(name="mini", provider="openai-compatible", base_url="", model="m-1"))
    store.begin_run(now_utc=1000.0, version="0", options="{}", cap_pico=10**12)

    async def fill() -> None:
        writer = store.start(inline=True, on_commit=lambda _: None, on_failure=print)
        rows = [row for chunk in read(resolve([str(folder / "in.jsonl")])) for row in chunk]
        await writer.call(lambda connection: Intake(connection, fresh=True, stream=False, adding=True).take(rows))
        await writer.call(lambda connection: connection.execute("UPDATE job SET total_rows = 7"))
        log = Attempts(store, deployment, simulated=simulated)
        await log.attempt(1, outcome="ok", billed="yes", cost=700, status=200, body=json.dumps(COMPLETION))
        log.answer(1, output="out0", cost=700)
        await log.attempt(2, outcome="timeout", billed="maybe", cost=None, reserved=500)
        await log.attempt(2, outcome="ok", billed="yes", cost=300, status=200)
        log.answer(2, output="out1", cost=300)
        await log.attempt(3, outcome="timeout", billed="maybe", cost=None, reserved=501)
        log.answer(3, error=("timeout", "no answer in 120 s", None, None, 1))
        await log.attempt(4, outcome="rejected", billed="no", cost=0, status=400, body=json.dumps(REJECTED))
        log.answer(4, cost=0, error=("rejected", "bad parameter", 400, "unknown_parameter", 0))
        log.answer(5, error=("bad_row", "in.jsonl:5: is not JSON", None, None, 0), sent=False)
        await log.attempt(6, outcome="rejected", billed="no", cost=0, status=404)
        log.answer(6, cost=0, error=("rejected", "odd\x1b[31m words", 404, "it's", 0))
        await log.attempt(7, outcome=None, billed="maybe", cost=None, reserved=700)
        await writer.close()

    run_virtual(fill)
    store.close()
    return folder / f"{name}.db"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return build(tmp_path)


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]):
    """Calls the command line: (exit code, stdout, stderr)."""

    def run(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(args))
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return (int(end.value.code or 0), out, err)

    return run


def query(store: Path, sql: str):
    with closing(sqlite3.connect(store)) as connection:
        return connection.execute(sql).fetchall()


def change_store(store: Path, sql: str, values: tuple[object, ...] = ()) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(sql, values)


def lines(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


# status


def test_status_json_has_exactly_the_fields_of_the_contract(job, call):
    code, out, err = call("status", "job.yaml", "--json")
    assert (code, err) == (0, "")
    state = json.loads(out)
    # Ours, besides the contract's.
    assert (state.pop("budgets"), state.pop("provider_cost_usd"), sorted(state.pop("spend"))) == ([], None, ["by_day", "by_kind", "by_route"])
    assert (state.pop("shared"), state.pop("simulated_cost_usd")) == (0, None)
    telemetry = state.pop("telemetry")
    assert (telemetry["attempts_per_answer"], telemetry["busy_seconds"], telemetry["errors"]["rejected"]["attempts"]) == (3.0, 6.0, 2)
    assert state == {
        "job": "job",
        "store": str(job),
        "results": str(job.with_name("job.results.jsonl")),
        "rows": {"total": 7, "ok": 2, "failed": 4, "pending": 1},
        "cost_usd": 1000e-12,
        "reserved_usd": 1701e-12,
        "tokens": {"input": 20, "output": 8, "cached_input": 0, "cache_write": 0, "reasoning": 0},
        "attempts": 7,
        "retries": 1,
        "refusals": 0,
        "seconds": 0.0,
        "stopped_by": None,
        "errors": {"rejected": 2, "bad_row": 1, "timeout": 1},
        "state": "stopped",
        "possibly_billed": {"attempts": 3, "usd_max": 1701e-12},
        "superseded_usd": 0.0,
        "rate": {"requests_per_minute": 0.0, "tokens_per_minute": 0.0},
        "limited_by": None,
        "eta_seconds": None,
    }


def test_status_of_a_store_says_the_same_and_people_read_it_on_stderr(job, call):
    assert call("status", "job.db", "--json")[1] == call("status", "job.yaml", "--json")[1]
    code, out, err = call("status", "job.db")
    assert (code, out) == (0, "")
    assert "2 ok, 4 failed, 1 pending of 7" in err
    assert "3 requests may have been billed" in err
    assert "batchllm errors job.db" in err


def test_status_while_a_run_holds_the_store(job, call):
    lock = StoreLock(job)
    lock.take()
    try:
        change_store(job, "UPDATE runs SET limited_by = 'tpm', ended_at = NULL")
        state = json.loads(call("status", "job.yaml", "--json")[1])
    finally:
        lock.release()
    assert (state["state"], state["limited_by"], state["stopped_by"]) == ("running", "tpm", None)
    # What is in flight has its run behind it: it isn't possibly billed yet.
    assert state["possibly_billed"]["attempts"] == 2


@pytest.mark.parametrize(
    ("change", "rows", "state"),
    [
        ("UPDATE job SET total_rows = NULL", {"total": None, "ok": 2, "failed": 4, "pending": None}, "stopped"),
        # The input grew and the run that reads it died: its end isn't known.
        ("UPDATE job SET total_rows = 6", {"total": None, "ok": 2, "failed": 4, "pending": None}, "stopped"),
        ("UPDATE rows SET state = 1 WHERE state = 0", {"total": 7, "ok": 3, "failed": 4, "pending": 0}, "finished"),
    ],
)
def test_status_of_unknown_ends(job, call, change, rows, state):
    change_store(job, change)
    found = json.loads(call("status", "job.yaml", "--json")[1])
    assert (found["rows"], found["state"]) == (rows, state)


def test_status_watch_ends_with_the_run(job, call):
    code, _, err = call("status", "job.yaml", "--watch")
    assert code == 0
    assert "job: stopped" in err


def test_status_does_not_know_a_bound_that_nobody_knows(job, call):
    change_store(job, "UPDATE attempt_log SET reserved_pico = NULL WHERE attempt_id = 2")
    assert json.loads(call("status", "job.yaml", "--json")[1])["possibly_billed"] == {"attempts": 3, "usd_max": None}


# JOB


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("jbo.yaml",), 2, "did you mean job.yaml?"),
        (("job",), 2, "did you mean job.yaml?"),
        (("nowhere/x.yaml",), 2, "no such file"),
        (("job.yaml", "--name", "third"), 5, "there is no store yet"),
        (("job.yaml", "--simulate"), 5, "there is no store yet"),
        (("job.db", "--simulate"), 2, "is a store already"),
        (("job.yaml", "--store", "other.db"), 5, "belongs to the job 'other'"),
        (("text.db",), 5, "not a database"),
        (("empty.db",), 5, "holds no job yet"),
    ],
)
def test_jobs_that_are_not_there(job, call, tmp_path, args, code, words):
    build(tmp_path, name="other")
    (tmp_path / "other.yaml").unlink()
    (tmp_path / "text.db").write_text("no database at all, only text" * 10)
    (tmp_path / "empty.db").touch()
    found, out, err = call("status", *args)
    assert (found, out) == (code, "")
    assert words in err


def test_simulate_finds_the_simulated_store(job, call, tmp_path):
    job.rename(tmp_path / "job.sim.db")
    assert "add --simulate" in call("status", "job.yaml")[2]
    state = json.loads(call("status", "job.yaml", "--simulate", "--json")[1])
    assert state["results"] == str(tmp_path / "job.sim.results.jsonl")
    assert json.loads(call("status", "job.sim.db", "--json")[1])["results"] == state["results"]


# export


def test_export_is_what_run_writes(job, call):
    code, out, err = call("export", "job.yaml")
    found = lines(out)
    assert (code, err) == (0, "")
    assert [(line["row"], line["custom_id"], line["status"]) for line in found] == [
        (0, "r0", "ok"), (1, "r1", "ok"), (2, "r2", "failed"), (3, "r3", "failed"), (4, None, "failed"), (5, "r5", "failed"),
    ]  # fmt: skip
    assert found[0]["input"] == {"lang": "en"}


@pytest.mark.parametrize(
    ("args", "rows"),
    [
        (("--status", "ok"), [0, 1]),
        (("--where", "error_http_status = 400 or custom_id = 'r1'"), [1, 3]),
        (("--where", "row > 0 -- a comment", "--status", "ok"), [1]),
        (("--where", "json_extract(input, '$.lang') = 'en'", "--status", "failed"), [2, 3, 5]),
        (("--where", "0"), []),
    ],
)
def test_export_of_some_rows(job, call, args, rows):
    assert [line["row"] for line in lines(call("export", "job.yaml", *args)[1])] == rows


@pytest.mark.parametrize(
    "where",
    [
        "nonsense",
        "1) OR (1",
        "1; DELETE FROM rows",
        "1 LIMIT 1",
        "row = ?",
        "",
        "json_extract(output, '$.x') = 1",
        "row IN (DELETE FROM rows RETURNING 1)",
        "1 /*",
    ],
)
def test_bad_conditions_are_arguments_that_are_wrong(job, call, where):
    code, _, err = call("export", "job.yaml", "--where", where)
    assert code == 2
    assert "--where" in err
    assert query(job, "SELECT count(*) FROM rows") == [(7,)]


def test_export_with_input_columns(job, call):
    kept = lines(call("export", "job.yaml", "--with", "lang")[1])
    assert kept[0]["input"] == {"lang": "en"}
    text = lines(call("export", "job.db", "--with", "text", "--where", "row IN (1, 5)")[1])
    assert [line["input"] for line in text] == [{"lang": "en", "text": "text 1"}, {"lang": "en", "text": "text 5"}]
    everything = lines(call("export", "job.yaml", "--with", "all")[1])
    assert everything[0]["input"] == {"lang": "en", "custom_id": "r0", "text": "text 0"}


def test_export_csv_with_all_columns(job, call, tmp_path):
    assert call("export", "job.yaml", "--to", "out.csv", "--with", "all")[0] == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["input.text"] for row in rows] == ["text 0", "text 1", "text 2", "text 3", "", "text 5"]
    assert rows[2]["error_code"] == "timeout"


def reverse(path: Path) -> None:
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))


def cut(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))


@pytest.mark.parametrize(
    ("change", "args", "words"),
    [
        (lambda folder: None, ("--with", "txt"), "none of the first"),
        (lambda folder: (folder / "in.jsonl").unlink(), ("--with", "text"), "can't be read again"),
        (lambda folder: reverse(folder / "in.jsonl"), ("--with", "text"), "row 0 is another record"),
        (lambda folder: cut(folder / "in.jsonl"), ("--with", "text"), "row 3 is gone"),
    ],
)
def test_input_columns_that_can_not_be_had(job, call, tmp_path, change, args, words):
    change(tmp_path)
    code, _, err = call("export", "job.yaml", *args)
    assert code == 2
    assert words in err


def test_export_includes_bodies(job, call):
    found = lines(call("export", "job.yaml", "--include", "request,response")[1])
    assert (found[0]["request"], found[0]["response"]) == ({"model": "m-1"}, COMPLETION)
    assert (found[1]["request"], found[1]["response"]) == (None, None)
    assert found[3]["response"] == REJECTED


def test_export_openai(job, call):
    found = lines(call("export", "job.yaml", "--format", "openai")[1])
    assert found[0]["response"] == {"status_code": 200, "request_id": "req_1", "body": COMPLETION}
    assert found[1]["response"]["body"]["choices"][0]["message"]["content"] == "out1"
    assert (found[2]["response"], found[2]["error"]["code"]) == (None, "timeout")
    assert found[3]["response"] == {"status_code": 400, "request_id": "req_5", "body": REJECTED}
    assert found[5]["response"]["body"]["error"]["code"] == "it's"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--to", "in.jsonl"), "the job's own store, spec or input"),
        (("--to", "job.db"), ".db"),
        (("--to", "job.db", "--format", "jsonl"), "the job's own"),
        (("--to", "x.xlsx"), ".xlsx"),
        (("--to", "."), "is a folder"),
        (("--include", "headers"), "request and response"),
        (("--format", "openai", "--with", "all"), "fixed form"),
    ],
)
def test_exports_that_are_refused(job, call, args, words):
    before = job.read_bytes()
    code, _, err = call("export", "job.yaml", *args)
    assert code == 2
    assert words in err
    assert job.read_bytes() == before


def test_a_closed_stdout_ends_an_export_quietly(job):
    change_store(job, "UPDATE outcomes SET output = ?", ("x" * 300_000,))
    line = f"{shlex.quote(sys.executable)} -m batchllm export job.yaml | head -c 10; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONWARNINGS": "error"})
    assert (done.stdout, done.stderr) == ('{"custom_i0\n', "")


# errors


def test_errors_are_grouped_with_their_fix(job, call):
    code, out, err = call("errors", "job.yaml", "--json")
    found = json.loads(out)
    assert (code, err, found["failed"]) == (0, "", 4)
    by_cause = {(cause["code"], cause["http_status"]): cause for cause in found["causes"]}
    assert set(by_cause) == {("timeout", None), ("rejected", 400), ("rejected", 404), ("bad_row", None)}
    assert by_cause["timeout", None]["examples"] == [{"row": 2, "custom_id": "r2", "place": "in.jsonl:3", "message": "no answer in 120 s"}]
    assert by_cause["timeout", None]["commands"] == ["batchllm run job.yaml --retry-failed timeout"]
    assert by_cause["bad_row", None]["commands"] == ["batchllm run job.yaml"]


def test_the_retry_line_of_a_cause_means_that_cause_alone(job, call):
    causes = json.loads(call("errors", "job.yaml", "--json")[1])["causes"]
    (cause,) = [cause for cause in causes if cause["http_status"] == 404]
    retry, _ = cause["commands"]
    program, *args = shlex.split(retry)
    assert program == "batchllm"
    assert "1 row put back" in call(*args)[2]
    assert query(job, "SELECT row_key FROM rows WHERE state = 0") == [(6,), (7,)]


def test_errors_as_text(job, call):
    code, out, err = call("errors", "job.db")
    assert (code, out) == (0, "")
    assert "odd [31m words" in err  # the escape character is gone
    assert "\x1b" not in err
    assert "in.jsonl:3" in err
    assert "batchllm run job.db --retry-failed timeout" in err


def test_no_errors(job, call):
    call("retry", "job.yaml")
    assert call("errors", "job.yaml")[2] == "no row failed\n"


# retry


@pytest.mark.parametrize(
    ("args", "pending"),
    [
        ((), [3, 4, 5, 6, 7]),
        (("--code", "timeout,bad_row"), [3, 5, 7]),
        (("--id", "r0", "--id", "r3"), [1, 4, 7]),
        (("--where", "status = 'ok' and output = 'out1'"), [2, 7]),
        (("--code", "rejected", "--where", "error_http_status = 404"), [6, 7]),
        (("--id", "r6"), [7]),
        (("--code", "refused"), [7]),
    ],
)
def test_retry_puts_rows_back(job, call, args, pending):
    code, out, err = call("retry", "job.yaml", *args)
    assert (code, out) == (0, "")
    assert [key for (key,) in query(job, "SELECT row_key FROM rows WHERE state = 0 ORDER BY 1")] == pending
    count = len(pending) - 1
    assert (f"{count} row{'s' if count > 1 else ''} put back to pending. Next: batchllm run job.yaml" if count else "nothing was changed") in err
    assert query(job, "SELECT count(*) FROM history") == [(count,)]


def test_retry_on_another_model(job, call):
    assert "to be sent to large" in call("retry", "job.db", "--code", "timeout", "--model", "large")[2]
    assert query(job, "SELECT row_key, pin FROM rows WHERE pin IS NOT NULL") == [(3, "large")]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--model", "huge"), "it has mini, large"),
        (("--code", "timout"), "did you mean timeout?"),
        (("--code", " , "), "expected error codes"),
        (("--id", "r0", "--id", "nobody"), "no row has the id 'nobody'"),
        (("--where", "1; DELETE FROM rows"), "--where"),
        (("--where", "json_extract(output, '$.x') = 1"), "malformed JSON"),
    ],
)
def test_retries_that_are_refused_change_nothing(job, call, args, words):
    code, _, err = call("retry", "job.yaml", *args)
    assert code == 2
    assert words in err
    assert query(job, "SELECT count(*) FROM rows WHERE state = 0") == [(1,)]


@pytest.mark.parametrize("args", [("retry", "job.yaml"), ("settle", "job.yaml", "--billed", "none")])
def test_a_store_that_something_holds_is_not_changed(job, call, args, monkeypatch):
    monkeypatch.setattr("batchllm.cli._steer.PATIENCE_SECONDS", 0.1)
    lock = StoreLock(job)
    lock.take()
    try:
        code, _, err = call(*args)
    finally:
        lock.release()
    assert code == 5
    assert "in use by another run" in err


# settle


def test_settle_shows_what_is_open(job, call):
    code, out, err = call("settle", "job.yaml")
    assert (code, out) == (0, "")
    assert "3 requests may have been billed, at most $0.00000000170" in err
    assert query(job, "SELECT count(*) FROM settlements") == [(0,)]


@pytest.mark.parametrize(
    ("billed", "costs", "answers"),
    [
        ("0.000000001000", [293, 295, 412], {2: 593, 3: 295}),
        ("none", [0, 0, 0], {2: 300, 3: 0}),
        ("0", [0, 0, 0], {2: 300, 3: 0}),
        ("worst", [500, 501, 700], {2: 800, 3: 501}),
        ("$0.000000001702", [500, 501, 701], {2: 800, 3: 501}),
    ],
)
def test_settle_books_the_sum_exactly(job, call, billed, costs, answers):
    code, _, err = call("settle", "job.yaml", "--billed", billed)
    assert code == 0
    assert "settled 3 requests" in err
    settled = query(job, "SELECT cost_pico, billed FROM attempt_log WHERE settled = 1 ORDER BY attempt_id")
    assert settled == [(cost, "yes" if cost else "no") for cost in costs]
    assert query(job, "SELECT word, attempts, reserved_pico, billed_pico, simulated FROM settlements") == [(billed, 3, 1701, sum(costs), 0)]
    assert dict(query(job, "SELECT row_key, cost_pico FROM outcomes WHERE row_key IN (2, 3)")) == answers
    assert ("above the worst case" in err) == (sum(costs) > 1701)
    state = json.loads(call("status", "job.yaml", "--json")[1])
    assert (state["reserved_usd"], state["possibly_billed"]["attempts"]) == (0.0, 0)
    assert state["cost_usd"] == pytest.approx((1000 + sum(costs)) / 1e12)


def test_settling_twice_books_once(job, call):
    call("settle", "job.yaml", "--billed", "0.000000001")
    code, _, err = call("settle", "job.yaml", "--billed", "0.000000001")
    assert (code, "nothing is open" in err) == (0, True)
    assert query(job, "SELECT count(*), sum(billed_pico) FROM settlements") == [(1, 1000)]


@pytest.mark.parametrize("billed", ["-1", "nan", "much", "inf", "0.0000000000001", "1e12", "1000000.01", ""])
def test_sums_that_are_none(job, call, billed):
    code, _, err = call("settle", "job.yaml", "--billed", billed)
    assert (code, "--billed" in err) == (2, True)
    assert query(job, "SELECT count(*) FROM settlements") == [(0,)]


def test_a_worst_case_that_nobody_knows_stays_open(job, call):
    change_store(job, "UPDATE attempt_log SET reserved_pico = NULL WHERE attempt_id = 2")
    assert "1 request without a known price" in call("settle", "job.yaml", "--billed", "worst")[2]
    assert query(job, "SELECT attempt_id FROM attempt_log WHERE billed = 'maybe'") == [(2,)]
    call("settle", "job.yaml", "--billed", "0.000000000007")
    assert query(job, "SELECT cost_pico FROM attempt_log WHERE attempt_id = 2") == [(7,)]


def test_simulated_dollars_are_settled_apart(job, call):
    change_store(job, "UPDATE attempt_log SET simulated = 1 WHERE attempt_id = 4")
    shown = call("settle", "job.yaml")[2]
    assert "2 requests may have been billed" in shown
    assert "1 simulated request may have been billed" in shown
    call("settle", "job.yaml", "--billed", "0.000000000010")
    assert query(job, "SELECT sum(cost_pico) FROM attempt_log WHERE settled = 1") == [(10,)]
    assert query(job, "SELECT attempt_id FROM attempt_log WHERE billed = 'maybe'") == [(4,)]
    assert "simulated booked" in call("settle", "job.yaml", "--simulated", "--billed", "worst")[2]


def test_a_superseded_attempt_does_not_cost_the_new_answer(job, call):
    change_store(job, "UPDATE rows SET cost_after = 1 WHERE row_key = 2")
    call("settle", "job.yaml", "--billed", "worst")
    assert query(job, "SELECT cost_pico FROM outcomes WHERE row_key = 2") == [(300,)]


@pytest.mark.parametrize(
    ("total", "bounds", "parts"),
    [
        (0, [1, 2], [0, 0]),
        (3, [1, 2], [1, 2]),
        (1, [1, 1, 1], [0, 0, 1]),
        (10, [0, 0], [5, 5]),
        (10, [None, None, None], [3, 3, 4]),
        (6, [2, None, 4], [1, 2, 3]),
        (10**18, [7, 0, 3], [7 * 10**17, 0, 3 * 10**17]),
    ],
)
def test_shares(total, bounds, parts):
    assert shares(total, bounds) == parts


@pytest.mark.parametrize("name", ["status", "export", "errors", "retry", "settle"])
def test_help_has_an_example(call, name):
    code, out, _ = call(name, "-h")
    assert code == 0
    assert f"batchllm {name} reviews.yaml" in out or "batchllm status jobs/quickstart.yaml" in out
