"""Parquet in and out, where pyarrow is installed: types become JSON, batches keep memory flat, and what is no Parquet is told."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from batchllm.core.errors import SpecError
from batchllm.core.nouns import Code, Result, RowError, Usage
from batchllm.export.results import write_results
from batchllm.rows import files, read

pa = pytest.importorskip("pyarrow", reason="the extra [parquet]")
parquet = pytest.importorskip("pyarrow.parquet")


def rows_of(path):
    return [row for chunk in read.read(files.resolve([str(path)], base=path.parent)) for row in chunk]


def test_a_table_becomes_rows(tmp_path):
    table = {
        "custom_id": ["a", "b"], "n": [1, None], "x": [0.5, float("nan")], "day": [dt.date(2026, 1, 2), None], "money": [Decimal("1.50"), Decimal("2.00")],
        "tags": [["p", "q"], []], "raw": [b"text", b"\xff"], "at": [dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC), None], "on": [True, False],
    }  # fmt: skip
    parquet.write_table(pa.table(table), tmp_path / "in.parquet")
    first, second = rows_of(tmp_path / "in.parquet")
    assert (first.custom_id, first.place, second.place) == ("a", "in.parquet:1", "in.parquet:2")
    assert first.fields == {
        "custom_id": "a", "n": 1, "x": 0.5, "day": "2026-01-02", "money": 1.5, "tags": ["p", "q"], "raw": "text", "at": "2026-01-02T03:04:00+00:00", "on": True,
    }  # fmt: skip
    assert [second.fields[name] for name in ("n", "x", "day", "money", "tags", "raw", "at")] == [None, None, None, 2, [], "/w==", None]


def test_it_is_read_in_batches(tmp_path):
    parquet.write_table(pa.table({"text": [f"row {i}" for i in range(3000)]}), tmp_path / "in.parquet")
    chunks = list(read.read(files.resolve([str(tmp_path / "in.parquet")])))
    assert [len(chunk) for chunk in chunks[:3]] == [20, 500, 500]
    assert sum(map(len, chunks)) == 3000


def test_what_is_no_parquet_is_told(tmp_path):
    (tmp_path / "in.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(SpecError, match=r"in.parquet: the Parquet file can't be read after row 0"):
        rows_of(tmp_path / "in.parquet")
    (tmp_path / "in.parquet.gz").write_bytes(b"x")
    with pytest.raises(SpecError, match="compressed inside"):
        rows_of(tmp_path / "in.parquet.gz")


def test_results_are_typed_columns(tmp_path):
    good = Result(
        custom_id="a", row=0, status="ok", output="hi", parsed={"label": "x"}, usage=Usage(input_tokens=3, output_tokens=1), cost_usd=0.5, attempts=1,
        input={"lang": "de", "n": 2},
    )  # fmt: skip
    bad = Result(custom_id="b", row=1, status="failed", error=RowError(code=Code.TIMEOUT, message="no", retryable=True))
    write_results([good, bad], tmp_path / "r.parquet", columns=["lang", "n"])
    one, two = parquet.read_table(tmp_path / "r.parquet").to_pylist()
    assert {name: one[name] for name in ("custom_id", "output", "parsed", "input_tokens", "cost_usd", "input.lang", "input.n", "error_code")} == {
        "custom_id": "a", "output": "hi", "parsed": '{"label":"x"}', "input_tokens": 3, "cost_usd": 0.5, "input.lang": "de", "input.n": "2", "error_code": None,
    }  # fmt: skip
    assert (two["error_code"], two["error_retryable"], two["output"]) == ("timeout", True, None)
    write_results([Result(custom_id="a", row=0, status="ok", output=[1.0, 2.0]), bad], tmp_path / "v.parquet")
    table = parquet.read_table(tmp_path / "v.parquet")
    assert str(table.schema.field("vector").type) == "list<element: float>"
    assert [line["vector"] for line in table.to_pylist()] == [[1.0, 2.0], None]
