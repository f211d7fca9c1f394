"""The array of vectors: its bytes as numpy writes them, a line for each row, and nothing half-written."""

from __future__ import annotations

import json
import struct

import pytest

from batchllm.core.errors import SpecError
from batchllm.core.nouns import Result
from batchllm.export.results import write_results


def result(row, vector):
    return Result(custom_id=f"r{row}", row=row, status="ok" if vector is not None else "failed", output=vector)


def test_the_array_is_numpys(tmp_path):
    write_results([result(0, None), result(1, [1.0, -0.5]), result(2, None), result(3, [0.25, 2.0])], tmp_path / "x.npy")
    data = (tmp_path / "x.npy").read_bytes()
    # As `numpy.save` writes it, but for the padding: magic, version 1.0, the header's length, a dict, a newline at a multiple of 64.
    assert data[:10] == b"\x93NUMPY\x01\x00\x76\x00"
    assert data[10:128] == b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2), }".ljust(117) + b"\n"
    numbers = struct.unpack("<8f", data[128:])
    assert [number if number == number else None for number in numbers] == [None, None, 1.0, -0.5, None, None, 0.25, 2.0]  # noqa: PLR0124 - NaN is no equal of itself
    ids = [json.loads(line) for line in (tmp_path / "x.ids.jsonl").read_text().splitlines()]
    assert [(line["custom_id"], line["row"], line["status"]) for line in ids[:2]] == [("r0", 0, "failed"), ("r1", 1, "ok")]
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("second", "words"), [("text", "row 1 has a text, not a vector"), ([1.0, 2.0, 3.0], "row 1 has 3 numbers and rows before it have 2")]
)
def test_what_is_no_array_is_refused_and_nothing_is_left(tmp_path, second, words):
    with pytest.raises(SpecError, match=words):
        write_results([result(0, [1.0, 2.0]), result(1, second)], tmp_path / "x.npy")
    assert list(tmp_path.iterdir()) == []
