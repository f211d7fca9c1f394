"""`batchllm export`: the results of a job, in any format, with input columns and bodies where they are wanted."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batchllm.cli import _finetune
from batchllm.cli._job import Job, find, job_argument
from batchllm.core.errors import Problem, SpecError

if TYPE_CHECKING:
    from batchllm.report.gather import InputRows, Wanted
    from batchllm.store.read import StoreReader

_EPILOG = """\b
Examples:
  batchllm export reviews.yaml > results.jsonl
  batchllm export reviews.yaml --to results.csv --with text,stars
  batchllm export reviews.yaml --status failed --include request,response
  batchllm export reviews.yaml --where "cost_usd > 0.01 and model = 'strong'"
  batchllm export reviews.db --where "json_extract(parsed, '$.label') = 'bad'"
  batchllm export reviews.yaml --since 24h --to today.jsonl
  batchllm export embed.yaml --to vectors.npy
  batchllm export reviews.db --format openai --to output.jsonl
  batchllm export reviews.yaml --format finetune --to train.jsonl \\
    --validation 10% --model gpt-4.1-mini"""
T = TypeVar("T")
_BODIES = ("request", "response")
_FOREIGN = frozenset({".tsv", ".xls", ".xlsx", ".gz", ".zst", ".zip", ".db"})


def _names(_ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    if text is not None and not names:
        raise click.BadParameter("expected names with commas between them", param=param)
    return names


@click.command(epilog=_EPILOG)
@job_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "openai", "csv", "parquet", "npy", "finetune"]),
    help="The form.  [default: by the extension of --to, else jsonl]",
)
@click.option("--to", metavar="PATH|-", default="-", help="The file, replaced when all is written.  [default: stdout]")
@click.option("--with", "columns", metavar="all|COLUMNS", callback=_names, help="Input columns, a,b: from the store, or read from the input again.")
@click.option("--status", type=click.Choice(["ok", "failed"]), help="Only such rows.")
@click.option("--where", metavar="SQL", help="Only rows that meet a condition over the columns of `results`; `parsed` is JSON.")
@click.option("--since", metavar="RUN|TIME|SPAN", help="Only rows finished in that run or later, or since then: 3, 2026-11-20 (UTC), 24h.")
@click.option("--include", metavar="request,response", callback=_names, help="The kept bodies, as JSON where they are JSON.")
@_finetune.options
def command(
    job: str,
    store: Path | None,
    name: str | None,
    simulate: bool,
    form: str | None,
    to: str,
    columns: tuple[str, ...],
    status: str | None,
    where: str | None,
    since: str | None,
    include: tuple[str, ...],
    **training: Any,
) -> None:
    """Write the results in input order: jsonl (as `run` does), csv, parquet, the output lines of OpenAI's Batch API, vectors as an array (npy), or training data for a model (finetune)."""
    from batchllm.report.gather import Wanted
    from batchllm.report.since import since as since_of

    found = find(job, store=store, name=name, simulate=simulate)
    form = form or _format(to)
    unknown = [part for part in include if part not in _BODIES]
    if unknown:
        raise SpecError(Problem(file="--include", message=f"there is request and response, not {unknown[0]!r}"))
    if form == "openai" and (columns or include):
        raise SpecError("--format openai has lines of a fixed form; --with and --include go with jsonl and csv")
    if form == "npy" and (columns or include or to == "-"):
        raise SpecError("--format npy is an array of vectors in a file: give --to PATH.npy, without --with and --include")
    _check_training(form, training, status=status, bound=bool(columns or include))
    if form == "parquet" and to == "-":
        raise SpecError("--format parquet needs a file: give --to PATH.parquet")
    after = since_of(since, now_utc=time.time()) if since is not None else None
    wanted = Wanted(
        status=status, where=where, since=after, columns=() if columns == ("all",) else columns, all_columns=columns == ("all",), include=include
    )
    _check_target(found, to)
    with found.read() as reader:
        if where is not None:
            from batchllm.store.read import check_where

            check_where(reader, where)
        if form == "finetune":
            sys.exit(_finetune.write(found, reader, to, where=where, since=after, flags=training, check_target=_check_target))
        if form == "npy":
            from batchllm.export.vectors import ids_path, write_npy
            from batchllm.report.gather import gather

            write_npy((line.result for line in gather(reader, wanted, None)), Path(to))
            click.echo(f"wrote {to} and {ids_path(Path(to))}", err=True)
            return
        written = _Counted()
        if form == "parquet":
            _write_parquet(found, reader, wanted, Path(to), written)
        elif not _write(_encoded(found, reader, wanted, form, written), to):
            return
        _tell(written.count, to, reader, wanted)


class _Counted:
    """Counts what passes."""

    def __init__(self) -> None:
        self.count = 0

    def through(self, lines: Iterable[T]) -> Iterator[T]:
        for line in lines:
            self.count += 1
            yield line


