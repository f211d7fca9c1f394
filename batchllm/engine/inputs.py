"""The input that a spec names: files, or another job's results, filtered and joined. It can be read again and again, always in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Row
from batchllm.engine.upstream import Upstream, is_job, sieve_of, upstream
from batchllm.rows import files, first, read
from batchllm.spec import JobSpec


class Inputs:
    """Raises SpecError for everything that is wrong with the input as a whole."""

    def __init__(self, spec: JobSpec, environ: Mapping[str, str]) -> None:
        patterns = spec.input_patterns(environ)
        if not patterns or "-" in patterns:
            raise SpecError("it didn't come from files")
        self._spec = spec
        self.job: Upstream | None = None
        self.files: tuple[files.InputFile, ...] = ()
        file = str(spec.path) if spec.path is not None else None
        if not spec.rows_are_files and any(map(is_job, patterns)):
            if len(patterns) > 1:
                raise SpecError(Problem(file=file, path="input", message="one job or store can be the input, alone; bring in others with `join`"))
            if self._csv and any(self._csv.values()):
                raise SpecError(Problem(file=file, path="input", message="`types`, `delimiter` and `encoding` are for CSV files"))
            self.job = upstream(patterns[0], spec=spec, environ=environ, key="input")
        else:
            try:
                self.files = files.resolve(patterns, base=spec.folder, but=spec.own_files(environ), whole=spec.rows_are_files)
            except SpecError as error:
                # A file's own mistake is told at the place that names the file.
                raise SpecError([_at_input(problem, file) for problem in error.problems]) from None
        self._sieve, self._joined = sieve_of(spec, environ)

    @property
    def _csv(self) -> dict[str, Any]:
        given = self._spec.input
        return {} if given is None else {"types": given.types, "delimiter": given.delimiter, "encoding": given.encoding}

    @property
    def names(self) -> list[str]:
        """What the rows come from, in words."""
        return [self.job.name] if self.job is not None else [file.name for file in self.files]

    def chunks(self) -> Iterator[list[Row]]:
        """All rows, in chunks."""
        rows = self._unsieved()
        return self._sieve.through(rows) if self._sieve else rows

    def _unsieved(self) -> Iterator[list[Row]]:
        return self.job.rows(self._spec.id) if self.job is not None else read.read(self.files, id_column=self._spec.id, **self._csv)

    def where_problem(self) -> str | None:
        """What is wrong with the names in `input.where`."""
        alike = self.job is not None or all(file.format in ("csv", "parquet") for file in self.files)
        return self._sieve.misnamed(first.of_chunks(self._unsieved()), all_alike=alike) if self._sieve else None

    @property
    def looked_at(self) -> int:
        """How many rows the last reading has seen, where rows are chosen or joined."""
        return self._sieve.seen

    def readable(self) -> list[Row]:
        """The first readable rows."""
        if self.job is None and not self._sieve:
            return first.readable(self.files, id_column=self._spec.id, **self._csv)
        return first.of_chunks(self.chunks())

    def record(self) -> list[Any]:
        """The files and stores as they are now, for the next run's comparison."""
        told: list[Any] = [[str(file.path), file.size, file.mtime_ns] for file in self.files]
        return told + [job.record() for job in (*([self.job] if self.job is not None else []), *self._joined)]


def _at_input(problem: Problem, spec_file: str | None) -> Problem:
    if problem.path is not None:
        return problem
    words = problem.message if problem.file is None else f"{problem.file}: {problem.message}"
    return Problem(file=spec_file, path="input", message=words)
