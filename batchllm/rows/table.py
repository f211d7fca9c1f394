"""CSV as records: one header, one dict per record, typed where the spec says so, and a malformed record never takes its neighbours with it.

The trap: one missing quote makes a lenient CSV reader swallow every record up to the next quote, silently. So the reader is strict, and after a malformed
record reading goes on at the line after the one where it began.
"""

from __future__ import annotations

import codecs
import csv
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from typing import Any, BinaryIO

from batchllm.core import json
from batchllm.core.errors import Problem, SpecError
from batchllm.rows.lines import LINE_BYTES, TooLong, blocks
from batchllm.rows.records import too_deep


@dataclass(slots=True)
class Record:
    """One record: `fields`, or `problem` and the digest of its text."""

    line: int
    """Where it begins, from 1."""
    fields: dict[str, Any]
    cells: Sequence[str] = ()
    problem: str | None = None
    digest: str = ""


class _RecordTooLong(Exception):  # noqa: N818 - never seen by callers
    pass


class _Feed:
    """Gives the CSV reader its lines, and can take back those of a record that came to nothing."""

    def __init__(self, lines: Iterator[bytes | TooLong], encoding: str, cap: int) -> None:
        self._lines = lines
        self._encoding = encoding
        self._cap = cap
        self._held: deque[tuple[str, str | None]] = deque()
        self.taken: list[tuple[str, str | None]] = []
        self.size = 0
        self.line = 1
        """Of the next line."""

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        item = self._held.popleft() if self._held else self._decoded(next(self._lines))
        self.taken.append(item)
        self.line += 1
        self.size += len(item[0])
        if self.size > self._cap:
            raise _RecordTooLong
        return item[0]

    def begin(self) -> int:
        self.taken = []
        self.size = 0
        return self.line

    def take_back(self) -> None:
        """All lines of the present record but its first one."""
        rest = self.taken[1:]
        self._held.extendleft(reversed(rest))
        self.line -= len(rest)
        del self.taken[1:]

    def _decoded(self, raw: bytes | TooLong) -> tuple[str, str | None]:
        if isinstance(raw, TooLong):
            return f"\0{raw.digest}\n", f"the line has {raw.size:,} bytes, more than a row may have ({self._cap:,})"
        try:
            text = raw.decode(self._encoding)
        except UnicodeDecodeError as error:
            return raw.decode(
                self._encoding, "backslashreplace"
            ) + "\n", f"is not {self._encoding} at byte {error.start}; save the file as UTF-8, or name its `encoding`"
        return text + "\n", "holds a NUL character" if "\0" in text else None

    def problem(self) -> str | None:
        for _, problem in self.taken:
            if problem:
                return problem
        return None

    def digest(self) -> str:
        return sha256("".join(text for text, _ in self.taken).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def read_table(
    stream: BinaryIO, name: str, *, delimiter: str, encoding: str | None = None, types: Mapping[str, str] | None = None, cap: int = LINE_BYTES
) -> Iterator[Record]:
    """The records of a CSV stream. Raises `SpecError` for what concerns the whole file: header, encoding, delimiter, unknown types or columns."""
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise SpecError(Problem(path="input.delimiter", message=f"{delimiter!r} can't separate cells; give one character"))
    line_encoding, decode = _encoding(encoding)
    lines = (line for block in blocks(stream, name, cap=cap, decode=decode) for line in block)
    feed = _Feed(lines, line_encoding, cap)
    # The limit is the process's; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), cap))
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    header = _header(feed, reader, name)
    typed = _typed(header, types or {}, name)
    width = len(header)
    while True:
        line = feed.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _RecordTooLong) as error:
            feed.take_back()
            why = f"is no CSV record ({error})" if isinstance(error, csv.Error) else "a quoted cell that begins here doesn't end"
            yield Record(line, {}, problem=f"{why}; a quote is missing or not doubled", digest=feed.digest())
            continue
        problem = feed.problem()
        if problem:
            if len(feed.taken) > 1 and not feed.taken[0][1]:
                feed.take_back()
                problem = "a cell that begins here holds bytes that can't be read"
            yield Record(line, {}, problem=problem, digest=feed.digest())
        elif not cells or (width > 1 and len(cells) == 1 and not cells[0].strip()):
            continue
        elif len(cells) != width:
            yield Record(
                line,
                {},
                problem=f"has {len(cells)} cells, the header has {width}; {_separated_by(header) or f'quote cells that hold the delimiter {delimiter!r}'}",
                digest=feed.digest(),
            )
        else:
            record = Record(line, dict(zip(header, cells, strict=True)), cells)
            for index, column, kind, parse in typed:
                try:
                    record.fields[column] = parse(cells[index])
                except ValueError:
                    record.problem = f"column {column!r} holds {cells[index][:60]!r}, which is no {kind}; mend the cell, or change `types`"
                    record.digest = feed.digest()
                    break
            yield record


