"""`batchllm settle`: the user's word on requests that the provider may have billed - cut by a crash, a timeout, or answered without usage."""

from __future__ import annotations

import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchllm.cli._job import Job, find, job_argument
from batchllm.core.errors import Problem, SpecError

if TYPE_CHECKING:
    from batchllm.store.settle import Open, Settled

_EPILOG = """\b
Examples:
  batchllm settle reviews.yaml                   what is open
  batchllm settle reviews.yaml --billed 0.0123   the bill has this sum
  batchllm settle reviews.yaml --billed none     the bill has none of them
  batchllm settle reviews.yaml --billed worst    the worst case is spent"""


@click.command(epilog=_EPILOG)
@job_argument
@click.option("--billed", metavar="USD|none|worst", help="What the provider billed for them: a sum, nothing, or each one's worst case.")
@click.option("--simulated", is_flag=True, help="Settle simulated dollars, in a job that has both kinds.")
def command(job: str, store: Path | None, name: str | None, simulate: bool, billed: str | None, simulated: bool) -> None:
    """Settle possibly billed attempts by your word, which is recorded; their reservation then no longer counts against the budget.

    Without --billed nothing is changed: it shows what is open.
    """
    found = find(job, store=store, name=name, simulate=simulate)
    sum_pico = _sum(billed)
    if billed is None:
        _show(found)
        return
    settled, kind = _settle(found, billed, sum_pico, simulated=simulated)
    for line in _settled_lines(settled, kind, sum_pico):
        click.echo(line, err=True)


def _sum(billed: str | None) -> int | None:
    """Pico-dollars of the given sum; None for `worst` (and when nothing was said)."""
    from batchllm.core.money import PICO_PER_USD
    from batchllm.store.settle import MOST_BILLED_PICO

    if billed is None or billed == "worst":
        return None
    if billed == "none":
        return 0
    try:
        pico = Decimal(billed.removeprefix("$")) * PICO_PER_USD
    except InvalidOperation:
        pico = Decimal("NaN")
    if not pico.is_finite() or pico < 0 or pico > MOST_BILLED_PICO:
        raise SpecError(Problem(file="--billed", message=f"expected dollars such as 0.25 (at most a million), or `none`, or `worst`, got {billed!r}"))
    if pico != int(pico):
        raise SpecError(Problem(file="--billed", message=f"{billed} has more than 12 decimals; money is kept to the pico-dollar"))
    return int(pico)


def _show(found: Job) -> None:
    from batchllm.store import is_locked
    from batchllm.store.read import snapshot
    from batchllm.store.settle import open_attempts

    running = is_locked(found.store) is not None
    with found.read() as reader, snapshot(reader) as connection:
        still = open_attempts(connection, in_flight=not running)
    if not still:
        click.echo("nothing is open: every request's bill is known", err=True)
        return
    for simulated, one in sorted(still.items()):
        click.echo(_open_words(one, simulated=simulated), err=True)
    both = len(still) > 1
    click.echo("Look at the provider's usage page for that time, then say what it billed for them:", err=True)
    click.echo(f"  -> batchllm settle {found.words} --billed USD    (or none, or worst)", err=True)
    if both:
        click.echo(f"  -> batchllm settle {found.words} --simulated --billed USD    (the simulated ones)", err=True)
    if running:
        click.echo("A run is going on; what it has in flight is not counted here.", err=True)


def _open_words(one: Open, *, simulated: bool) -> str:
    from batchllm.core.money import text_usd
    from batchllm.report.text import counted

    kind = " simulated" if simulated else ""
    unknown = f", {one.unknown:,} of them without a known price" if one.unknown else ""
    return f"{one.attempts:,}{kind} {counted(one.attempts, 'request').split()[-1]} may have been billed, at most {text_usd(one.worst_pico)}{unknown}"


def _settle(found: Job, billed: str, sum_pico: int | None, *, simulated: bool) -> tuple[Settled, bool]:
    from batchllm.cli._steer import reach
    from batchllm.store.settle import Settled, open_attempts, settle

    running = reach(found)
    if running is not None:
        with running:
            answer = running.ask({"do": "settle", "word": billed, "sum_pico": sum_pico, "simulated": simulated})
        return Settled(**answer["settled"]), bool(answer["simulated"])
    store = found.change()
    try:
        still = open_attempts(store.connection, in_flight=True)
        # Where there is one kind only, nobody needs to name it.
        kind = simulated or set(still) == {True}
        return store.transaction(lambda connection: settle(connection, simulated=kind, billed_pico=sum_pico, word=billed, now_utc=time.time())), kind
    finally:
        store.close()


def _settled_lines(settled: Settled, simulated: bool, sum_pico: int | None) -> list[str]:
    from batchllm.core.money import text_usd
    from batchllm.report.text import counted

    lines: list[str] = []
    if settled.attempts:
        kind = " simulated" if simulated else ""
        lines.append(
            f"settled {counted(settled.attempts, 'request')}: {text_usd(settled.billed_pico)}{kind} booked, {text_usd(settled.worst_pico)} was held for them"
        )
        if sum_pico is not None and sum_pico > settled.worst_pico and not settled.unknown:
            lines.append(
                f"that is {text_usd(sum_pico - settled.worst_pico)} above the worst case: booked all the same; check the price in the spec, or the sum"
            )
    elif not settled.left:
        lines.append("nothing is open" + (f", so {text_usd(sum_pico)} was not booked" if sum_pico else "") + "; nothing was changed")
    if settled.left:
        lines.append(f"{counted(settled.left, 'request')} without a known price: the worst case isn't known either; say a sum (--billed USD) or none")
    return lines
