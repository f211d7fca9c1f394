"""`map_frame`: pandas and polars where they are installed, and a frame's own rules: order, index, missing values, names that are taken."""

from __future__ import annotations

import datetime as dt
from types import ModuleType
from typing import Any

import pytest

import batchllm

SCHEMA = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}, "stars": {"type": "integer"}}, "required": ["label", "stars"]}
ROWS: dict[str, list[Any]] = {
    "text": ["one", "two", "three [[sim:content_filter]]", None],
    "n": [1.5, None, 3.0, 4.0],
    "day": [dt.datetime(2026, 11, 20, tzinfo=dt.UTC)] * 4,
}


@pytest.fixture(params=["pandas", "polars"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    """Each library that is there."""
    module: ModuleType = pytest.importorskip(request.param)
    return module


def test_answers_stand_beside_their_rows(library: ModuleType) -> None:
    frame = library.DataFrame(ROWS)
    out = batchllm.map_frame(frame, "simulated", prompt="Say {{ text }} {{ n }} {{ day }}", schema=SCHEMA)
    assert type(out) is type(frame)
    assert list(out.columns) == ["text", "n", "day", "output", "status", "error", "cost_usd", "label", "stars"]
    assert list(frame.columns) == list(ROWS)
    assert list(out["status"]) == ["ok", "ok", "failed", "ok"]
    assert out["error"][2] == "refused"
    assert out["label"][0] in {"good", "bad"}
    again = batchllm.map_frame(frame[:2], "simulated", prompt="Say {{ text }} {{ n }} {{ day }}", schema=SCHEMA)
    assert list(again["output"]) == list(out["output"])[:2]


def test_pandas_keeps_its_index() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b", "c"]}, index=[7, 7, 1])
    out = batchllm.map_frame(frame, "simulated", prompt="{{ text }}", prefix="llm_")
    assert list(out.index) == [7, 7, 1]
    assert list(out["llm_output"]) == [result.output for result in batchllm.map(["a", "b", "c"], "simulated", prompt="{{ text }}")]


@pytest.mark.parametrize("name", ["status", "label"])
def test_a_column_is_not_replaced(library: ModuleType, name: str) -> None:
    with pytest.raises(batchllm.SpecError, match=f"'{name}' already"):
        batchllm.map_frame(library.DataFrame({name: ["x"]}), "simulated", prompt="{{ " + name + " }}", schema=SCHEMA)


@pytest.mark.parametrize("frame", [[{"text": "a"}], {"text": ["a"]}, None])
def test_what_is_no_frame(frame: Any) -> None:
    with pytest.raises(batchllm.SpecError, match="expected a DataFrame of pandas or polars"):
        batchllm.map_frame(frame, "simulated", prompt="{{ text }}")
