"""Where rows come from: the spec's files, a pipe, or a program's own records - as a stream of chunks, with what a later run needs to see a change.

Everything that can be wrong with the input as a whole is said before anything is sent (SpecError, exit 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from batchllm.core import json
from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Code, Draft, Row, RowError
from batchllm.core.words import count_messages
from batchllm.engine.deps import RunOptions
from batchllm.engine.inputs import Inputs
from batchllm.engine.upstream import sieve_of
from batchllm.route import Router
from batchllm.rows import files, first, read, sample
from batchllm.rows.draft import Drafter
from batchllm.spec import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A row that can be asked: its draft and the names of its chain."""

    draft: Draft
    chain: tuple[str, ...]
    allowed: tuple[str, ...]
    """The models whose answers stand: those of its rule, and those that rows escalate to."""
    rule: int | None
    """The number of the rule that chose them; None when the row names its model."""


class Source:
    """The input of one run."""

    def __init__(self, spec: JobSpec, options: RunOptions, environ: Mapping[str, str]) -> None:
        self._spec = spec
        self._options = options
        self.files: tuple[files.InputFile, ...] = ()
        self._inputs: Inputs | None = None
        self._sieve = sieve_of(spec, environ)[0] if options.stream is not None else None
        self.is_stream = options.stream is not None or options.records is not None
        prompt = spec.prompt
        self.drafter = Drafter(
            messages=[(message.role, message.content) for message in prompt.messages] if prompt is not None else None,
            endpoint=spec.endpoint,
            override_model=spec.overrides.model,
            override_request=spec.overrides.request,
            models={name: model.model for name, model in spec.models.items()},
            folder=spec.folder,
        )
        self.router = Router([(route.when, route.use) for route in spec.routes])
        self._ladder: tuple[str, ...] = spec.output.on_invalid.escalate or () if spec.output.on_invalid is not None else ()
        self._places: frozenset[int] | None = None
        self.unnamed_models = 0
        """Batch lines whose `body.model` names no model of the spec."""
        if not self.is_stream:
            if spec.input is None:
                raise SpecError(Problem(file=_file(spec), path="input", message="no input: name a file under `input`, or give one with --input"))
            self._inputs = _checked_inputs(spec, environ)
            self.files = self._inputs.files
            empty = [Problem(path="input", message=f"{file.name}: the file is empty") for file in self.files if first.is_empty(file)]
            if empty:
                raise SpecError(empty)
            if spec.rows_are_files:
                self.drafter.cover(frozenset(file.path for file in self.files))

    @property
    def names(self) -> list[str]:
        """What the rows come from, in words; nothing for a stream."""
        return self._inputs.names if self._inputs is not None else []

    @property
    def looked_at(self) -> int:
        """Rows that `input.where` and `input.join` have seen in the last reading."""
        if self._inputs is not None:
            return self._inputs.looked_at
        return self._sieve.seen if self._sieve is not None else 0

    def chunks(self) -> Iterator[list[Row]]:
        """All rows, in order. A file can be read again; a pipe and records can't."""
        options = self._options
        if options.stream is not None:
            rows = read.read_stream(options.stream, id_column=self._spec.id, name=getattr(options.stream, "label", "stdin"))
            return self._sieve.through(rows) if self._sieve else rows
        if options.records is not None:
            return read.from_records(options.records, id_column=self._spec.id)
        assert self._inputs is not None
        return self._inputs.chunks()

    def check(self) -> None:
        """Looks at the first readable rows: are the prompt's names and the id column there?"""
        records = self._options.records
        if isinstance(records, Sequence):
            rows = [row for chunk in read.from_records(records[: first.COUNT], id_column=self._spec.id) for row in chunk if row.fields]
        elif self.is_stream:
            rows = []
        else:
            assert self._inputs is not None
            rows = self._inputs.readable()
        where = self._inputs.where_problem() if self._inputs is not None else None
        if where is not None:
            raise SpecError(Problem(file=_file(self._spec), path="input.where", message=where))
        problems = [_of_prompt(text, _file(self._spec)) for text in self.drafter.check(rows)]
        if self._spec.id is not None:
            text = first.id_problem(rows, self._spec.id)
            if text is not None:
                problems.append(Problem(file=_file(self._spec), path="id", message=text))
        columns = {name for row in rows for name in row.fields}
        problems += [
            Problem(
                file=_file(self._spec),
                path="output.keep",
                message=f"none of the first {len(rows)} rows has a column {name!r}; they have {', '.join(sorted(columns))[:200]}",
            )
            for name in self._spec.output.keep
            if rows and name not in columns
        ]
        problems += self._unjudged(rows)
        if problems:
            raise SpecError(problems)

    def _unjudged(self, rows: Sequence[Row]) -> list[Problem]:
        """The rule that none of the first rows can be judged by: text compared with a number, mostly cells of a CSV file. Where rows may name models, rules may not matter."""
        if self._spec.prompt is None or self._spec.overrides.model is not None:
            return []
        verdicts = [self.router.choose(row.fields, 0, "") for row in rows]
        told = [verdict.message for verdict in verdicts if isinstance(verdict, RowError) and verdict.code is Code.BAD_ROW]
        if not rows or len(told) < len(rows):
            return []
        path, _, message = told[0].partition(": ")
        return [Problem(file=_file(self._spec), path=path, message=f"{message} (so it is in all of the first {len(rows)} rows)")]

    def plan(self, row: Row, pin: str | None = None) -> Planned | RowError:
        """What a row asks for, and of whom. `pin`: the model that `retry --model` chose."""
        draft = self.drafter.draft(row)
        if isinstance(draft, RowError):
            return draft
        if draft.named_model is not None:
            self.unnamed_models += 1
        chosen = pin if pin in self._spec.models else draft.pin
        if chosen is not None:
            return Planned(draft=draft, chain=(chosen,), allowed=(chosen, *self._ladder), rule=None)
        key = row.custom_id if row.custom_id is not None else str(row.position)
        choice = self.router.choose(row.fields, count_messages(draft.messages) if self.router.uses_tokens else 0, key)
        if isinstance(choice, RowError):
            return replace(choice, message=f"{row.place}: {choice.message}")
        return Planned(draft=draft, chain=choice.chain, allowed=(*choice.allowed, *self._ladder), rule=choice.rule)

    def prepare_sample(self) -> None:
        """For `--sample N`: one pass that finds the N rows with the smallest hashes."""
        count = self._options.sample_count
        if count is not None:
            if self.is_stream:
                raise SpecError("--sample N needs files; with stdin give a percentage, such as --sample 1%")
            identities = (row.identity for chunk in self.chunks() for row in chunk)
            # With --limit, N of the rows that it leaves.
            self._places = sample.smallest(count, islice(identities, self._options.limit))

    def in_scope(self, row: Row, nth: int) -> bool:
        """Whether this run works on the row (`--limit`, `--sample`); `nth` counts rows of this reading from 0."""
        return self.covers(nth, row.identity)

    def covers(self, nth: int, identity: str) -> bool:
        """The same, by what a row is matched by."""
        options = self._options
        if options.limit is not None and nth >= options.limit:
            return False
        if options.sample_fraction is not None:
            return sample.chosen(identity, options.sample_fraction)
        return self._places is None or nth in self._places

    def covers_all(self, count: int) -> bool:
        """Whether this run's scope is the whole of an input of so many rows."""
        options = self._options
        return options.sample_fraction is None and self._places is None and (options.limit is None or count <= options.limit)

    @property
    def limit(self) -> int | None:
        """`--limit`."""
        return self._options.limit

    @property
    def limited(self) -> bool:
        """Whether reading may end before the input does."""
        return self._options.limit is not None

    def record(self) -> str:
        """The files as they are now, for the next run's comparison."""
        return json.text(self._inputs.record() if self._inputs is not None else [])

    def keep(self, row: Row) -> str | None:
        """The kept columns as JSON."""
        names: Sequence[str] = self._spec.output.keep
        return json.text({name: row.fields.get(name) for name in names}) if names else None


