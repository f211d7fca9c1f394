"""`batchllm doctor`: is everything there that a night depends on?"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from batchllm.engine.checkup import Check
    from batchllm.spec import JobSpec

_EPILOG = """\b
Examples:
  batchllm doctor
  batchllm doctor reviews.yaml
  batchllm doctor reviews.yaml --offline --json | jq '.checks[].level'

Exit codes: 0 nothing failed (warnings may be there), 1 something would stop a run, 2 the spec is wrong."""
_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(epilog=_EPILOG)
@click.argument("job", required=False, type=click.Path(path_type=Path))
@click.option("--offline", is_flag=True, help="No call to any server.")
@click.option("--simulate", is_flag=True, help="As for `run --simulate`.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(job: Path | None, offline: bool, simulate: bool, as_json: bool) -> None:
    """Check keys (with a free call), endpoints, limits, clock, disk, store, vocabularies and prices, and say how to mend what is wrong. Keys are never shown."""
    from batchllm.core import json
    from batchllm.report.text import counted

    checks: list[Check] = []

    def tell(check: Check) -> None:
        checks.append(check)
        if not as_json:
            _show(check)

    if job is None:
        _without_job(tell, offline=offline)
    else:
        _of_job(job, tell, offline=offline, simulate=simulate)
    failed = sum(check.level == "fail" for check in checks)
    warned = sum(check.level == "warn" for check in checks)
    if as_json:
        listed = [{"level": check.level, "about": check.about, "words": check.words, "mend": check.mend} for check in checks]
        click.echo(json.text({"ok": not failed, "failed": failed, "warnings": warned, "checks": listed}))
    else:
        click.echo(f"{failed} failed, {counted(warned, 'warning')}" if failed or warned else "all well", err=True)
    sys.exit(1 if failed else 0)


def _show(check: Check) -> None:
    from batchllm.report.text import clean

    level = click.style(f"{check.level:<4}", fg=_STYLES[check.level], bold=check.level != "ok")
    click.echo(f"{level}  {check.about}: {clean(check.words, 600)}", err=True)
    if check.mend is not None:
        click.echo(f"      -> {clean(check.mend, 400)}", err=True)


def _without_job(tell: Any, *, offline: bool) -> None:
    from batchllm.core.secret import Scrubber
    from batchllm.engine import checkup, reach
    from batchllm.spec.dotenv import environment

    folder = Path.cwd()
    environ = environment(folder, os.environ)
    for check in (*checkup.machine(folder), *checkup.dotenv(folder, _added(environ))):
        tell(check)
    found, there = reach.usual_keys(environ)
    for check in found:
        tell(check)
    if not offline and there:
        scrub = Scrubber([access.key for _, access in there.values() if access.key is not None])
        _call([(name, model, access) for name, (model, access) in there.items()], scrub, tell)


def _of_job(path: Path, tell: Any, *, offline: bool, simulate: bool) -> None:
    from batchllm.cli._job import environ_of, spec_to_run
    from batchllm.core.errors import SpecError
    from batchllm.engine import checkup, reach

    spec: JobSpec = spec_to_run(path, {}, simulate=simulate)
    environ = environ_of(spec)
    try:
        folder = spec.store_path(environ).parent
    except SpecError:
        folder = spec.folder
    for check in (*checkup.machine(folder), *checkup.dotenv(spec.folder, _added(environ)), *checkup.job(spec, environ)):
        tell(check)
    found, access, scrub = reach.keys(spec, environ)
    for check in found:
        tell(check)
    if offline:
        return
    real = [(name, there) for name, there in access.items() if spec.models[name].provider != "simulated"]
    _call(
        [(f"{name} ({way.variable})" if way.variable else name, spec.models[name], way) for name, there in real for way in there.each],
        scrub,
        tell,
        job=shlex.quote(str(path)),
    )


def _added(environ: Mapping[str, str]) -> list[str]:
    return sorted(name for name in environ if name not in os.environ)


def _call(targets: list[tuple[str, Any, Any]], scrub: Any, tell: Any, *, job: str = "JOB") -> None:
    import asyncio

    from batchllm.engine import reach

    async def main() -> None:
        from batchllm.transport.http import HttpTransport

        transport = HttpTransport()
        clocks = 0
        try:
            for name, model, access in targets:
                for check in await reach.endpoint(name, model, access, transport, scrub, job=job):
                    clocks += check.about == "clock"
                    if check.about != "clock" or check.level != "ok" or clocks == 1:
                        tell(check)
        finally:
            await transport.close()

    with asyncio.Runner() as runner:
        runner.run(main())
