"""Finds `batchllm ...` commands in shell text and `--help` examples, and parses them without running them."""

from __future__ import annotations

import re
import shlex

import click

from batchllm.cli import cli


def commands_in(text: str) -> list[list[str]]:
    """Command lines in a text, split into words, each beginning with `batchllm`: up to a pipe, `&&`, a redirection, a comment, or a wide gap before a remark."""
    found = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if "batchllm " not in line:
            continue
        lexer = shlex.shlex(re.split(r"\s{3,}", line.strip())[0], posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;<>()"):
                if len(words) > 1:
                    found.append(words)
                words = []
            elif words or word.rpartition("/")[2] == "batchllm":
                words.append(word)
    return found


def parse(words: list[str]) -> None:
    """Raises click.UsageError unless the command exists and takes these arguments; runs nothing."""
    with cli.make_context("batchllm", words[1:]) as context:
        name, command, rest = cli.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        inner = command.make_context(name, rest, parent=context)
        while isinstance(command, click.Group):
            name, command, rest = command.resolve_command(inner, [*inner._protected_args, *inner.args])
            assert command is not None
            inner = command.make_context(name, rest, parent=inner)
