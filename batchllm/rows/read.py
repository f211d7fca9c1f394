"""Input as a stream of chunks of rows: flat memory however long the file, and the first chunk small so that a run starts at once.

The trap: a bad line must still take a position (results have one line per row), a blank line must not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, BinaryIO

import orjson

from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Row
from batchllm.rows.columnar import parquet_rows
from batchllm.rows.file_rows import ID_OF_FILES, file_row
from batchllm.rows.files import InputFile, open_bytes
from batchllm.rows.lines import LINE_BYTES, Line, TooLong, blocks
from batchllm.rows.records import DEPTH, Records, too_deep
from batchllm.rows.table import read_table

CHUNK_ROWS = 500
FIRST_CHUNK_ROWS = 20
LATER = object()
"""Given by an iterable of records in place of one: the next may take its time, so work on what came already."""


def read(
    files: Sequence[InputFile],
    *,
    id_column: str | None = None,
    types: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
    first_chunk_rows: int = FIRST_CHUNK_ROWS,
    line_bytes: int = LINE_BYTES,
) -> Iterator[list[Row]]:
    """All rows of all files, in order, in chunks.

    `types` (column to number, integer, boolean, json or text), `delimiter` and `encoding` are for CSV. Raises `SpecError` for what concerns a whole
    file, also in mid-stream when it is damaged; the rows before that point have been given.
    """
    if (types or delimiter or encoding) and not any(file.format == "csv" for file in files):
        raise SpecError(Problem(path="input", message="`types`, `delimiter` and `encoding` are for CSV files, and no input file is one"))
    if id_column is None and any(file.format == "file" for file in files):
        id_column = ID_OF_FILES
    records = Records(id_column)

    def rows() -> Iterator[Row | None]:
        for file in files:
            if file.format == "file":
                yield file_row(file, records)
                continue
            if file.format == "parquet":
                yield from parquet_rows(str(file.path), file.name, records)
                continue
            with open_bytes(file) as stream:
                if file.format == "csv":
                    yield from _csv_rows(stream, file, records, types=types, delimiter=delimiter, encoding=encoding, cap=line_bytes)
                else:
                    for block in _json_blocks(stream, file.name, records, line_bytes):
                        yield from block

    return _chunks(rows(), chunk_rows, first_chunk_rows)


def read_stream(
    stream: BinaryIO, *, name: str = "stdin", id_column: str | None = None, chunk_rows: int = CHUNK_ROWS, line_bytes: int = LINE_BYTES
) -> Iterator[list[Row]]:
    """JSONL from a pipe: whatever has arrived is a chunk, so that rows are worked on while their writer is still thinking."""

    def rows() -> Iterator[Row | None]:
        for block in _json_blocks(stream, name, records, line_bytes):
            yield from block
            yield None

    records = Records(id_column)
    return _chunks(rows(), chunk_rows, chunk_rows)


def from_records(
    records: Iterable[Any], *, id_column: str | None = None, chunk_rows: int = CHUNK_ROWS, first_chunk_rows: int = FIRST_CHUNK_ROWS
) -> Iterator[list[Row]]:
    """Rows of a program's own dicts."""
    numbers = Records(id_column)
    return _chunks((None if record is LATER else record_row(numbers, record) for record in records), chunk_rows, first_chunk_rows)


def record_row(records: Records, record: Any) -> Row:
    """The row of one dict of a program (for iterables that are not plain ones). NaN becomes null, as in tables of pandas; NumPy numbers and dates are fine."""
    place = f"record {records.position}"
    try:
        if not isinstance(record, Mapping):
            raise TypeError(f"it is a {type(record).__name__}")  # noqa: TRY301 - one way out for all that is no record
        line = orjson.dumps(dict(record), option=orjson.OPT_SERIALIZE_NUMPY)
        fields = orjson.loads(line)
    except (TypeError, ValueError, RecursionError) as error:
        digest = sha256(repr(type(record)).encode()).hexdigest()[:32]
        return records.unreadable(digest, place=place, problem=f"is no dict of JSON values ({error}); convert it first")
    if too_deep(fields):
        return records.unreadable(sha256(line).hexdigest()[:32], place=place, problem=f"is nested deeper than {DEPTH} levels; flatten it")
    return records.readable(fields, place=place)


def _chunks(rows: Iterator[Row | None], chunk_rows: int, first_chunk_rows: int) -> Iterator[list[Row]]:
    """Groups rows; a None says that the next one may take its time."""
    size = first_chunk_rows
    chunk: list[Row] = []
    try:
        for row in rows:
            if row is not None:
                chunk.append(row)
                if len(chunk) < size:
                    continue
            if chunk:
                yield chunk
                chunk = []
                size = chunk_rows
    except SpecError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _json_blocks(stream: BinaryIO, name: str, records: Records, cap: int) -> Iterator[Iterator[Row]]:
    number = 1
    for lines in blocks(stream, name, cap=cap):
        yield _json_rows(lines, number, name, records)
        number += len(lines)


def _json_rows(lines: list[Line], number: int, name: str, records: Records) -> Iterator[Row]:
    loads = orjson.loads
    readable = records.readable
    for line in lines:
        place = f"{name}:{number}"
        number += 1
        if type(line) is not bytes:
            yield _too_long(line, place, records)
            continue
        try:
            fields = loads(line)
        except orjson.JSONDecodeError as error:
            if line and not line.isspace():
                yield _bad(line, place, records, _why(line, error))
            continue
        if type(fields) is not dict:
            yield _bad(line, place, records, f'is {_kind(fields)}, not an object; a row is one JSON object, e.g. {{"prompt": "..."}}')
        elif line.count(b"[") + line.count(b"{") > DEPTH and too_deep(fields):
            yield _bad(line, place, records, f"is nested deeper than {DEPTH} levels; flatten it")
        else:
            yield readable(fields, place=place)


def _bad(line: bytes, place: str, records: Records, problem: str) -> Row:
    return records.unreadable(sha256(line.strip()).hexdigest()[:32], place=place, problem=problem)


def _too_long(line: Line, place: str, records: Records) -> Row:
    assert isinstance(line, TooLong)
    return records.unreadable(
        line.digest, place=place, problem=f"the line has {line.size:,} bytes, more than a row may have; split it, or check that the file is JSONL"
    )


def _why(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError as wrong:
        return f"is not UTF-8 at byte {wrong.start}; save the file as UTF-8"
    # The rest of the decoder's text is a position in this very line.
    problem = f"is not JSON: {error.msg} at column {error.colno}"
    if text[error.pos :].lstrip("-").startswith(("NaN", "Infinity")):
        return f"{problem}; NaN and Infinity are no JSON, write null"
    if error.pos >= len(text.rstrip()):
        return f"{problem}; the line is cut off, a row must be on one line"
    return f"{problem}; mend the line"


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")


def _csv_rows(
    stream: BinaryIO, file: InputFile, records: Records, *, types: Mapping[str, str] | None, delimiter: str | None, encoding: str | None, cap: int
) -> Iterator[Row]:
    for record in read_table(stream, file.name, delimiter=delimiter or file.delimiter, encoding=encoding, types=types, cap=cap):
        place = f"{file.name}:{record.line}"
        if record.problem:
            yield records.unreadable(record.digest, place=place, problem=record.problem)
            continue
        id_text = None
        if types and records.id_column in types:
            id_text = record.cells[list(record.fields).index(records.id_column)] if records.id_column in record.fields else None
        yield records.readable(record.fields, place=place, id_text=id_text)