def _tell(count: int, to: str, reader: StoreReader, wanted: Wanted) -> None:
    from batchllm.report.text import rows
    from batchllm.report.where import where_hint

    if to != "-":
        click.echo(f"wrote {to}: {rows(count)}", err=True)
    elif not count:
        click.echo("no row" + (" meets these conditions" if wanted.status or wanted.where or wanted.since else " has a result yet"), err=True)
    if not count and (hint := where_hint(wanted.where)) is not None:
        click.echo(hint, err=True)
    if not count and wanted.since is not None and wanted.since.column == "run":
        (last,) = reader.one("SELECT max(run) FROM runs")
        if last is not None and int(wanted.since.value) > last:
            click.echo(f"--since {wanted.since.value} is a run's number, and the last run is {last}", err=True)


def _check_training(form: str, training: dict[str, Any], *, status: str | None, bound: bool) -> None:
    """Flags that don't go together are refused."""
    given = next((name for name in _finetune.OPTIONS if training[name] is not None), None)
    if form != "finetune" and given is not None:
        flag = "for" if given == "trainer" else given.replace("_", "-")
        raise SpecError(f"--{flag} goes with --format finetune")
    if form == "finetune" and (bound or status == "failed"):
        raise SpecError("--format finetune has lines of a fixed form, from ok rows; --with, --include and --status failed don't go with it")


def _format(to: str) -> str:
    suffix = Path(to).suffix.lower()
    if to != "-" and suffix in _FOREIGN:
        raise SpecError(Problem(file="--to", message=f"{to}: this version can't write {suffix}; use .jsonl, .csv, .parquet or .npy"))
    return suffix[1:] if suffix in {".csv", ".npy", ".parquet"} else "jsonl"


def _check_target(found: Job, to: str) -> None:
    """An export must not replace the job's own files."""
    target = Path(to)
    if to == "-" or not target.exists():
        return
    own = [found.store]
    if found.spec is not None:
        spec = found.spec
        own += [spec.path] if spec.path is not None else []
        try:
            from batchllm.rows.files import resolve

            own += [file.path for file in resolve(spec.input_patterns(found.environ), but=spec.own_files(found.environ), whole=spec.rows_are_files)]
        except SpecError:
            pass  # the input is gone: then it can't be the target
    if any(path.exists() and target.samefile(path) for path in own):
        raise SpecError(Problem(file="--to", message=f"{to} is the job's own store, spec or input; choose another file"))


def _write_parquet(found: Job, reader: StoreReader, wanted: Wanted, to: Path, written: _Counted) -> None:
    from batchllm.export.columnar import write_parquet
    from batchllm.report.gather import gather, kept_columns

    kept = kept_columns(reader)
    source = _source(found, wanted, kept)
    more = source.names() if source is not None and wanted.all_columns else wanted.columns
    lines = written.through(gather(reader, wanted, source))
    write_parquet(lines, to, columns=list(dict.fromkeys([*kept, *more])), extras=wanted.include)


def _encoded(found: Job, reader: StoreReader, wanted: Wanted, form: str, written: _Counted) -> Iterator[bytes]:
    from batchllm.export.lines import csv, jsonl
    from batchllm.report.gather import gather, gather_openai, kept_columns

    if form == "openai":
        return written.through(gather_openai(reader, wanted))
    kept = kept_columns(reader)
    source = _source(found, wanted, kept)
    lines = written.through(gather(reader, wanted, source))
    if form == "jsonl":
        return jsonl(lines)
    more = source.names() if source is not None and wanted.all_columns else wanted.columns
    return csv(lines, columns=list(dict.fromkeys([*kept, *more])), extras=wanted.include)


def _source(found: Job, wanted: Wanted, kept: list[str]) -> InputRows | None:
    """The input, when columns are wanted that the store hasn't."""
    from batchllm.report.gather import InputRows

    missing = [name for name in wanted.columns if name not in kept]
    if not missing and not wanted.all_columns:
        return None
    what = "the input columns are" if wanted.all_columns else f"the column {missing[0]!r} is"
    why = f"{what} not in the store (`output.keep` keeps columns)"
    if found.spec is None:
        raise SpecError(f"{why}, and its spec can't be read: {found.problem}")
    try:
        source = InputRows(found.spec, found.environ)
    except SpecError as error:
        raise SpecError(f"{why}, and the input can't be read again: {error}") from error
    source.check(missing)
    return source


def _write(lines: Iterator[bytes], to: str) -> bool:
    """Whether all was taken."""
    from batchllm.export.results import replacing, write_stdout

    try:
        if to == "-":
            write_stdout(lines)
            return True
        with replacing(Path(to)) as file:
            for line in lines:
                file.write(line)
    except BrokenPipeError:
        # The reader has what it wanted (`| head`). Python would complain once more when it flushes stdout at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True
