"""The first readable rows: what a spec's names are checked against before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from batchllm.core.nouns import Row
from batchllm.rows.files import InputFile
from batchllm.rows.read import read

COUNT = 20
_LOOK_AT = 100_000
"""A file of nothing but bad lines is not read to its end for the sake of a check."""


def readable(
    files: Sequence[InputFile],
    *,
    id_column: str | None = None,
    types: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    count: int = COUNT,
) -> list[Row]:
    """The first `count` rows that could be read (a missing id doesn't matter here). Raises `SpecError` as `read` does."""
    return of_chunks(read(files, id_column=id_column, types=types, delimiter=delimiter, encoding=encoding, first_chunk_rows=count), count=count)


def of_chunks(chunks: Iterator[list[Row]], *, count: int = COUNT) -> list[Row]:
    """The same, of rows that are being read."""
    found: list[Row] = []
    seen = 0
    for chunk in chunks:
        found.extend(row for row in chunk if row.fields)
        seen += len(chunk)
        if len(found) >= count or seen >= _LOOK_AT:
            break
    return found[:count]


def is_empty(file: InputFile) -> bool:
    """Whether a file holds no row at all, not even a bad one: only blanks, or only a header."""
    if file.format == "file":
        return False
    return next(read((file,), first_chunk_rows=1), None) is None


def id_problem(rows: Sequence[Row], id_column: str) -> str | None:
    """What is wrong with `id` when none of the first rows has that column."""
    if not rows or any(id_column in row.fields for row in rows):
        return None
    columns = list(dict.fromkeys(name for row in rows for name in row.fields))
    close = get_close_matches(id_column, columns, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"they have {', '.join(columns)[:200]}"
    return f"none of the first {len(rows)} rows has a column {id_column!r}; {hint}"
