"""Another job's ok results as rows, and rows that are filtered (`input.where`) and joined with other jobs' results (`input.join`).

A row of a job is `custom_id`, `output`, `parsed`, `input` (its kept columns) and `model`; joined, it has the same object under the join's name, or null. Rows are read in
chunks, never in one long read, so that a job that still runs isn't held up. The trap: what can't be judged must not silently be left out, so such a row fails and says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Code, Result, Row, RowError
from batchllm.route import Filter
from batchllm.rows.records import Records
from batchllm.spec import JobSpec, load
from batchllm.spec.dotenv import environment
from batchllm.store.read import StoreReader
from batchllm.store.stored import ok_after, ok_result

_SPECS = frozenset({".yaml", ".yml", ".toml"})
_STORES = frozenset({".db", ".sqlite", ".sqlite3"})
_CHUNK_ROWS = 500


def is_job(path: str) -> bool:
    """Whether a path of `input` names a job or a store, by its extension."""
    return Path(path).suffix.lower() in _SPECS | _STORES


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A job whose results are read."""

    store: Path
    name: str
    """As messages call it."""

    def rows(self, id_column: str | None) -> Iterator[list[Row]]:
        """Its ok results as rows, in its order, in chunks."""
        records = Records(id_column)
        with StoreReader(self.store) as reader:
            after = -1
            while results := ok_after(reader, after, _CHUNK_ROWS):
                yield [records.readable(fields_of(result), place=f"{self.name}:{_id(result)}") for result in results]
                after = results[-1].row

    def record(self) -> list[Any]:
        """What changes when its results do."""
        with StoreReader(self.store) as reader:
            return [str(self.store), *reader.one("SELECT count(*), max(finished_at), sum(status = 'ok') FROM outcomes")]


def fields_of(result: Result) -> dict[str, Any]:
    """A result as a row's fields."""
    return {"custom_id": _id(result), "output": result.output, "parsed": result.parsed, "input": result.input, "model": result.model}


def _id(result: Result) -> str:
    return result.custom_id if result.custom_id is not None else str(result.row)


def upstream(path: str, *, spec: JobSpec, environ: Mapping[str, str], key: str) -> Upstream:
    """The job that a path names. SpecError when it has no store, or is this job itself. Where this run is simulated and the other job has only a simulated store, that one
    is meant.
    """

    def wrong(words: str) -> SpecError:
        return SpecError(Problem(file=str(spec.path) if spec.path is not None else None, path=key, message=words))

    file = Path(path)
    name = file.name
    if not is_job(path):
        raise wrong(f"{name} is no job; name a job's spec (.yaml, .toml) or its store (.db)")
    if not file.exists():
        raise wrong(f"{path}: no such file")
    store = file
    if file.suffix.lower() in _SPECS:
        job = load(file)
        around = environment(job.folder, environ)
        store, other = job.store_path(around), job.simulated().store_path(around)
        if not store.exists() and other.exists():
            if any(model.provider != "simulated" for model in spec.models.values()):
                raise wrong(f"{name} has only a simulated run's store; run it for real, or name {other.name} to take the simulated answers")
            store = other
    if store.resolve() == spec.store_path(environ).resolve():
        raise wrong("this is the job itself; a job can't read its own results")
    if not store.exists():
        raise wrong(f"{name} has no results yet: run it first")
    found = Upstream(store=store, name=name)
    with StoreReader(store) as reader:
        if not ok_after(reader, -1, 1):
            raise wrong(f"{name} has no ok results yet: run it first")
    return found


class Sieve:
    """Joins and filters rows, and numbers those that are left. None of it without `where` and `join`."""

    def __init__(self, where: str | None, joins: Mapping[str, Upstream]) -> None:
        """SpecError for a condition that can't be read."""
        self._filter = Filter(where) if where is not None else None
        self._joins = joins
        self.seen = 0
        """Rows that the last reading has looked at."""

    def __bool__(self) -> bool:
        return self._filter is not None or bool(self._joins)

    def misnamed(self, rows: Sequence[Row], *, all_alike: bool) -> str | None:
        """What is wrong with the condition's names, by the first rows as they are before it: it would leave out every row in silence. `all_alike`: every row has the
        same fields; else a column may well be on few rows only, and just a likely slip of the pen is told.
        """
        if self._filter is None or not rows:
            return None
        columns = list(dict.fromkeys([*(name for row in rows for name in row.fields), *self._joins]))
        for name in sorted(self._filter.columns.difference(columns)):
            close = get_close_matches(name, columns, 1, 0.8)
            if close or all_alike:
                return f"no row has {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"there are {', '.join(columns)[:200]}")
        return None

    def through(self, chunks: Iterator[list[Row]]) -> Iterator[list[Row]]:
        """Rows that meet the condition, with what they are joined with. Bad rows stay: they are results, too."""
        readers = {name: StoreReader(job.store) for name, job in self._joins.items()}
        position = self.seen = 0
        try:
            for chunk in chunks:
                kept = []
                self.seen += len(chunk)
                for row in chunk:
                    passed = row if row.error is not None else self._one(row, readers)
                    if passed is not None:
                        kept.append(replace(passed, position=position))
                        position += 1
                if kept:
                    yield kept
        finally:
            for reader in readers.values():
                reader.connection.close()

    def _one(self, row: Row, readers: Mapping[str, StoreReader]) -> Row | None:
        if readers:
            key = row.custom_id if row.custom_id is not None else str(row.position)
            joined = {name: ok_result(reader, key) for name, reader in readers.items()}
            row = replace(row, fields={**row.fields, **{name: fields_of(result) if result is not None else None for name, result in joined.items()}})
        if self._filter is None:
            return row
        found = self._filter.passes(row.fields)
        if isinstance(found, str):
            return replace(row, error=RowError(code=Code.BAD_ROW, message=f"{row.place}: input.where can't be judged: {found}"))
        return row if found else None


def sieve_of(spec: JobSpec, environ: Mapping[str, str]) -> tuple[Sieve, Sequence[Upstream]]:
    """What `input.where` and `input.join` of a spec ask for, and the jobs that are joined."""
    given = spec.input
    if given is None:
        return Sieve(None, {}), ()
    joins = {
        name: upstream(path, spec=spec, environ=environ, key=f"input.join.{name}")
        for (name, _), path in zip(given.join.items(), spec.join_paths(environ), strict=True)
    }
    return Sieve(given.where, joins), tuple(joins.values())
