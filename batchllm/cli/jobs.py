"""`batchllm jobs`: who runs on this machine, from the runs' own words."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

_EPILOG = """\b
Examples:
  batchllm jobs
  batchllm jobs --json | jq -r '.jobs[].store'"""
_TRIES = 50
_TRY_SECONDS = 0.02
_HEADS = ("JOB", "PID", "STATE", "DONE", "PER MINUTE", "SPENT", "SINCE", "ACCOUNT", "STORE")
_RIGHT = frozenset({"PID", "DONE", "PER MINUTE", "SPENT"})


@click.command(epilog=_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(as_json: bool) -> None:
    """The runs of this user on this machine: job, process, state, rows done, rate, spend, account. Runs with the same account share its limits.

    They find each other in the user's state folder: $BATCHLLM_STATE, else $XDG_STATE_HOME/batchllm, else ~/.local/state/batchllm.
    """
    from batchllm.core.errors import StoreError
    from batchllm.share import state_folder

    folder = state_folder(os.environ)
    if folder is None:
        raise StoreError("there is no home folder to look into; name one with BATCHLLM_STATE")
    jobs = [_shown(entry) for entry in _running(folder)]
    if as_json:
        from batchllm.core import json

        click.echo(json.text({"jobs": jobs}))
        return
    if not jobs:
        click.echo("no job is running", err=True)
        return
    for line in _lines([_HEADS, *(_cells(job) for job in jobs)]):
        click.echo(line, err=True)


def _running(folder: Path) -> list[dict[str, Any]]:
    from batchllm.core.errors import StoreError
    from batchllm.share import running
    from batchllm.share.seat import Busy

    for _ in range(_TRIES):
        try:
            return running(folder)
        except Busy:
            time.sleep(_TRY_SECONDS)
        except OSError as error:
            raise StoreError(f"{folder}: can't read here ({error.strerror}); BATCHLLM_STATE names another folder") from error
    raise StoreError(f"{folder}: another process doesn't let go of the lock on it; is it stopped?")


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    """What is shown of a run: not what it has to say to other runs."""
    rows = entry.get("rows") or {}
    return {
        "job": entry.get("job"),
        "store": entry.get("store"),
        "pid": entry.get("pid"),
        "state": entry.get("state"),
        "since": datetime.fromtimestamp(entry["since"]).astimezone().isoformat(timespec="seconds"),
        "rows": {"total": rows.get("total"), "ok": rows.get("ok"), "failed": rows.get("failed")},
        "requests_per_minute": entry.get("requests_per_minute"),
        "spent_usd": entry.get("spent_usd"),
        "simulated": entry.get("simulated"),
        "limited_by": entry.get("limited_by"),
        "accounts": [
            {"provider": account.get("provider"), "host": account.get("host"), "account": str(account.get("digest"))[:8]}
            for account in entry.get("accounts") or ()
        ],
    }


def _cells(job: dict[str, Any]) -> tuple[str, ...]:
    from batchllm.core.money import pico_from_usd, text_usd

    rows = job["rows"]
    done = (rows["ok"] or 0) + (rows["failed"] or 0)
    total = "?" if rows["total"] is None else f"{rows['total']:,}"
    spent = text_usd(None if job["spent_usd"] is None else pico_from_usd(job["spent_usd"]))
    began = datetime.fromisoformat(job["since"])
    return (
        str(job["job"]),
        str(job["pid"]),
        str(job["state"]),
        f"{done:,}/{total}",
        f"{job['requests_per_minute'] or 0:,.0f}",
        f"{spent} sim" if job["simulated"] else spent,
        f"{began:%H:%M:%S}" if began.date() == datetime.now(began.tzinfo).date() else f"{began:%Y-%m-%d %H:%M}",
        ", ".join(f"{one['provider']} {one['host']} {one['account']}" for one in job["accounts"]) or "simulated",
        str(job["store"]),
    )


def _lines(table: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADS))]
    return [
        "  ".join(cell.rjust(width) if head in _RIGHT else cell.ljust(width) for head, cell, width in zip(_HEADS, row, widths, strict=True)).rstrip()
        for row in table
    ]
