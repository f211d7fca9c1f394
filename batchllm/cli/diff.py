"""`batchllm diff`: two jobs' answers to the same rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from batchllm.cli._job import Job
    from batchllm.store.pairs import Side
    from batchllm.store.read import StoreReader

_EPILOG = """\b
Examples:
  batchllm diff old.db new.db
  batchllm diff labels.yaml labels-v2.yaml --on parsed.label --gold team
  batchllm diff a.db b.db --to d.jsonl
  batchllm run jobs/judge.yaml --input d.jsonl       asks a model who is right

Rows are matched by custom_id.

Exit codes: 0 compared, 2 arguments wrong, 5 a store can't be read."""


@click.command(epilog=_EPILOG)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--on", metavar="PATH", help="What is compared: output, parsed, or a field such as parsed.label.  [default: parsed, else output]")
@click.option("--gold", metavar="COLUMN", help="A kept input column that holds the right answer.")
@click.option("--to", type=click.Path(path_type=Path, dir_okay=False), help="Write the rows that differ as JSONL: custom_id, input, a, b.")
@click.option("--simulate", is_flag=True, help="The stores of `run --simulate`, where A and B are specs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(a: str, b: str, on: str | None, gold: str | None, to: Path | None, simulate: bool, as_json: bool) -> None:
    """Compare two jobs: how often they agree, what changed into what, validity, cost and latency. A and B are specs or stores."""
    from batchllm.cli._job import find
    from batchllm.core import json
    from batchllm.core.errors import SpecError
    from batchllm.report.diff import as_dict, difference, difference_lines

    first, second = (find(job, store=None, name=None, simulate=simulate and not job.endswith(".db")) for job in (a, b))
    if first.store.resolve() == second.store.resolve():
        raise SpecError(f"{a} and {b} are the same store; a store has one answer a row (`status --by-model` compares the models of one job)")
    with first.read() as reader, second.read() as other:
        names = (reader.job()["name"], other.job()["name"])
        if names[0] == names[1]:
            names = (first.store.name, second.store.name)
        found, differing = difference(reader, other, on=on, gold=gold)
        written = _write(to, differing, first, reader, found.on) if to is not None else 0
    if as_json:
        click.echo(json.text(as_dict(found, names=names, gold=gold)))
    else:
        for line in difference_lines(found, names=names, gold=gold):
            click.echo(line, err=True)
    if to is not None:
        click.echo(f"  -> {written:,} rows that differ are in {to}", err=True)
    if not found.both:
        click.echo("  the two have no id in common", err=True)


def _write(to: Path, differing: Iterable[tuple[Side, Side]], job: Job, reader: StoreReader, on: str) -> int:
    from batchllm.core import json
    from batchllm.core.errors import Problem, SpecError
    from batchllm.report.diff import value_of

    source = _source(job)
    count = 0
    part = to.with_name(f".{to.name}.part")
    try:
        with part.open("wb") as file:
            for one, other in differing:
                line = {
                    "custom_id": one.custom_id,
                    "input": _input(one, other, source, reader),
                    "a": value_of(one, on),
                    "b": value_of(other, on),
                }
                file.write(json.dumps(line, default=lambda _: None) + b"\n")
                count += 1
        part.replace(to)
    except OSError as error:
        raise SpecError(Problem(file=str(to), message=f"can't be written: {error.strerror}")) from None
    finally:
        part.unlink(missing_ok=True)
    return count


def _source(job: Job) -> object:
    """The first job's input, for columns that weren't kept; None where it can't be read any more."""
    from batchllm.core.errors import SpecError
    from batchllm.report.gather import InputRows

    try:
        return InputRows(job.spec, job.environ) if job.spec is not None else None
    except SpecError:
        return None


def _input(one: Side, other: Side, source: object, reader: StoreReader) -> object:
    """The whole row where the input still has it as it was asked, else the kept columns."""
    from batchllm.report.gather import InputRows
    from batchllm.store.read import identity

    if isinstance(source, InputRows):
        row = source.at(one.row)
        if row is not None and row.identity == identity(reader.connection, one.row_key):
            return dict(row.fields)
    return one.input or other.input
