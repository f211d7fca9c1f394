"""`batchllm run`: flags become changes of the spec or options of the run; the engine does the rest."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

_SAMPLE = re.compile(r"(\d+(?:\.\d+)?)\s*%$")

EPILOG = """\b
Examples:
  batchllm run jobs/quickstart.yaml
  batchllm run reviews.yaml --budget 5 --set models.mini.limits.rpm=900
  batchllm run reviews.yaml --simulate --limit 100
  cat rows.jsonl | batchllm run reviews.yaml --input - --results - --json
  batchllm run reviews.yaml --follow --idle 600

Exit codes: 0 every row ok, 1 rows failed, 2 spec or input wrong, 3 budget or deadline, 4 provider, 5 store, 130 interrupted. After 3, 4, 5 and 130 the same command goes on."""


@click.command(epilog=EPILOG)
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--budget", metavar="USD", help="Hard cap in dollars over the job's whole life.  [default: the spec's]")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N rows.")
@click.option("--sample", metavar="1%|N", help="A sample of the rows, stable by id.")
@click.option(
    "--concurrency", type=click.IntRange(min=1), metavar="N", help="Requests in flight in the whole run.  [default: the spec's, else automatic]"
)
@click.option("--set", "sets", multiple=True, metavar="A.B=C", help="Change a key of the spec for this run; may be repeated.")
@click.option("--input", "input_", metavar="PATH|-", help="Rows from another file or job, or JSONL from stdin; where and join of the spec hold.")
@click.option("--follow", is_flag=True, help="Go on reading a .jsonl file that grows, until Ctrl-C or --idle.")
@click.option("--idle", type=click.FloatRange(min=0.1), metavar="SECONDS", help="With --follow: end when nothing came for so long.")
@click.option("--name", metavar="NAME", help="Another job name (and so another store and results).  [default: the spec's, else its file's]")
@click.option("--store", type=click.Path(path_type=Path), help="Another store.  [default: the spec's, else NAME.db beside it]")
@click.option(
    "--results",
    metavar="PATH|-",
    help="Another results file; - is stdout, `none` writes none.  [default: the spec's, else NAME.results.jsonl beside it]",
)
@click.option("--retry-failed", is_flag=False, flag_value="", metavar="[CODES]", help="Try failed rows again: all, or those with these codes (a,b).")
@click.option(
    "--on-change",
    type=click.Choice(["ask", "rerun", "keep", "refuse"]),
    help="What to do with ok rows whose request changed; ask: on a terminal, else refuse.  [default: the spec's, else ask]",
)
@click.option("--max-failed", metavar="N|P%", help="So many failed rows are still success.  [default: the spec's, else 0]")
@click.option("--if-running", type=click.Choice(["fail", "wait", "skip"]), default="fail", show_default=True, help="When another run holds the job.")
@click.option("--simulate", is_flag=True, help="Every model simulated: no key, no cost, own store and results (<name>.sim.*).")
@click.option("--plan", type=click.Path(path_type=Path), help="A saved plan: refuse when rows, prices or the length of answers have risen past it.")
@click.option("--drift", metavar="P%", help="With --plan: by how much they may.  [default: 10%]")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object (stdout; with --results - stderr's last line).")
@click.option("--quiet", is_flag=True, help="Errors only.")
@click.option("--no-progress", is_flag=True, help="Plain lines instead of the live display.")
def command(job: Path, **flags: Any) -> None:
    """Run a job, or resume it: always safe to repeat; failed rows are left alone. A flag wins over the spec's key."""
    from batchllm.cli._job import spec_to_run

    if flags["drift"] is not None and flags["plan"] is None:
        raise click.UsageError("--drift goes with --plan")
    if flags["idle"] is not None and not flags["follow"]:
        raise click.UsageError("--idle goes with --follow")
    if flags["follow"] and flags["input_"] == "-":
        raise click.UsageError("--follow follows a file; stdin is read to its end anyway")
    with told_by_flag(flags):
        spec = spec_to_run(job, changes(flags), simulate=flags["simulate"])
    sys.exit(execute(spec, job, flags))


_FLAG_KEYS = {
    "budget.usd": "budget",
    "concurrency": "concurrency",
    "name": "name",
    "max_failed": "max_failed",
    "results": "results",
    "input": "input_",
}


