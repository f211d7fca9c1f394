"""The command line: one module per command, imported when it is called, so that `batchllm --help` imports click and little else."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any

import click

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module under batchllm.cli, one line for --help)
    "init": ("init", "Write a first job for a file of rows."),
    "run": ("run", "Run a job, or resume it: always safe to repeat."),
    "plan": ("plan", "Know before you pay: rows, tokens, cost, time."),
    "try": ("try_", "Send one row: request, route, cost, answer."),
    "status": ("status", "Done, failed, pending, spend, rates, errors."),
    "export": ("export", "Write the results: jsonl, csv, parquet, finetune..."),
    "compare": ("compare", "The same rows on several models: cost, answers."),
    "diff": ("diff", "Two jobs' answers to the same rows."),
    "errors": ("errors", "Failures grouped by cause, each with its fix."),
    "retry": ("retry", "Put rows back to pending."),
    "settle": ("settle", "Settle possibly billed attempts by your word."),
    "jobs": ("jobs", "The runs on this machine."),
    "pause": ("pause", "Pause a running job, from a second terminal."),
    "continue": ("continue_", "Let a paused job go on."),
    "stop": ("stop", "Stop a running job, as Ctrl-C would."),
    "set": ("set", "Change limits, budget and the like of a running job."),
    "doctor": ("doctor", "Check keys, endpoints, clock, disk, store."),
    "models": ("models", "What a provider serves; Ollama: show, pull, create."),
    "prices": ("prices", "What models cost: the price book."),
    "tokens": ("tokens", "Count tokens; fetch vocabularies."),
    "simulate": ("simulate", "Serve a wire-compatible provider simulator."),
    "verify": ("verify", "Fault simulation of the engine: seeds, replay."),
    "schema": ("schema", "JSON Schema of the spec, for editors."),
}
NOT_YET = ("report", "dashboard", "browse", "serve", "keys")
"""Commands that a later version has; named, so that nobody looks for a typing mistake."""


class LazyGroup(click.Group):
    """Loads a command's module when it is asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        """Ctrl-C is 130 in every command, also while a question is asked, where click would say "Aborted!" and exit with 1; an end of stdin there is a missing answer."""
        try:
            return super().invoke(ctx)
        except (click.Abort, KeyboardInterrupt) as error:
            why = error if isinstance(error, KeyboardInterrupt) else error.__context__
            if isinstance(why, KeyboardInterrupt):
                words, code = "\ninterrupted", 130
            elif isinstance(why, EOFError):
                words, code = "\nno answer: stdin has ended", 2
            else:
                words, code = "nothing was done", 1
            click.echo(words, err=True)
            ctx.exit(code)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"batchllm.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            if args[0] in NOT_YET:
                raise click.UsageError(f"`batchllm {args[0]}` is not supported by this version yet.", ctx) from error
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if close:
                raise click.UsageError(f"No such command '{args[0]}'. Did you mean '{close[0]}'?", ctx) from error
            raise


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: batchllm run jobs/quickstart.yaml",
)
@click.version_option(package_name="batchllm", prog_name="batchllm")
def cli() -> None:
    """Ten thousand to ten million prompts overnight: every row answered once, under the cap, with a ledger that agrees with the bill.

    JOB is a job's spec (job.yaml) or its store (job.db), which keeps the spec.
    """


def main(args: list[str] | None = None) -> Any:
    """The console script; errors of ours end in their message and exit code, never in a traceback."""
    from batchllm.core.errors import BatchLLMError

    _open_standard_streams()
    try:
        cli.main(args=args, prog_name="batchllm", standalone_mode=True)
    except BatchLLMError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    finally:
        _let_go_of_standard_streams()


def _open_standard_streams() -> None:
    """Puts the null device where stdin, stdout or stderr is closed (`2>&-`, some services): the next file or socket would get its number, and libuv aborts on that."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _let_go_of_standard_streams() -> None:
    """Flushes; what can't be written (the reader has gone, the disk is full) is dropped, or Python would complain at its exit and change the exit code to 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
