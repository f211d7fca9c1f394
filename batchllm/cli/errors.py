"""`batchllm errors`: why rows failed, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchllm.cli._job import find, job_argument

if TYPE_CHECKING:
    from batchllm.spec import JobSpec

_EPILOG = """\b
Examples:
  batchllm errors reviews.yaml
  batchllm errors reviews.yaml --json | jq '.causes[].code'"""


@click.command(epilog=_EPILOG)
@job_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(job: str, store: Path | None, name: str | None, simulate: bool, as_json: bool) -> None:
    """Failed rows grouped by cause, each with an example, its fix, and the line that tries these rows again."""
    from batchllm.core import json
    from batchllm.core.errors import SpecError
    from batchllm.report.causes import cause_lines, causes
    from batchllm.report.gather import InputRows
    from batchllm.report.text import rows

    found = find(job, store=store, name=name, simulate=simulate)
    source = None
    if found.spec is not None:
        try:
            source = InputRows(found.spec, found.environ)
        except SpecError:
            source = None  # rows are then named by their number alone
    with found.read() as reader:
        listed = causes(reader, source, job=found.words, windows=_windows(found.spec) if found.spec is not None else {})
        job_name = reader.job()["name"]
    failed = sum(cause.rows for cause in listed)
    if as_json:
        click.echo(json.text({"job": job_name, "failed": failed, "causes": [cause.as_dict() for cause in listed]}))
        return
    if not listed:
        click.echo("no row failed", err=True)
        return
    for cause in listed:
        click.echo("\n".join([*cause_lines(cause), ""]), err=True)
    click.echo(f"{rows(failed)} failed. All of them again: batchllm run {found.words} --retry-failed", err=True)


def _windows(spec: JobSpec) -> dict[str, int | None]:
    """How many tokens each model takes, where that is documented."""
    from batchllm.engine.facts import documented

    return {name: documented(model, model.base_url or "").context_window for name, model in spec.models.items()}
