"""`batchllm retry`: puts finished rows back to pending, for the run that is going on, or the next one, to ask again."""

from __future__ import annotations

import difflib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchllm.cli._job import Job, find, job_argument
from batchllm.core.errors import Problem, SpecError

if TYPE_CHECKING:
    from batchllm.cli._steer import Running

_ROWS_AT_ONCE = 2000
_EPILOG = """\b
Examples:
  batchllm retry reviews.yaml                               all failed rows
  batchllm retry reviews.yaml --code timeout,unavailable
  batchllm retry reviews.yaml --code too_long --model big   on another model
  batchllm retry reviews.yaml --where "output = ''"
Then: batchllm run reviews.yaml

--id and --where may pick ok rows, too: they are paid for again."""


@click.command(epilog=_EPILOG)
@job_argument
@click.option("--code", "codes", metavar="CODES", help="Failed rows with these error codes (a,b).")
@click.option("--id", "ids", multiple=True, metavar="ID", help="The row with this custom_id; may be repeated.")
@click.option("--where", metavar="SQL", help="Rows that meet a condition over the columns of `results`; `parsed` is JSON.")
@click.option("--model", metavar="NAME", help="Send them to this model of the spec from now on, whatever their route says.")
@click.option("--yes", is_flag=True, help="Don't ask before ok rows are put back.")
def command(
    job: str,
    store: Path | None,
    name: str | None,
    simulate: bool,
    codes: str | None,
    ids: tuple[str, ...],
    where: str | None,
    model: str | None,
    yes: bool,
) -> None:
    """Put rows back to pending: all failed ones, or those that meet every condition given. Their old outcome goes to `history`."""
    from batchllm.cli._steer import reach
    from batchllm.report.text import rows
    from batchllm.report.where import where_hint

    found = find(job, store=store, name=name, simulate=simulate)
    wanted = _codes(codes)
    _check_model(found, model)
    selected = "failed" if not ids and where is None else None
    picked = Picked(status=selected, codes=wanted, ids=ids, where=where, yes=yes)
    running = reach(found)
    if running is not None:
        with running:
            count = _ask(found, running, picked, model)
    else:
        count = _put_back(found, picked, model)
    if not count:
        hint = where_hint(where)
        click.echo("no finished row meets this; nothing was changed" + (f"\n{hint}" if hint is not None else ""), err=True)
        return
    on = f", to be sent to {model}" if model is not None else ""
    after = "The run that is going on asks them again." if running is not None else f"Next: batchllm run {found.words}"
    click.echo(f"{rows(count)} put back to pending{on}. {after}", err=True)


def _codes(text: str | None) -> list[str]:
    from batchllm.core.nouns import Code

    if text is None:
        return []
    codes = [code.strip() for code in text.split(",") if code.strip()]
    known = [str(code) for code in Code]
    for code in codes:
        if code not in known:
            close = difflib.get_close_matches(code, known, n=1)
            mend = f"did you mean {close[0]}?" if close else f"codes are {', '.join(known)}"
            raise SpecError(Problem(file="--code", message=f"there is no error code {code!r}; {mend}"))
    if not codes:
        raise SpecError(Problem(file="--code", message="expected error codes with commas between them"))
    return codes


def _check_model(found: Job, model: str | None) -> None:
    if model is None:
        return
    if found.spec is None:
        raise SpecError(f"--model {model}: the spec can't be read, so its models aren't known: {found.problem}")
    if model not in found.spec.models:
        raise SpecError(Problem(file="--model", message=f"the spec has no model {model!r}; it has {', '.join(found.spec.models)}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """Which finished rows."""

    status: str | None
    codes: list[str]
    ids: tuple[str, ...]
    where: str | None
    yes: bool
    """Don't ask about ok rows."""


def _put_back(found: Job, picked: Picked, model: str | None) -> int:
    """Puts the rows back, while no run can come between."""
    from batchllm.store.store import reopen

    store = found.change()
    try:
        keys = _keys(found, picked)
        now = time.time()
        store.transaction(lambda connection: reopen(connection, keys, reason="retry", now_utc=now, changed=False, pin=model))
    finally:
        store.close()
    return len(keys)


def _ask(found: Job, running: Running, picked: Picked, model: str | None) -> int:
    """Has the run put the rows back, a few thousand at once so that its own commits go on."""
    keys = _keys(found, picked)
    return sum(
        running.ask({"do": "retry", "rows": keys[at : at + _ROWS_AT_ONCE], "model": model})["rows"] for at in range(0, len(keys), _ROWS_AT_ONCE)
    )


def _keys(found: Job, wanted: Picked) -> list[int]:
    """Keys of the rows. Raises SpecError for a bad condition or id, and asks before rows with an answer are taken."""
    from batchllm.report.text import rows
    from batchllm.store.read import StoreReader, check_where, known_ids, picked, selection

    ids, where = wanted.ids, wanted.where
    with StoreReader(found.store) as reader:
        if where is not None:
            check_where(reader, where)
        unknown = set(ids) - set(known_ids(reader.connection, ids)) if ids else set()
        if unknown:
            raise SpecError(Problem(file="--id", message=f"no row has the id {', '.join(map(repr, sorted(unknown)[:5]))}; nothing was changed"))
        condition, values = selection(status=wanted.status, codes=wanted.codes, ids=ids, where=where)
        by_status = picked(reader, condition, values, where=where)
    keys = sorted(by_status["ok"] + by_status["failed"])
    if by_status["ok"] and not wanted.yes and sys.stdin.isatty():
        click.confirm(
            f"{rows(len(by_status['ok']))} of these {len(keys):,} have an answer, which will be paid for again. Go on?", abort=True, err=True
        )
    return keys
