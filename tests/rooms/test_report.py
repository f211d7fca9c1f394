"""What people see: the summary's words, plain log lines, the live display's picture."""

from __future__ import annotations

import io
import sys
import time
from dataclasses import replace

import pytest
from rich.console import Console

from batchllm.core.events import Note, Progress, RowsCompared
from batchllm.core.nouns import Code
from batchllm.engine.summary import RowCounts, Summary, Tokens
from batchllm.report import choose
from batchllm.report.fixes import fix_of
from batchllm.report.live import LiveDisplay, picture
from batchllm.report.plain import PlainLog, progress_line
from batchllm.report.text import LIMITED_BY, about, clean, columns, number, span
from batchllm.report.words import money_words, row_words, summary_lines

PROGRESS = Progress(
    total=1000,
    ok=480,
    failed=2,
    in_flight=64,
    waiting=210,
    spent_pico=1_230_000_000_000,
    reserved_pico=40_000_000_000,
    cap_pico=20 * 10**12,
    simulated=False,
    requests_per_minute=3012.4,
    tokens_per_minute=398_200.0,
    limited_by="tpm",
    eta_seconds=250.0,
    seconds=242.0,
)
SUMMARY = Summary(
    requests=1010,
    job="reviews",
    store="/data/reviews.db",
    results="/data/reviews.results.jsonl",
    rows=RowCounts(total=1000, ok=998, failed=2, pending=0),
    cost_usd=2.41,
    reserved_usd=0.04,
    tokens=Tokens(input=12345, output=678, cached_input=100, reasoning=5),
    attempts=1010,
    retries=8,
    refusals=2,
    seconds=492.0,
    stopped_by=None,
    errors={"timeout": 2},
    exit_code=1,
)


@pytest.mark.parametrize(
    ("seconds", "words", "forecast"),
    [
        (0.04, "0.0 s", "0 s"),
        (59.9, "59.9 s", "60 s"),
        (242, "4:02", "4 min"),
        (11_045, "3:04:05", "3 h 4 min"),
        (183_845, "2 d 3:04:05", "2 d 3 h"),
        (3_600, "1:00:00", "1 h"),
        (None, "unknown", "unknown"),
        (float("inf"), "unknown", "unknown"),
    ],
)
def test_time(seconds, words, forecast):
    assert (span(seconds), about(seconds)) == (words, forecast)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("a\x1b[31mb", "a [31mb"), ("one\ntwo\r", "one two"), ("\u202eevil", "evil"), ("\ud800", "?"), ("ünïcödé", "ünïcödé"), ("a\x9bb", "a b")],
)
def test_texts_of_others_have_no_control_characters(text, cleaned):
    assert clean(text) == cleaned


def test_small_things():
    assert clean("abcdef", 4) == "abc…"
    assert (number(0), number(3.25), number(3012.4)) == ("0", "3.2", "3,012")
    assert columns([("a", "1"), ("bbb", "22")], right=frozenset({1})) == ["  a     1", "  bbb  22"]
    assert money_words(None, 0, simulated=False) == "unknown"
    assert money_words(10**12, 10**11, simulated=True) == "$1.00 simulated (at most $1.10)"
    assert row_words(RowCounts(total=None, ok=3, failed=0, pending=None)) == "3 ok (the input's end is not known yet)"


def test_every_error_code_has_a_fix_of_its_own():
    words = [fix_of(code).words for code in Code]
    assert len(set(words)) == len(words)
    assert fix_of("of a newer program").words not in words


def test_the_summary_says_what_came_out_and_what_to_do():
    assert summary_lines(SUMMARY, job="r.yaml --simulate", simulated=True) == [
        "reviews: finished after 8:12",
        "  rows     998 ok, 2 failed of 1,000",
        "  errors   timeout 2",
        "  spent    $2.41 simulated (at most $2.45)",
        "  tokens   12,345 in (100 cached, 1%), 678 out (5 reasoning)",
        "  sent     1,010 requests (8 retries, 2 refusals)",
        "  results  /data/reviews.results.jsonl",
        "  store    /data/reviews.db",
        "  -> 2 rows failed, see why: batchllm errors r.yaml --simulate",
        "  -> try them again: batchllm run r.yaml --simulate --retry-failed",
        "  -> $0.0400 is held for requests that may have been billed: batchllm settle r.yaml --simulate",
    ]


def test_a_results_file_that_nobody_wrote_is_not_named():
    nothing = replace(SUMMARY, stopped_by="budget", rows=RowCounts(total=5, ok=0, failed=0, pending=5))
    assert [line for line in summary_lines(nothing, job="r.yaml", simulated=False) if line.startswith("  results")] == []


@pytest.mark.parametrize(
    ("stopped_by", "pending", "title", "step"),
    [
        ("budget", 5, "stopped by the budget", "-> go on with more money: batchllm run r.yaml --budget USD"),
        ("interrupt", 5, "interrupted", "-> go on: batchllm run r.yaml"),
        (None, 5, "stopped", "-> go on: batchllm run r.yaml"),
    ],
)
def test_the_summary_of_a_run_that_stopped(stopped_by, pending, title, step):
    rows = RowCounts(total=10, ok=5, failed=0, pending=pending)
    lines = summary_lines(replace(SUMMARY, stopped_by=stopped_by, rows=rows, message="why\x1b"), job="r.yaml", simulated=False)
    assert lines[0] == f"reviews: {title} after 8:12"
    assert "  why" in lines
    assert f"  {step}" in lines


