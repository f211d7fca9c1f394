"""`batchllm plan`: rows, tokens, cost and time of a job, before anything is sent."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from batchllm.engine.plan_live import Live
    from batchllm.spec import JobSpec

_EPILOG = """\b
Examples:
  batchllm plan jobs/quickstart.yaml
  batchllm plan reviews.yaml --set models.mini.limits.rpm=900
  batchllm plan reviews.yaml --set prompt.user=@v2.md
  batchllm plan reviews.yaml --live 50
  batchllm plan reviews.yaml --save plan.json
  batchllm run reviews.yaml --plan plan.json

It needs no key and no network; only --live sends rows (they are kept: a run goes on from them).

Exit codes: 0 planned, 2 spec or input wrong; with --live those of run, too."""


@click.command(epilog=_EPILOG)
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N rows.")
@click.option("--sample", metavar="1%|N", help="A sample of the rows, stable by id.")
@click.option("--budget", metavar="USD", help="Another cap in dollars.  [default: the spec's]")
@click.option(
    "--concurrency", type=click.IntRange(min=1), metavar="N", help="Requests in flight in the whole run.  [default: the spec's, else automatic]"
)
@click.option(
    "--set", "sets", multiple=True, metavar="A.B=C", help="Change a key of the spec; may be repeated. `prompt.user=@v2.md` takes a text from a file."
)
@click.option("--input", "input_", metavar="PATH|-", help="Rows from another file or job, or JSONL from stdin.")
@click.option("--name", metavar="NAME", help="Another job name (and so another store).  [default: the spec's, else its file's]")
@click.option(
    "--store", type=click.Path(path_type=Path), help="Another store, for what is done already.  [default: the spec's, else NAME.db beside it]"
)
@click.option(
    "--retry-failed", is_flag=False, flag_value="", metavar="[CODES]", help="As for `run`: with failed rows, all or those with these codes (a,b)."
)
@click.option(
    "--on-change",
    type=click.Choice(["ask", "rerun", "keep", "refuse"]),
    help="As for `run`: what becomes of ok rows whose request changed.  [default: the spec's, else ask]",
)
@click.option("--simulate", is_flag=True, help="As for `run --simulate`.")
@click.option("--live", type=click.IntRange(min=2), metavar="K", help="Send K rows first, for real (they are kept), and tell intervals.")
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="Write the plan, for `run --plan`.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(job: Path, **flags: Any) -> None:
    """What a job will take: rows, duplicates, bad rows, tokens, cost, time under its limits and what binds it, hosts and keys, and what would save money."""
    from batchllm.cli.run import told_by_flag

    with told_by_flag(flags):
        code = _plan(job, flags)
    sys.exit(code)


def _plan(job: Path, flags: dict[str, Any]) -> int:
    from batchllm.cli._job import environ_of, spec_to_run
    from batchllm.cli.run import changes, options_of, words_of
    from batchllm.core import json
    from batchllm.core.errors import SpecError
    from batchllm.engine.plan import plan_job
    from batchllm.report.plan import as_dict, plan_lines

    flags = {**flags, "max_failed": None, "results": None, "if_running": "fail"}
    if flags["live"] is not None and (flags["sample"] is not None or flags["input_"] == "-"):
        raise SpecError("--live draws rows of its own from the input's files; leave --sample and `--input -` out")
    spec = spec_to_run(job, changes(flags), simulate=flags["simulate"])
    live: Live | None = None
    if flags["live"] is not None:
        code, live = _send(spec, job, flags)
        if live is None:
            return code
    plan = plan_job(spec, environ_of(spec), options_of(flags), utc=time.time(), live=live)
    told = as_dict(plan)
    if flags["save"] is not None:
        _save(flags["save"], told)
    if flags["as_json"]:
        click.echo(json.text(told))
    else:
        for line in plan_lines(plan, job=words_of(job, flags)):
            click.echo(line, err=True)
    return 0


def _send(spec: JobSpec, job: Path, flags: dict[str, Any]) -> tuple[int, Live | None]:
    """Runs the first rows for real; the code of a run that was stopped, or what came of it."""
    from batchllm.cli._job import environ_of
    from batchllm.cli.run import execute
    from batchllm.engine.plan_live import read_live
    from batchllm.store.read import StoreReader

    run = {**flags, "sample": str(flags["live"]), "as_json": False, "quiet": flags["as_json"], "no_progress": False, "plan": None}
    code = execute(spec, job, run)
    if code not in {0, 1}:
        return code, None
    with StoreReader(spec.store_path(environ_of(spec))) as reader:
        return code, read_live(reader)


def _save(path: Path, told: dict[str, Any]) -> None:
    from batchllm.core import json
    from batchllm.core.errors import Problem, SpecError

    try:
        path.write_bytes(json.dumps(told) + b"\n")
    except OSError as error:
        raise SpecError(Problem(file=str(path), message=f"can't be written: {error.strerror}")) from None
    click.echo(f"the plan is in {path}; hold a run to it: batchllm run ... --plan {path}", err=True)
