"""`batchllm verify`: the deterministic fault simulation of the engine, with a summary that says what was tried and a replay of what broke."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from batchllm.verify import Verdict

_EPILOG = """\b
Examples:
  batchllm verify --seeds 1000 --jobs 2
  batchllm verify --seed 417 -v   plays one again, and tells what happens
"""
_SAY_SECONDS = 5.0


@click.command(epilog=_EPILOG, context_settings={"max_content_width": 120})
@click.option("--seeds", type=click.IntRange(min=1), metavar="N", help="How many seeds to play.  [default: 100]")
@click.option("--start", type=click.IntRange(min=0), metavar="S", help="The first of them.  [default: 0]")
@click.option("--seed", type=click.IntRange(min=0), metavar="S", help="Play this one only.")
@click.option("--rows", type=click.IntRange(min=10), default=200, show_default=True, metavar="N", help="Rows of each job, about.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Processes.  [default: one per core]")
@click.option("-v", "--verbose", is_flag=True, help="With --seed: tell the plan and each life's end.")
def command(seeds: int | None, start: int | None, seed: int | None, rows: int, jobs: int | None, verbose: bool) -> None:
    """Try the engine against faults, crashes and clock jumps, in virtual time.

    Each seed is a job of about 200 rows on a simulated provider: it decides the job, the limits, the cap, the faults, and where the process dies. After each
    one the results, the store and the provider's audit log are compared. Nothing is sent anywhere. Exit code 1 when a seed broke a promise.
    """
    from batchllm.verify.many import verify_many

    if seed is not None and (seeds, start, jobs) != (None, None, None):
        raise click.UsageError("--seed plays one seed; --seeds, --start and --jobs are for many")
    if seed is None and verbose:
        raise click.UsageError("-v goes with --seed")
    began = time.monotonic()
    if seed is not None:
        verdicts: Iterable[Verdict] = [_replay(seed, rows, verbose=verbose)]
        count = 1
    else:
        count, first = seeds or 100, start or 0
        verdicts = verify_many(range(first, first + count), rows=rows, jobs=min(jobs or os.cpu_count() or 1, count))
    broken: list[int] = []
    done = lives = deaths = requests = 0
    overshoot = 0
    said = began
    for verdict in verdicts:
        done += 1
        lives += verdict.lives
        deaths += verdict.deaths
        requests += verdict.requests
        overshoot = max(overshoot, verdict.overshoot_pico)
        if verdict.broken:
            broken.append(verdict.seed)
            _tell(verdict, rows)
        now = time.monotonic()
        if now - said >= _SAY_SECONDS and done < count:
            said = now
            click.echo(f"{done:,} of {count:,} seeds, {len(broken)} broken, {_minutes((now - began) / done * (count - done))} left", err=True)
    seconds = time.monotonic() - began
    click.echo(
        f"{done:,} {'seed' if done == 1 else 'seeds'}, {len(broken)} broken: {lives:,} runs, {deaths:,} of them killed, {requests:,} requests, "
        f"largest overshoot of a cap ${overshoot / 1e12:.9g}, {seconds:.1f} s",
        err=True,
    )
    if broken:
        sys.exit(1)


def _replay(seed: int, rows: int, *, verbose: bool) -> Verdict:
    from batchllm.verify import plan_of, verify

    plan = plan_of(seed, rows=rows)
    if verbose:
        click.echo(f"spec: {dict(plan.keys)}", err=True)
        for name, settings in plan.sims.items():
            click.echo(f"provider of {name}: {dict(settings)}", err=True)
        for number, life in enumerate(plan.lives, 1):
            told = {name: value for name in life.__slots__ if name != "rows" and (value := getattr(life, name)) not in (None, False, 0, 0.0, (), {})}
            click.echo(f"plan of life {number}: {told}{', on a changed input' if life.rows is not None else ''}", err=True)
    return verify(seed, plan=plan, say=(lambda text: click.echo(text, err=True)) if verbose else None)


def _tell(verdict: Verdict, rows: int) -> None:
    click.echo(f"seed {verdict.seed}:", err=True)
    for text in verdict.broken:
        click.echo(f"  {text}", err=True)
    same = f" --rows {rows}" if rows != 200 else ""
    click.echo(f"  replay: batchllm verify --seed {verdict.seed}{same} -v", err=True)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
