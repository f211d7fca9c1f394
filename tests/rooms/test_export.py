"""Export: JSONL, CSV, OpenAI's Batch lines, and files that are written whole or not at all."""

from __future__ import annotations

import csv as stdlib_csv
import io
import os
import stat

import orjson
import pytest
from openai.types.chat import ChatCompletion

from batchllm.core.errors import SpecError, StoreError
from batchllm.core.nouns import Code, Result, RowError, Usage
from batchllm.export.lines import RESULT_COLUMNS, Line, csv, jsonl
from batchllm.export.openai import Exchange, batch_line, completion
from batchllm.export.results import format_of, replacing, write_results

USAGE = Usage(input_tokens=10, output_tokens=4, cached_input_tokens=3, cache_write_tokens=2, reasoning_tokens=1)
OK = Result(
    custom_id="a",
    row=0,
    status="ok",
    output="yes",
    model="mini",
    provider_model="m-1",
    finish_reason="stop",
    usage=USAGE,
    cost_usd=3.5e-06,
    attempts=1,
)
FAILED = Result(
    custom_id="b",
    row=1,
    status="failed",
    attempts=2,
    error=RowError(code=Code.REJECTED, message="no such parameter", http_status=400, provider_code="unknown_parameter"),
)


def rows_of(data: bytes) -> list[dict[str, str]]:
    return list(stdlib_csv.DictReader(io.StringIO(data.decode(), newline="")))


def test_jsonl_is_the_result_with_extras_behind():
    (line,) = jsonl([Line(result=OK, extra={"request": {"model": "x"}, "response": None})])
    assert orjson.loads(line) == {**OK.as_dict(), "request": {"model": "x"}, "response": None}
    assert next(iter(jsonl([Line(result=FAILED)]))) == orjson.dumps(FAILED.as_dict()) + b"\n"


@pytest.mark.parametrize("text", ["a,b", 'say "x"', "two\nlines", "a\rb", "", "=1+1", "ünïcödé", "\u2028"])
def test_csv_cells_come_back_as_they_were(text):
    data = b"".join(csv([Line(result=Result(custom_id=text, row=0, status="ok", output=text))]))
    (row,) = rows_of(data)
    assert (row["custom_id"], row["output"]) == (text, text)


def test_csv_values():
    result = Result(
        custom_id="a",
        row=7,
        status="ok",
        output=[0.5, 1],
        parsed={"label": "x"},
        usage=USAGE,
        cost_usd=3.5e-06,
        input={"lang": None, "flag": True, "n": 1e22},
    )
    (row,) = rows_of(b"".join(csv([Line(result=result, extra={"response": {"id": 1}})], extras=("response",))))
    assert (row["output"], row["parsed"], row["row"]) == ("[0.5,1]", '{"label":"x"}', "7")
    assert row["cost_usd"] == "0.0000035"
    assert (row["input.lang"], row["input.flag"], row["input.n"], row["response"]) == ("", "true", "10000000000000000000000", '{"id":1}')
    names = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
    assert [row[name] for name in names] == ["10", "4", "3", "2", "1"]


def test_csv_of_a_failure_and_of_nothing():
    (row,) = rows_of(b"".join(csv([Line(result=FAILED)])))
    assert (row["error_code"], row["error_http_status"], row["error_provider_code"], row["error_retryable"]) == (
        "rejected",
        "400",
        "unknown_parameter",
        "false",
    )
    assert b"".join(csv([])).decode() == ",".join(RESULT_COLUMNS) + "\n"


def test_csv_takes_its_input_columns_from_the_first_row_that_has_some():
    bad = Result(custom_id=None, row=0, status="failed")
    good = Result(custom_id="x", row=1, status="ok", input={"lang": "en"})
    rows = rows_of(b"".join(csv([Line(result=bad), Line(result=good)])))
    assert [row["input.lang"] for row in rows] == ["", "en"]


def test_lone_surrogates_do_not_end_an_export():
    assert b"?" in b"".join(csv([Line(result=Result(custom_id="\ud800", row=0, status="ok"))]))


EXCHANGE = Exchange(row_key=5, finished_at=1000.5, provider="openai", model_id="m", request_id="req_1")


