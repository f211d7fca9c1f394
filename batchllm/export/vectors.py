"""Vectors as a float32 `.npy` file: one line of the array for each result, in their order, and beside it which row each line is.

The trap is the line that is missing: a failed row has no vector, and an array without it would be one off from there on. It is a line of NaN, and the file
beside (`x.ids.jsonl`) says so. Memory stays flat: the header, whose length is fixed, is written once more when the number of lines is known. (The form is numpy's
version 1.0, written by hand: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from pathlib import Path
from sys import byteorder

from batchllm.core import json
from batchllm.core.errors import SpecError
from batchllm.core.nouns import Result
from batchllm.export.files import replacing

_HEADER_BYTES = 128


def ids_path(path: Path) -> Path:
    """The file beside an array: `x.npy` has `x.ids.jsonl`."""
    return path.with_name(f"{path.stem}.ids.jsonl")


def write_npy(results: Iterable[Result], path: Path) -> None:
    """Writes the array and the ids, both or (when that fails) neither. SpecError for results that are no vectors of one length."""
    with replacing(ids_path(path)) as ids, replacing(path) as file:
        if not file.seekable():
            raise SpecError(f"{path}: an .npy file needs an ordinary file; give the name of one")
        lines = missing = 0
        width: int | None = None
        file.write(_header(0, 0))
        for result in results:
            ids.write(json.dumps({"custom_id": result.custom_id, "row": result.row, "status": result.status}) + b"\n")
            vector = result.output if result.ok else None
            lines += 1
            if vector is None:
                if width is None:
                    missing += 1
                else:
                    file.write(_nothing(width))
                continue
            if not isinstance(vector, list):
                raise SpecError(f"{path}: row {result.row} has a text, not a vector; .npy is for `endpoint: embeddings`, use .jsonl or .csv")
            if width is None:
                width = len(vector)
                for _ in range(missing):
                    file.write(_nothing(width))
            elif len(vector) != width:
                raise SpecError(
                    f"{path}: row {result.row} has {len(vector)} numbers and rows before it have {width}; an array can't hold both, use .jsonl"
                )
            file.write(_bytes(array("f", vector)))
        file.seek(0)
        file.write(_header(lines, width or 0))


def _nothing(width: int) -> bytes:
    return _bytes(array("f", [float("nan")]) * width)


def _bytes(numbers: array[float]) -> bytes:
    if byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _header(lines: int, width: int) -> bytes:
    words = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({lines}, {width}), }}".encode()
    start = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
    return start + words.ljust(_HEADER_BYTES - len(start) - 1) + b"\n"
