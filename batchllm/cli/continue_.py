"""`batchllm continue`: lets a paused job go on."""

from __future__ import annotations

from pathlib import Path

import click

from batchllm.cli._job import find, job_argument

_EPILOG = """\b
Example:
  batchllm continue reviews.yaml"""


@click.command(epilog=_EPILOG)
@job_argument
def command(job: str, store: Path | None, name: str | None, simulate: bool) -> None:
    """Let a job that was paused go on."""
    from batchllm.cli._steer import steer

    steer(find(job, store=store, name=name, simulate=simulate), {"do": "continue"})
