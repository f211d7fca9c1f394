"""Every command answers `--help` with an example, and the examples parse."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner
from commands import commands_in, parse

from batchllm.cli import COMMANDS, NOT_YET, cli
from batchllm.engine.steer_keys import KEYS


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_has_examples_that_parse(name: str | None) -> None:
    done = CliRunner().invoke(cli, [*([name] if name else []), "--help"], prog_name="batchllm", max_content_width=400)
    assert done.exit_code == 0, done.output
    assert "Example" in done.output
    command = cli.get_command(click.Context(cli), name) if name else cli
    assert command is not None
    examples = commands_in(command.epilog or "")
    assert any(words[1] == (name or words[1]) for words in examples), f"no example of batchllm {name} in its --help"
    for words in examples:
        parse(words)


def commands_below(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found += commands_below(below, f"{path} {name}")
    return found


@pytest.mark.parametrize(("path", "command"), commands_below(cli, "batchllm"), ids=lambda value: value if isinstance(value, str) else "")
def test_help_fits_a_terminal_and_tells_every_flag(path: str, command: click.Command) -> None:
    told = command.get_help(click.Context(command, info_name=path, terminal_width=80))
    assert [line for line in told.splitlines() if len(line) > 80] == []
    assert [option.opts for option in command.params if isinstance(option, click.Option) and not option.help] == []


def test_the_help_of_set_names_every_key() -> None:
    told = CliRunner().invoke(cli, ["set", "--help"], prog_name="batchllm", max_content_width=400).output.partition("Keys:")[2]
    assert [key for key in KEYS if not re.search(rf"\b{key.split('.')[-1]}\b", told)] == []


def test_a_command_shows_its_help_by_h() -> None:
    assert CliRunner().invoke(cli, ["run", "-h"], prog_name="batchllm").output.startswith("Usage: batchllm run")


@pytest.mark.parametrize("words", [["batchllm", "run"], ["batchllm", "run", "x.yaml", "--no-such-flag"], ["batchllm", "rum", "x.yaml"]])
def test_a_wrong_command_does_not_parse(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(words)


def test_a_mistyped_command_is_named() -> None:
    done = CliRunner().invoke(cli, ["rum"], prog_name="batchllm")
    assert done.exit_code == 2
    assert "Did you mean 'run'?" in done.output


@pytest.mark.parametrize("name", NOT_YET)
def test_a_command_of_a_later_version_is_refused_by_name(name: str) -> None:
    done = CliRunner().invoke(cli, [name, "job.yaml"], prog_name="batchllm")
    assert done.exit_code == 2
    assert f"`batchllm {name}` is not supported by this version yet" in done.output


@pytest.mark.parametrize("flags", [["--seed", "1", "--seeds", "3"], ["--seed", "1", "--jobs", "2"], ["--seeds", "3", "-v"]])
def test_flags_of_verify_that_do_not_go_together_are_refused(flags: list[str]) -> None:
    assert CliRunner().invoke(cli, ["verify", *flags], prog_name="batchllm").exit_code == 2