def log(events, *, quiet=False):
    stream = io.StringIO()
    with PlainLog("reviews", quiet=quiet, stream=stream, utc=lambda: 0.0) as listener:
        for event in events:
            listener(event)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S ", time.localtime(0))
    lines = stream.getvalue().splitlines()
    assert all(line.startswith(stamp) for line in lines)
    return [line.removeprefix(stamp) for line in lines]


def at(seconds: float) -> Progress:
    return replace(PROGRESS, seconds=seconds)


def test_plain_lines_come_every_ten_seconds_and_at_both_ends():
    lines = log([at(tenth / 2) for tenth in range(51)])
    assert lines[0] == "reviews: started"
    assert len(lines) == 4  # the start, after 10 and 20 seconds, the end
    assert lines[1] == (
        "reviews: 482 of 1,000 rows done (48.2 %), 2 failed, 64 in flight, 3,012 requests/min, 398,200 tokens/min, "
        "limited by tpm (tokens per minute), $1.23 spent + $0.0400 reserved of $20.00, about 4 min left"
    )
    assert lines[3] == "reviews: 482 of 1,000 rows done (48.2 %), 2 failed, $1.23 spent + $0.0400 reserved of $20.00, after 25.0 s"


def test_notes_come_at_once_with_where_the_run_stands():
    lines = log([at(0), Note(level="warning", text="mini is down\x1b"), at(9.5), RowsCompared(new=1, changed=2, removed=3, unchanged=4)])
    assert lines[1] == "warning: mini is down"
    assert lines[2].startswith("reviews: 482 of 1,000")
    assert lines[3] == "compared with the store: 1 new, 2 changed, 3 removed, 4 unchanged rows"
    assert len(lines) == 5


def test_quiet_says_errors_only():
    events = [at(0), at(30), Note(level="info", text="a"), Note(level="warning", text="b"), Note(level="error", text="c")]
    assert log(events, quiet=True) == ["error: c"]


def test_a_percentage_is_never_rounded_up_to_the_end():
    assert "(99.9 %)" in progress_line("x", replace(PROGRESS, total=100_000, ok=99_999, failed=0))


class Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("make", [lambda stream: PlainLog("x", stream=stream), lambda stream: LiveDisplay("x", stream=stream)])
def test_a_display_whose_terminal_is_gone_does_not_end_the_run(make):
    with make(Broken()) as display:
        display(PROGRESS)
        display(Note(level="error", text="x"))
        display.failed(ValueError("x"))
        display.finished(SUMMARY, job="x", simulated=False)


def painted(progress: Progress, width: int, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False, highlight=False)
    console.print(picture("reviews", progress, width=width, height=height))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_picture():
    bar, *facts = painted(PROGRESS, 120)
    assert bar.startswith("reviews  ")
    assert bar.endswith("482 / 1,000 rows (48.2 %)")
    assert facts == [
        "480 ok   2 failed   64 in flight   210 waiting",
        "3,012 requests/min   398,200 tokens/min   limited by tpm (tokens per minute)",
        "$1.23 spent + $0.0400 reserved of $20.00   4:02 elapsed   about 4 min left",
    ]


@pytest.mark.parametrize("width", [1, 5, 12, 20, 34, 46, 79, 200])
@pytest.mark.parametrize(
    "progress", [PROGRESS, replace(PROGRESS, total=None, cap_pico=None, eta_seconds=None, limited_by=None), replace(PROGRESS, total=0)]
)
def test_the_picture_fits_any_terminal(width, progress):
    lines = painted(progress, width, height=12)
    assert len(lines) <= 10
    assert max(map(len, lines)) <= width
    if width >= 46:
        assert any("482" in line for line in lines)
        assert any("$1.23" in line for line in lines)


def test_the_live_display_leaves_stdout_alone_and_a_line_behind(capsys):
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, highlight=False, color_system=None)
    clock = iter(range(1000))
    with LiveDisplay("reviews", console=console, now=lambda: next(clock)) as display:
        display(PROGRESS)
        sys.stdout.write("a result\n")
        display(Note(level="warning", text="mini is down"))
        display(replace(PROGRESS, ok=500))
    assert capsys.readouterr().out == "a result\n"
    text = stream.getvalue()
    assert "warning: mini is down" in text
    assert "\x1b[?25h" in text  # the cursor is back
    assert text.rstrip().endswith("after 4:02")


def test_the_live_display_repaints_at_most_eight_times_a_second():
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, color_system=None)
    now = [0.0]
    with LiveDisplay("reviews", console=console, now=lambda: now[0]) as display:
        for _ in range(1000):
            now[0] += 0.001
            display(PROGRESS)
        assert 1 <= stream.getvalue().count("limited by tpm") <= 9


@pytest.mark.parametrize(
    ("tty", "term", "flags", "kind"),
    [
        (True, "xterm", {}, "LiveDisplay"),
        (False, "xterm", {}, "PlainLog"),
        (True, "dumb", {}, "PlainLog"),
        (True, "xterm", {"quiet": True}, "PlainLog"),
        (True, "xterm", {"live": False}, "PlainLog"),
    ],
)
def test_which_display(monkeypatch, tty, term, flags, kind):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stderr.isatty", lambda: tty, raising=False)
    assert type(choose.display("x", **flags)).__name__ == kind


def test_every_limit_of_the_contract_has_words():
    assert set(LIMITED_BY) == {"rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "concurrency", "budget", "pause", "latency", "input"}


def test_real_and_simulated_dollars_are_told_apart():
    lines = summary_lines(replace(SUMMARY, simulated_cost_usd=0.5), job="r.yaml", simulated=False)
    assert any(line.startswith("  spent") and line.endswith(", and $0.500 simulated") for line in lines)
