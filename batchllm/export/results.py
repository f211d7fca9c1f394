"""The results of a job as a file or on stdout, in the format that its extension picks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from batchllm.core.errors import SpecError
from batchllm.core.nouns import Result
from batchllm.export.files import replacing
from batchllm.export.lines import csv, jsonl, plain

_FORMATS = {"jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl", "": "jsonl", "csv": "csv", "npy": "npy", "parquet": "parquet"}


def format_of(path: Path) -> str:
    """The format that a file name's extension picks. Raises SpecError for one that can't be written."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in _FORMATS:
        raise SpecError(f"{path}: results can't be written as .{suffix} by this version; use .jsonl, .csv, .parquet or (for vectors) .npy")
    return _FORMATS[suffix]


def encoded(results: Iterable[Result], form: str, *, columns: Sequence[str] | None = None) -> Iterator[bytes]:
    """The results as bytes, line by line. `columns`: the kept input columns, which CSV wants to know beforehand."""
    return csv(plain(results), columns=columns) if form == "csv" else jsonl(plain(results))


def write_results(results: Iterable[Result], path: Path, *, columns: Sequence[str] | None = None) -> None:
    """Writes all results; `-` is stdout. Raises StoreError when the file can't be written."""
    if path.name == "-":
        write_stdout(encoded(results, "jsonl"))
        return
    form = format_of(path)
    if form == "npy":
        from batchllm.export.vectors import write_npy

        write_npy(results, path)
        return
    if form == "parquet":
        from batchllm.export.columnar import write_parquet

        write_parquet(plain(results), path, columns=columns or ())
        return
    with replacing(path) as file:
        for line in encoded(results, form, columns=columns):
            file.write(line)


def write_stdout(lines: Iterable[bytes]) -> None:
    """Writes lines to stdout. BrokenPipeError when its reader has gone."""
    out = sys.stdout.buffer
    for line in lines:
        out.write(line)
    out.flush()


__all__ = ["encoded", "format_of", "replacing", "write_results", "write_stdout"]
