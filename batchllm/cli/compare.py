"""`batchllm compare`: the same rows on several models."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from batchllm.core.nouns import Result
    from batchllm.spec import JobSpec

_EPILOG = """\b
Examples:
  batchllm compare jobs/classify-ab.yaml
  batchllm compare reviews.yaml --models mini,anthropic:claude-haiku-5-5
  batchllm compare reviews.yaml --live 20 --html compare.html

Without --live nothing is sent and no key is needed. Live answers are kept in <name>.compare.db (simulated ones in <name>.compare.sim.db), under a budget of their own (the job's `budget`).

Exit codes: 0 compared, 2 spec, input or arguments wrong; with --live those of run, too."""


@click.command(epilog=_EPILOG)
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--models", metavar="A,B,C", help="Models of the job, or PROVIDER:MODEL from the price book.  [default: all of the job's]")
@click.option("--rows", type=click.IntRange(min=1), metavar="N", help="For N rows, stable by id.  [default: all]")
@click.option("--live", type=click.IntRange(min=1), metavar="K", help="Also ask each model for K rows, and show the answers side by side.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write everything into one HTML file.")
@click.option("--set", "sets", multiple=True, metavar="A.B=C", help="Change a key of the spec; may be repeated.")
@click.option("--input", "input_", type=click.Path(path_type=Path), help="Rows from another file or job.")
@click.option("--simulate", is_flag=True, help="Every model simulated: no key, no cost.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(job: Path, **flags: Any) -> None:
    """Compare models on the same rows: cost of a row and of all, by standard, batch and cached prices; the cheapest, overall and by quality; real answers with --live."""
    from batchllm.cli.run import told_by_flag

    with told_by_flag(flags):
        code = _compare(job, flags)
    sys.exit(code)


def _compare(job: Path, flags: dict[str, Any]) -> int:
    from batchllm.cli._job import environ_of, spec_to_run
    from batchllm.core import json
    from batchllm.core.errors import Problem, SpecError
    from batchllm.engine.models_compared import compare_models, with_models
    from batchllm.report.models_compared import as_dict, compared_lines, html_page, side_by_side
    from batchllm.spec import literal, parse_set

    changes: dict[str, Any] = dict(parse_set(text) for text in flags["sets"])
    if flags["input_"] is not None:
        changes["input"] = literal(str(Path.cwd() / flags["input_"]))
    spec = spec_to_run(job, changes, simulate=False)
    words = [word.strip() for word in flags["models"].split(",")] if flags["models"] is not None else list(spec.models)
    spec = with_models(spec, list(dict.fromkeys(words)))
    if flags["simulate"]:
        spec = spec.simulated()
    environ = environ_of(spec)
    found = compare_models(spec, environ, flags["rows"], utc=time.time())
    results: list[Result] = []
    if flags["live"] is not None:
        code, results = _ask(spec, flags["live"], quiet=flags["as_json"])
        if code not in {0, 1}:
            return code
    answered = side_by_side(results, list(spec.models))
    if flags["as_json"]:
        click.echo(json.text(as_dict(found, answered)))
    else:
        for line in compared_lines(found, answered):
            click.echo(line, err=True)
    if flags["html"] is not None:
        try:
            flags["html"].write_text(html_page(found, answered), encoding="utf-8", errors="replace")
        except OSError as error:
            raise SpecError(Problem(file=str(flags["html"]), message=f"can't be written: {error.strerror}")) from None
        click.echo(f"  -> {flags['html']}", err=True)
    return 0


def _ask(spec: JobSpec, rows: int, *, quiet: bool) -> tuple[int, list[Result]]:
    """Asks every model for the same rows; (exit code of the run, results)."""
    import asyncio
    import os

    from batchllm.cli._job import environ_of
    from batchllm.core.clock import LoopClock
    from batchllm.core.errors import BatchLLMError
    from batchllm.engine import Deps, RunOptions, run_job
    from batchllm.engine.models_compared import ID_COLUMN, live_job
    from batchllm.report.choose import display
    from batchllm.share import state_folder
    from batchllm.store.read import StoreReader

    environ = environ_of(spec)
    job, records = live_job(spec, environ, rows)
    shown = display(job.name, quiet=quiet, live=True)

    async def main() -> Any:
        deps = Deps(clock=LoopClock(), environ=environ, listener=shown, signals=True, state=state_folder(os.environ))
        return await run_job(job, deps, RunOptions(records=records))

    with shown:
        try:
            with asyncio.Runner() as runner:
                summary = runner.run(main())
        except BatchLLMError as error:
            shown.failed(error)
            return error.exit_code, []
        simulated = all(model.provider == "simulated" for model in job.models.values())
        shown.finished(summary, job=summary.store, simulated=simulated)
    asked = {record[ID_COLUMN] for record in records}
    with StoreReader(Path(summary.store)) as reader:
        return int(summary.exit_code), [result for result in reader.results() if result.custom_id in asked]
