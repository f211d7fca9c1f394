"""`batchllm set`: other limits, another budget or deadline for a job that runs, from a second terminal."""

from __future__ import annotations

from pathlib import Path

import click

from batchllm.cli._job import find, job_argument

_EPILOG = """\b
Examples:
  batchllm set reviews.yaml budget.usd=30
  batchllm set reviews.yaml models.mini.limits.rpm=900 concurrency=400
  batchllm set reviews.yaml deadline=2h max_failed=1%

\b
Keys:
  concurrency, deadline, max_failed
  budget.usd, .usd_per_day, .tokens, .tokens_per_day, .tokens_per_month,
    .when_used_up
  models.NAME.limits.rpm, .tpm, .itpm, .otpm, .rpd, .tpd, .concurrency
  limit_groups.NAME.rpm and so on, .share, .usd_per_day
null takes a limit away."""


@click.command(epilog=_EPILOG)
@job_argument
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE...")
def command(job: str, store: Path | None, name: str | None, simulate: bool, changes: tuple[str, ...]) -> None:
    """Change a running job: all of the changes, or none when one is wrong. They hold for this run and are recorded; the spec's file stays as it is.

    A time of day or a duration as deadline counts from now.
    """
    from batchllm.cli._steer import steer

    steer(find(job, store=store, name=name, simulate=simulate), {"do": "set", "changes": changes})
