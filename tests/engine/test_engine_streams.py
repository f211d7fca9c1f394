"""Streamed answers through the whole engine: the same rows, the same money, and faults that only streams have."""

from __future__ import annotations

import pytest

STREAM_FAULTS = ["stream_error", "stream_no_finish", "stream_cut", "stream_stall_comments", "reset_mid", "stall_mid"]
VARIATIONS = [
    "stream_split",
    "stream_no_done",
    "stream_usage_every",
    "stream_comments",
    "stream_plain",
    "stream_first_empty",
    "stream_usage_in_choices",
]


def _texts(count: int, marker: str = "") -> list[dict[str, str]]:
    return [{"custom_id": f"r{i}", "text": f"row {i} says hello {marker}"} for i in range(count)]


def _same(world, texts, **keys):
    w = world(texts, **keys)
    summary = w.run()
    assert summary.exit_code == 0
    return w, [{key: line[key] for key in ("custom_id", "status", "output", "finish_reason", "usage")} for line in w.results()]


def test_a_stream_gives_what_a_plain_answer_gives_and_its_first_token_comes_before_its_end(world):
    w, streamed = _same(world, _texts(30), stream=True)
    assert w.sql(
        "SELECT count(*) FROM attempts a JOIN results r USING (row_key) WHERE 0 < first_token_seconds AND first_token_seconds < latency_seconds"
    ) == [(30,)]
    assert w.sql("SELECT count(*) FROM attempts WHERE tokens_per_second > 0") == [(30,)]
    assert w.sql("SELECT count(*) FROM bodies WHERE response LIKE 'data: %[DONE]%'") == [(30,)]
    _, plain = _same(world, _texts(30), store="plain.db", results="plain.jsonl")
    assert streamed == plain


@pytest.mark.parametrize("fault", VARIATIONS)
def test_streams_that_are_strangely_sent_are_accepted_at_once(world, fault):
    w, _ = _same(world, _texts(5, f"[[sim:{fault}]]"), stream=True)
    assert w.sql("SELECT count(*), count(DISTINCT outcome) FROM attempts") == [(5, 1)]


@pytest.mark.parametrize("fault", STREAM_FAULTS)
def test_a_stream_that_breaks_is_no_answer_and_its_money_stays_booked(world, fault):
    w, _ = _same(world, _texts(5, f"[[sim:{fault}*1]]"), stream=True, retry={"stall_seconds": 5}, budget={"usd": 1})
    assert w.sql("SELECT count(*) FROM attempts") == [(10,)]
    billed = sum(record.cost_pico or 0 for record in w.records())
    (spent, pinned) = w.sql("SELECT sum(cost_pico), sum(CASE WHEN billed = 'maybe' THEN reserved_pico ELSE 0 END) FROM attempt_log")[0]
    assert spent <= billed <= spent + pinned


def test_a_stall_is_noticed_after_stall_seconds_without_progress(world):
    w, _ = _same(world, _texts(1, "[[sim:stream_stall_comments*1]]"), stream=True, retry={"stall_seconds": 7, "timeout_seconds": 100})
    assert 7 < w.elapsed < 12
    assert w.sql("SELECT outcome FROM attempts ORDER BY attempt_id") == [("timeout",), ("ok",)]