def _by_flag(problem: Any, flags: dict[str, Any]) -> Any:
    """A problem with what a flag said is told under the flag's own name, not under --set, which nobody wrote."""
    flag = _FLAG_KEYS.get(problem.path or "")
    if flag is None or flags.get(flag) is None or (problem.file != "--set" and flag != "input_"):
        return problem
    return replace(problem, file=f"--{flag.strip('_').replace('_', '-')}", path=None)


@contextlib.contextmanager
def told_by_flag(flags: dict[str, Any]) -> Iterator[None]:
    """Problems with what flags said are told under their names."""
    from batchllm.core.errors import SpecError

    try:
        yield
    except SpecError as error:
        raise SpecError([_by_flag(problem, flags) for problem in error.problems]) from None


def changes(flags: dict[str, Any]) -> dict[str, Any]:
    """The spec changes that flags stand for. Paths are the current folder's, those in --set the spec's."""
    from batchllm.spec import literal, parse_set

    changed: dict[str, Any] = dict(parse_set(text) for text in flags["sets"])
    if flags["budget"] is not None:
        changed["budget.usd"] = _number(flags["budget"], "--budget")
    if flags["concurrency"] is not None:
        changed["concurrency"] = flags["concurrency"]
    if flags["name"] is not None:
        changed["name"] = flags["name"]
    if flags["on_change"] is not None:
        changed["on_change"] = flags["on_change"]
    if flags["max_failed"] is not None:
        text = flags["max_failed"]
        changed["max_failed"] = int(text) if text.isdigit() else text
    if flags["store"] is not None:
        changed["store"] = literal(str(Path.cwd() / flags["store"]))
    if flags["results"] is not None and flags["results"] != "-":
        changed["results"] = "none" if flags["results"] == "none" else literal(str(Path.cwd() / flags["results"]))
    if flags["results"] == "-":
        changed["results"] = "none"
    if flags["input_"] is not None and flags["input_"] != "-":
        changed["input"] = literal(str(Path.cwd() / flags["input_"]))
    return changed


def _number(text: str, flag: str) -> float | int:
    from decimal import Decimal, InvalidOperation

    from batchllm.core.errors import Problem, SpecError

    try:
        value = Decimal(text.lstrip("$"))
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise SpecError(Problem(file=flag, message=f"expected dollars such as 5 or 0.25, got {text!r}"))
    return int(value) if value == int(value) else float(value)


def execute(spec: Any, job: Path, flags: dict[str, Any]) -> int:
    """Runs the job in this terminal and returns the exit code."""
    from batchllm.cli._job import environ_of
    from batchllm.cli._pipe import Pipe
    from batchllm.core import json
    from batchllm.core.clock import LoopClock
    from batchllm.core.errors import BatchLLMError, SpecError
    from batchllm.engine import Deps, run_job
    from batchllm.report.choose import display
    from batchllm.share import state_folder
    from batchllm.store import is_locked

    environ = environ_of(spec)
    if flags["if_running"] == "skip" and is_locked(spec.store_path(environ)) is not None:
        click.echo(f"{spec.name} is already running; skipped", err=True)
        return 0
    options = options_of(flags)
    if flags.get("follow"):
        from batchllm.engine.following import follow

        options = replace(options, stream=follow(spec, environ, idle_seconds=flags["idle"]))
    if flags.get("plan") is not None:
        _hold_to(spec, environ, options, flags)
    to_stdout = flags["results"] == "-"
    pipe = Pipe() if to_stdout and options.stream is not None else None
    shown = display(spec.name, quiet=flags["quiet"], live=not flags["no_progress"])

    async def main() -> Any:
        deps = Deps(
            clock=LoopClock(),
            environ=environ,
            listener=shown,
            ask_change=_ask if _is_terminal() else None,
            signals=True,
            state=state_folder(os.environ),
        )
        if pipe is not None:
            deps = replace(deps, on_start=pipe.started, on_met=pipe.met, on_known=pipe.came, on_result=pipe.came)
        return await run_job(spec, deps, options)

    with shown:
        try:
            summary = _run(main)
        except BatchLLMError as error:
            problems = error.problems if isinstance(error, SpecError) else ()
            shown.failed(SpecError([_by_flag(problem, flags) for problem in problems]) if problems else error)
            return error.exit_code
        except KeyboardInterrupt:
            # Before the run was on its way (or while it waited for another one): nothing was sent.
            shown.failed(BatchLLMError("interrupted before anything was sent"))
            return 130
        simulated = summary.simulated or all(model.provider == "simulated" for model in spec.models.values())
        shown.finished(summary, job=words_of(job, flags), simulated=simulated)
    try:
        if pipe is not None:
            pipe.close()
        elif to_stdout:
            _print_results(summary)
        if flags["as_json"]:
            click.echo(json.text(summary.as_dict()), err=to_stdout)
    except OSError as error:
        return _output_lost(error, int(summary.exit_code))
    return int(summary.exit_code)


