"""`batchllm status`: where a job stands, from its store."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchllm.cli._job import Job, find, job_argument

if TYPE_CHECKING:
    from batchllm.report.state import JobState

_EPILOG = """\b
Examples:
  batchllm status jobs/quickstart.yaml
  batchllm status reviews.yaml --watch
  batchllm status reviews.yaml --by-model --gold label
  batchllm status reviews.db --json | jq .rows"""
_PLAIN_SECONDS = 10.0


@click.command(epilog=_EPILOG)
@job_argument
@click.option("--watch", is_flag=True, help="Look again every second until the run ends; Ctrl-C leaves (the run goes on).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout (with --watch one a second).")
@click.option("--by-model", is_flag=True, help="Models side by side: rows, cost, latency, valid answers, length.")
@click.option("--gold", metavar="COLUMN", help="With --by-model: a kept input column that holds the right answer; shows how many agree with it.")
def command(job: str, store: Path | None, name: str | None, simulate: bool, watch: bool, as_json: bool, by_model: bool, gold: str | None) -> None:
    """Done, failed and pending rows, spend, what may have been billed, rates, errors by code. Works while a run goes on."""
    if gold is not None and not by_model:
        raise click.UsageError("--gold compares models: give --by-model, too")
    if by_model and watch:
        raise click.UsageError("--by-model looks once; leave --watch out")
    found = find(job, store=store, name=name, simulate=simulate)
    if by_model:
        _compare(found, gold, as_json=as_json)
        return
    if not watch:
        _show(found, as_json=as_json)
        return
    # Leaving is what Ctrl-C is for here: it is no failure.
    with contextlib.suppress(KeyboardInterrupt):
        _watch(found, as_json=as_json)


def _compare(found: Job, gold: str | None, *, as_json: bool) -> None:
    from batchllm.core import json
    from batchllm.report.by_model import by_model, model_lines

    with found.read() as reader:
        figures = by_model(reader, gold)
    if as_json:
        click.echo(json.text({"models": [one.as_dict(gold=gold is not None) for one in figures]}))
        return
    for line in model_lines(figures, gold=gold):
        click.echo(line, err=True)


def _look(found: Job) -> JobState:
    from batchllm.report.state import read_state

    results = found.results_path()
    with found.read() as reader:
        return read_state(reader, results=str(results) if results is not None else None, now_utc=time.time())


def _show(found: Job, *, as_json: bool) -> JobState:
    state = _look(found)
    if as_json:
        from batchllm.core import json

        click.echo(json.text(state.as_dict()))
    else:
        _lines(found, state)
    return state


def _lines(found: Job, state: JobState) -> None:
    from batchllm.report.status import state_lines

    for line in state_lines(state, job=found.words):
        click.echo(line, err=True)


def _watch(found: Job, *, as_json: bool) -> None:
    if as_json or not sys.stderr.isatty():
        _watch_lines(found, as_json=as_json)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from batchllm.report.status import state_lines

    with Live(console=Console(stderr=True, highlight=False), auto_refresh=False, transient=True, redirect_stdout=False) as live:
        while True:
            began = time.monotonic()
            state = _look(found)
            if state.state != "running":
                break
            live.update(Text("\n".join(state_lines(state, job=found.words)), no_wrap=True, overflow="ellipsis"), refresh=True)
            _pause(began, 1.0)
    _lines(found, state)


def _watch_lines(found: Job, *, as_json: bool) -> None:
    """Without a terminal: JSON a second, or a line now and then."""
    from batchllm.core import json
    from batchllm.report.status import one_line

    while True:
        began = time.monotonic()
        state = _look(found)
        if as_json:
            click.echo(json.text(state.as_dict()))
        elif state.state == "running":
            click.echo(one_line(state), err=True)
        if state.state != "running":
            break
        _pause(began, 1.0 if as_json else _PLAIN_SECONDS)
    if not as_json:
        _lines(found, state)


def _pause(began: float, seconds: float) -> None:
    # On a store of millions of attempts a look takes its time: the run must not suffer from being watched.
    time.sleep(max(seconds, 4 * (time.monotonic() - began)))
