"""`batchllm pause`: holds a running job, from a second terminal."""

from __future__ import annotations

from pathlib import Path

import click

from batchllm.cli._job import find, job_argument

_EPILOG = """\b
Examples:
  batchllm pause reviews.yaml
  batchllm continue reviews.yaml"""


@click.command(epilog=_EPILOG)
@job_argument
def command(job: str, store: Path | None, name: str | None, simulate: bool) -> None:
    """Send nothing new until `continue`; what is in flight finishes. The deadline stands. A pause ends with its run."""
    from batchllm.cli._steer import steer

    steer(find(job, store=store, name=name, simulate=simulate), {"do": "pause"})