def _checked_inputs(spec: JobSpec, environ: Mapping[str, str]) -> Inputs:
    """The input, its files named as the spec names them, so that results are the same wherever the command was typed. Results must not replace one of them."""
    found = Inputs(spec, environ)
    results, store = spec.results_path(environ), spec.store_path(environ)
    for file in found.files:
        if any(files.is_same(file.path, path) for path in (results, store) if path is not None):
            words = f"{file.name} is an input of this job and would be replaced; give `results` and `store` names of their own"
            raise SpecError(Problem(file=_file(spec), path="results", message=words))
    if results is not None and files.is_same(results, store):
        words = f"{results.name} is the store of this job; give the results a name of their own"
        raise SpecError(Problem(file=_file(spec), path="results", message=words))
    return found


def _file(spec: JobSpec) -> str | None:
    return str(spec.path) if spec.path is not None else None


def _of_prompt(text: str, file: str | None) -> Problem:
    """`prompt.user, line 2: ...` -> the key it is about, and what is wrong."""
    label, _, words = text.partition(": ")
    path, _, line = label.partition(", line ")
    return Problem(file=file, path=path, message=f"line {line} of the text: {words}" if line else words)


def raw_fingerprint(row: Row) -> str:
    """What stands for the request of a row that none can be made of: its identity."""
    return f"row:{row.identity}"


DUPLICATE = "an earlier row has the same id; ids must be unique (give this row another one, or leave `id` out to number rows)"


def duplicate(row: Row) -> RowError:
    """The error of a later row with a used id."""
    return RowError(code=Code.DUPLICATE_ID, message=f"{row.place}: {DUPLICATE}")
