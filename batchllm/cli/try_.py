"""`batchllm try`: one row, to see what a job really asks and what comes back."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from batchllm.engine.try_row import Asked, Chosen, Tried
    from batchllm.spec import JobSpec

_EPILOG = """\b
Examples:
  batchllm try jobs/quickstart.yaml
  batchllm try reviews.yaml --row r17 --simulate
  batchllm try reviews.yaml --row 250 --model strong
  batchllm try reviews.yaml --set request.max_tokens=300
  batchllm try reviews.yaml --json | jq '.requests[0].body'

The answer goes to stdout, everything else to stderr. Nothing is recorded, and `budget.usd` bounds this one call.

Exit codes: 0 answered, 1 the row failed, 2 spec or input wrong, 3 the budget is too small, 4 the provider refused."""


@click.command(epilog=_EPILOG)
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--row", "row", metavar="ID|N", help="The row by its id, else by its place from 0.  [default: the first]")
@click.option("--model", metavar="NAME", help="This model of the job, whatever its routes say.")
@click.option("--input", "input_", type=click.Path(path_type=Path), help="Rows from another file or job.")
@click.option("--set", "sets", multiple=True, metavar="A.B=C", help="Change a key of the spec for this call; may be repeated.")
@click.option("--simulate", is_flag=True, help="Every model simulated: no key, no cost.")
@click.option("--stream/--no-stream", default=None, help="Show the answer as it comes.  [default: on a terminal]")
@click.option("--whole", is_flag=True, help="Show pictures and other long data in the request, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(job: Path, **flags: Any) -> None:
    """Send one row of a job: its exact request (secrets hidden), route, tokens, cost and answer. The job's store is not touched."""
    from batchllm.cli.run import told_by_flag

    with told_by_flag(flags):
        code = _try(job, flags)
    sys.exit(code)


def _try(job: Path, flags: dict[str, Any]) -> int:
    import asyncio

    from batchllm.cli._job import environ_of
    from batchllm.core import json
    from batchllm.core.clock import LoopClock
    from batchllm.core.errors import Problem, SpecError
    from batchllm.core.nouns import RowError
    from batchllm.engine.deps import Deps
    from batchllm.engine.try_row import choose, folder_for_a_try, try_row
    from batchllm.report.tried import as_dict, ended_lines

    with folder_for_a_try() as folder:
        spec = _spec(job, flags, Path(folder))
        environ = environ_of(spec)
        model = flags["model"]
        if model is not None and model not in spec.models:
            raise SpecError(Problem(file="--model", message=f"the job has no model called {model!r}; it has {', '.join(spec.models)}"))
        chosen = choose(spec, environ, flags["row"], model)
        if isinstance(chosen, RowError):
            click.echo(f"this row is not sent: {chosen.code}: {chosen.message}", err=True)
            if flags["as_json"]:
                click.echo(json.text({"error": {"code": str(chosen.code), "message": chosen.message}}))
            return 1
        screen = _Quiet() if flags["as_json"] else _Screen(spec, whole=flags["whole"])

        async def main() -> Tried:
            deps = Deps(clock=LoopClock(), environ=environ, listener=screen.note, signals=True)
            return await try_row(spec, deps, chosen, screen)

        with asyncio.Runner() as runner:
            tried = runner.run(main())
        if flags["as_json"]:
            click.echo(json.text(as_dict(tried, spec)))
        else:
            screen.answer(tried)
            _say(["", *ended_lines(tried)])
        return _exit_code(tried)


def _spec(job: Path, flags: dict[str, Any], folder: Path) -> JobSpec:
    from batchllm.cli._job import spec_to_run
    from batchllm.core.errors import SpecError
    from batchllm.engine.try_row import changes_for_a_try
    from batchllm.spec import literal, parse_set

    changes: dict[str, Any] = dict(parse_set(text) for text in flags["sets"])
    if flags["input_"] is not None:
        changes["input"] = literal(str(Path.cwd() / flags["input_"]))
    changes |= changes_for_a_try(folder)
    stream = flags["stream"]
    if stream is None and not flags["as_json"] and sys.stdout.isatty():
        try:
            return spec_to_run(job, {**changes, "stream": True}, simulate=flags["simulate"])
        except SpecError:
            # Not every endpoint streams; if that wasn't it, it is told below.
            pass
    if stream is not None:
        changes["stream"] = stream
    return spec_to_run(job, changes, simulate=flags["simulate"])


def _exit_code(tried: Tried) -> int:
    if tried.result is not None:
        return 0 if tried.result.ok else 1
    if tried.summary.exit_code == 130 and tried.trouble is not None:
        return 4
    return tried.summary.exit_code or 1


class _Quiet:
    """For `--json`: looks on and says nothing."""

    def note(self, event: object) -> None:
        """Nothing."""

    def chosen(self, chosen: Chosen) -> None:
        """Nothing."""

    def asked(self, asked: Asked) -> None:
        """Nothing."""

    def piece(self, text: str) -> None:
        """Nothing."""

    def answer(self, tried: Tried) -> None:
        """Nothing."""


class _Screen(_Quiet):
    """Shows what happens as it happens."""

    def __init__(self, spec: JobSpec, *, whole: bool) -> None:
        self._spec = spec
        self._whole = whole
        self._shown = ""

    def note(self, event: object) -> None:
        from batchllm.core.events import Note

        if isinstance(event, Note) and event.level != "info":
            _say([f"{event.level}: {event.text}"])

    def chosen(self, chosen: Chosen) -> None:
        from batchllm.report.tried import chosen_lines

        _say(chosen_lines(chosen, self._spec))

    def asked(self, asked: Asked) -> None:
        from batchllm.report.tried import asked_lines

        self._shown = ""
        _say(["", *asked_lines(asked, self._spec, whole=self._whole), ""])

    def piece(self, text: str) -> None:
        from batchllm.report.text import clean_lines

        self._shown += text
        click.echo(clean_lines(text), nl=False)

    def answer(self, tried: Tried) -> None:
        """The answer, unless it was shown while it came."""
        from batchllm.report.text import clean_lines

        if self._shown:
            click.echo()
        output = tried.result.output if tried.result is not None else None
        if output is None or output == self._shown:
            return
        from batchllm.core import json

        click.echo(clean_lines(output) if isinstance(output, str) else _vector(output) if isinstance(output, list) else json.text(output))


def _vector(output: list[Any]) -> str:
    from batchllm.core import json

    return json.text(output) if len(output) <= 8 or not sys.stdout.isatty() else f"{json.text(output[:8])[:-1]}, … {len(output)} numbers]"


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line, err=True)
