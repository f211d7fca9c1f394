"""`batchllm stop`: ends a running job, from a second terminal."""

from __future__ import annotations

from pathlib import Path

import click

from batchllm.cli._job import find, job_argument

_EPILOG = """\b
Example:
  batchllm stop reviews.yaml
Then, to go on: batchllm run reviews.yaml"""


@click.command(epilog=_EPILOG)
@job_argument
def command(job: str, store: Path | None, name: str | None, simulate: bool) -> None:
    """Stop a running job as its first Ctrl-C would: nothing new is sent, what is in flight finishes, the run exits with 130. The same run command goes on."""
    from batchllm.cli._steer import steer

    steer(find(job, store=store, name=name, simulate=simulate), {"do": "stop"})