def kept(response: str | bytes | None, provider: str = "openai") -> Exchange:
    return Exchange(row_key=5, finished_at=1000.5, provider=provider, model_id="m", request_id="req_1", response=response)


@pytest.mark.parametrize(
    ("exchange", "body"),
    [
        (kept('{"choices": [], "id": "theirs"}'), {"choices": [], "id": "theirs"}),
        (kept(b'{"choices": [], "id": "theirs"}', "simulated"), {"choices": [], "id": "theirs"}),
        (kept('{"choices": [], "id": "theirs"}', "anthropic"), completion(OK, EXCHANGE)),
        (kept(None), completion(OK, EXCHANGE)),
        (kept("<html>"), completion(OK, EXCHANGE)),
        (kept('{"content": []}'), completion(OK, EXCHANGE)),
    ],
)
def test_batch_line_of_an_answer(exchange, body):
    line = batch_line(OK, exchange)
    assert line == {"id": "batch_req_5", "custom_id": "a", "response": {"status_code": 200, "request_id": "req_1", "body": body}, "error": None}


def test_a_rebuilt_completion_is_one_to_the_official_sdk():
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    parsed = ChatCompletion.model_validate(
        completion(Result(custom_id="a", row=0, status="ok", model="m", usage=USAGE, tool_calls=calls), EXCHANGE), strict=True
    )
    assert parsed.usage is not None
    assert (parsed.usage.total_tokens, parsed.choices[0].finish_reason, parsed.created) == (14, "tool_calls", 1000)


@pytest.mark.parametrize(
    ("raw", "finish"),
    [("stop", "stop"), ("end_turn", "stop"), ("MAX_TOKENS", "length"), ("length", "length"), ("SAFETY", "content_filter"), (None, "stop")],
)
def test_finish_reasons_of_other_wires_become_openai_words(raw, finish):
    body = completion(Result(custom_id="a", row=0, status="ok", output="x", model="m", finish_reason=raw), EXCHANGE)
    assert body["choices"][0]["finish_reason"] == finish
    assert "usage" not in body


@pytest.mark.parametrize(
    ("response", "body"),
    [
        ('{"error": {"message": "theirs"}}', {"error": {"message": "theirs"}}),
        ("<html>", {"error": {"message": "no such parameter", "type": "rejected", "param": None, "code": "unknown_parameter"}}),
    ],
)
def test_batch_line_of_a_refused_request(response, body):
    line = batch_line(FAILED, kept(response))
    assert line["response"] == {"status_code": 400, "request_id": "req_1", "body": body}
    assert line["error"] is None


def test_batch_line_of_a_failure_without_a_status():
    result = Result(custom_id="b", row=1, status="failed", error=RowError(code=Code.TIMEOUT, message="too slow"))
    line = batch_line(result, kept('{"error": {}}'))
    assert (line["response"], line["error"]) == (None, {"code": "timeout", "message": "too slow"})


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path):
    path = tmp_path / "deep" / "r.jsonl"
    write_results([OK], path)
    path.chmod(0o640)
    write_results([OK, FAILED], path)
    assert len(path.read_bytes().splitlines()) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [file.name for file in path.parent.iterdir()] == ["r.jsonl"]


def test_a_new_file_has_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_results([OK], tmp_path / "r.jsonl")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "r.jsonl").stat().st_mode) == 0o640


def test_a_failure_half_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError):
        write_results((OK if n else 1 / n for n in (1, 0)), path)
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["r.jsonl"]


def test_devices_and_links_are_written_through(tmp_path):
    pipe, real, link = tmp_path / "pipe", tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with replacing(pipe) as file:
            file.write(b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    real.write_text("old")
    link.symlink_to(real)
    write_results([OK], link)
    assert link.is_symlink()
    assert real.read_text() != "old"


def test_what_can_not_be_written_says_why(tmp_path):
    with pytest.raises(SpecError, match="is a folder"):
        write_results([OK], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"answers are safe in the store"):
        write_results([OK], tmp_path / "file" / "r.jsonl")
    with pytest.raises(SpecError, match=r"\.xlsx"):
        format_of(tmp_path / "r.xlsx")