def _hold_to(spec: Any, environ: Any, options: Any, flags: dict[str, Any]) -> None:
    """Raises SpecError when the job is no longer what was planned."""
    import time

    from batchllm.core.errors import Problem, SpecError
    from batchllm.engine.plan_drift import check_drift, read_plan

    if options.stream is not None:
        raise SpecError(Problem(file="--plan", message="needs files: rows of a pipe can't be counted before they are sent"))
    text = flags["drift"] or "10%"
    percent = _SAMPLE.match(text.strip())
    if percent is None:
        raise SpecError(Problem(file="--drift", message=f"expected a percentage such as 10%, got {text!r}"))
    file = str(flags["plan"])
    check_drift(read_plan(flags["plan"]), file, spec, environ, options, bound=float(percent[1]) / 100, utc=time.time())


def _output_lost(error: OSError, exit_code: int) -> int:
    """The reader of stdout has gone (which is its right: `| head`), or the disk behind it is full. Everything is in the store."""
    if isinstance(error, BrokenPipeError):
        return exit_code
    with contextlib.suppress(OSError):
        click.echo(f"error: the output was lost ({error.strerror}); every answer is safe in the store: write them with `batchllm export`", err=True)
    return exit_code or 5


def _print_results(summary: Any) -> None:
    from batchllm.export.results import write_results
    from batchllm.store.read import StoreReader

    with StoreReader(Path(summary.store)) as reader:
        write_results(reader.results(), Path("-"))


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _run(main: Any) -> Any:
    # A row makes hundreds of objects and no cycles: looking for cycles at every 700th object was a fifth of a run's CPU. (Only here: a program's own collector is its own.)
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main())


def options_of(flags: dict[str, Any]) -> Any:
    """The options of a run that flags stand for."""
    from batchllm.core.errors import Problem, SpecError
    from batchllm.core.nouns import Code
    from batchllm.engine import RunOptions

    fraction, count = None, None
    if flags["sample"] is not None:
        percent = _SAMPLE.match(flags["sample"].strip())
        if percent is not None and 0 < float(percent[1]) <= 100:
            fraction = float(percent[1]) / 100
        elif flags["sample"].strip().isdigit() and int(flags["sample"]) > 0:
            count = int(flags["sample"])
        else:
            raise SpecError(
                Problem(file="--sample", message=f"expected a percentage up to 100%, such as 1%, or a number of rows, got {flags['sample']!r}")
            )
    codes = None
    if flags["retry_failed"] is not None:
        codes = frozenset(code.strip() for code in flags["retry_failed"].split(",") if code.strip())
        unknown = codes - {str(code) for code in Code}
        if unknown:
            raise SpecError(Problem(file="--retry-failed", message=f"unknown code {', '.join(sorted(unknown))}; codes are {', '.join(Code)}"))
    return RunOptions(
        limit=flags["limit"],
        sample_fraction=fraction,
        sample_count=count,
        retry_failed=codes,
        if_running=flags["if_running"],
        stream=_stdin() if flags["input_"] == "-" else None,
    )


def _stdin() -> Any:
    # An object of its own: a thread may still sit in a read of it when Python ends, and Python insists on closing sys.stdin.
    return os.fdopen(os.dup(sys.stdin.fileno()), "rb")


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _ask(counts: Any) -> str:
    click.echo(f"The job changed: {counts.new} new, {counts.changed} changed, {counts.removed} removed, {counts.unchanged} unchanged rows.", err=True)
    # The run's own way of hearing Ctrl-C waits for the loop, and the loop waits for this answer.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        answer = click.prompt(
            "Changed answers: [r]erun (and pay again), [k]eep, or [s]top", type=click.Choice(["r", "k", "s"]), default="s", err=True
        )
    finally:
        signal.signal(signal.SIGINT, heard)
    return {"r": "rerun", "k": "keep", "s": "refuse"}[answer]


def words_of(job: Path, flags: dict[str, Any]) -> str:
    """How the user named the job, with the flags that pick its store: other commands take them, too."""
    named = [(f"--{name}", str(flags[name])) for name in ("name", "store") if flags[name] is not None]
    return shlex.join([str(job), *(word for pair in named for word in pair), *(["--simulate"] if flags["simulate"] else [])])