def other_delimiter(header: Sequence[str]) -> str | None:
    """What seems to separate the cells of a header that was read as one cell."""
    return next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)


def _separated_by(header: Sequence[str]) -> str:
    found = other_delimiter(header)
    return f"is it separated by {found!r}? Then say so: input: {{path: ..., delimiter: {json.text(found)}}}" if found is not None else ""


def _header(feed: _Feed, reader: Iterator[list[str]], name: str) -> list[str]:
    header: list[str] = []
    line = 1
    try:
        while not header:
            line = feed.begin()
            header = next(reader)
            if not any(cell.strip() for cell in header):
                header = []
    except StopIteration:
        return []
    except (csv.Error, _RecordTooLong) as error:
        raise SpecError(Problem(file=name, line=line, message=f"the header can't be read ({error or 'a quote is missing'})")) from None
    problem = feed.problem()
    if problem:
        raise SpecError(Problem(file=name, line=line, message=f"the header {problem}"))
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise SpecError(Problem(file=name, line=line, message=f"the header has {', '.join(map(repr, twice))} more than once; rename all but one"))
    return header


def _encoding(encoding: str | None) -> tuple[str, Callable[[bytes], bytes] | None]:
    """How to decode lines, and how to make lines of bytes first where a newline isn't one byte."""
    if encoding is None:
        return "utf-8", None
    try:
        name = codecs.lookup(encoding).name
        ascii_like = "\n,".encode(name) == b"\n,"
    except (LookupError, TypeError, AttributeError):
        raise SpecError(Problem(path="input.encoding", message=f"{encoding!r} is no known encoding; try utf-8, cp1252 or utf-16")) from None
    if name in {"utf-8", "utf-8-sig"}:
        return "utf-8", None
    if ascii_like:
        return name, None
    decoder = codecs.getincrementaldecoder(name)("strict")
    return "utf-8", lambda data: decoder.decode(data, final=not data).encode("utf-8", "surrogatepass").removeprefix(b"\xef\xbb\xbf")


def _number(cell: str) -> float | int:
    try:
        return _integer(cell)
    except ValueError:
        number = float(_digits(cell))
        if number in (float("inf"), float("-inf")) or number != number:  # noqa: PLR0124 - NaN is not equal to itself
            raise ValueError(cell) from None
        return number


def _integer(cell: str) -> int:
    number = int(_digits(cell))
    if not -(2**63) <= number < 2**64:
        raise ValueError(cell)
    return number


def _digits(cell: str) -> str:
    if "_" in cell:  # Python's own separator, nobody else's
        raise ValueError(cell)
    return cell


def _boolean(cell: str) -> bool:
    try:
        return {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}[cell.strip().lower()]
    except KeyError:
        raise ValueError(cell) from None


def _json(cell: str) -> Any:
    value = json.loads(cell)
    if too_deep([value]):
        raise ValueError(cell)
    return value


_PARSERS: dict[str, Callable[[str], Any]] = {"number": _number, "integer": _integer, "boolean": _boolean, "json": _json}
TYPES = ("text", *_PARSERS)
"""What `types` may say of a column. An empty cell of any type but text is null."""


def _or_null(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda cell: parse(cell) if cell.strip() else None


def _typed(header: Sequence[str], types: Mapping[str, str], name: str) -> list[tuple[int, str, str, Callable[[str], Any]]]:
    typed: list[tuple[int, str, str, Callable[[str], Any]]] = []
    problems: list[Problem] = []
    for column, kind in types.items():
        if kind not in TYPES:
            problems.append(Problem(path=f"input.types.{column}", message=f"{kind!r} is no type; choose one of {', '.join(TYPES)}"))
        elif column not in header:
            close = get_close_matches(column, header, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(header)[:200]}"
            problems.append(Problem(path=f"input.types.{column}", message=f"{name} has no such column; {hint}"))
        elif kind != "text":
            typed.append((header.index(column), column, kind, _or_null(_PARSERS[kind])))
    if problems:
        raise SpecError(problems)
    return typed
