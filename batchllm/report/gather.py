"""What an export writes: finished rows from the store, with input columns and bodies where they were asked for. A stream; memory stays flat.

Columns that the store didn't keep come from the input, read anew in step with the results. The trap: the input may have changed since. So each row is
compared with the identity that the store knows it by, and nothing is ever put beside another row's answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchllm.core import json
from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Result, Row
from batchllm.engine.inputs import Inputs
from batchllm.export.lines import Line
from batchllm.export.openai import Exchange, batch_line
from batchllm.spec import JobSpec
from batchllm.store.read import Since, StoreReader, exchange, finished_rows, identity, result_of, selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows, and what of them."""

    status: str | None = None
    where: str | None = None
    since: Since | None = None
    columns: tuple[str, ...] = ()
    """Input columns besides the kept ones."""
    all_columns: bool = False
    include: tuple[str, ...] = ()
    """`request`, `response`."""


class InputRows:
    """The input of a job, read forwards once more. Raises SpecError when it can't be."""

    def __init__(self, spec: JobSpec, environ: Mapping[str, str]) -> None:
        self._inputs = Inputs(spec, environ)
        self._rows = self._chunks()
        self._last: Row | None = None

    def _chunks(self) -> Iterator[Row]:
        for chunk in self._inputs.chunks():
            yield from chunk

    def at(self, position: int) -> Row | None:
        """The row at a position; None behind the end. Positions must rise."""
        if self._last is not None and self._last.position == position:
            return self._last
        for row in self._rows:
            if row.position == position:
                self._last = row
                return row
        return None

    def check(self, names: Sequence[str]) -> None:
        """Raises SpecError for a column that none of the first readable rows has."""
        rows = self._inputs.readable()
        there = {name for row in rows for name in row.fields}
        missing = [name for name in names if rows and name not in there]
        if missing:
            words = f"none of the first {len(rows)} rows has a column {missing[0]!r}; they have {', '.join(sorted(there))[:300]}"
            raise SpecError(Problem(file="--with", message=words))

    def names(self) -> list[str]:
        """All columns, in the order in which they first appear; one more reading of the whole input."""
        found: dict[str, None] = {}
        for row in self._chunks():
            found.update(dict.fromkeys(row.fields))
        return list(found)


def kept_columns(reader: StoreReader) -> list[str]:
    """Input columns that the store kept (`output.keep` at the time of the last answers)."""
    rows = reader.all("SELECT input FROM outcomes WHERE input IS NOT NULL ORDER BY finished_at DESC LIMIT 1")
    return list(json.loads(rows[0][0])) if rows else []


def gather(reader: StoreReader, wanted: Wanted, source: InputRows | None) -> Iterator[Line]:
    """Lines for jsonl and csv, in input order. `source` is needed for columns that weren't kept."""
    for key, result in _results(reader, wanted):
        if source is not None:
            result = replace(result, input=_columns(reader, key, result, wanted, source))  # noqa: PLW2901 - the same row, with more of its input
        extra: dict[str, Any] = {}
        if wanted.include:
            bodies = exchange(reader.connection, key)
            extra = {name: _body(bodies[name]) for name in wanted.include}
        yield Line(result=result, extra=extra)


def gather_openai(reader: StoreReader, wanted: Wanted) -> Iterator[bytes]:
    """Lines of OpenAI's Batch output, in input order."""
    for key, result in _results(reader, wanted):
        found = exchange(reader.connection, key)
        passed = Exchange(
            row_key=key,
            finished_at=found["finished_at"] or 0.0,
            provider=found["provider"],
            model_id=found["model_id"],
            request_id=found["request_id"],
            response=found["response"],
        )
        yield json.dumps(batch_line(result, passed)) + b"\n"


def _results(reader: StoreReader, wanted: Wanted) -> Iterator[tuple[int, Result]]:
    condition, values = selection(status=wanted.status, where=wanted.where, since=wanted.since)
    for row in finished_rows(reader, condition, values, where=wanted.where):
        yield row[0], result_of(row)


def _columns(reader: StoreReader, key: int, result: Result, wanted: Wanted, source: InputRows) -> dict[str, Any]:
    row = source.at(result.row)
    if row is None or row.identity != identity(reader.connection, key):
        raise SpecError(
            Problem(
                file=row.place if row is not None else None,
                message=f"the input has changed since the last run: row {result.row} is {'gone' if row is None else 'another record'}. "
                "Run the job again, or export without --with",
            )
        )
    fields = row.fields if wanted.all_columns else {name: row.fields.get(name) for name in wanted.columns}
    return {**(result.input or {}), **fields}


def _body(body: str | bytes | None) -> Any:
    """As JSON where it is JSON, else as text."""
    if body is None:
        return None
    try:
        return json.loads(body)
    except json.JSONDecodeError:
        return body.decode(errors="replace") if isinstance(body, bytes) else body
