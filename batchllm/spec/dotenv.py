"""`.env` beside a spec: keys for jobs in this folder, below the real environment, which always wins.

A small reader on purpose: `NAME=value` lines, `export` in front, comments, quotes as a shell has them, nothing executed and nothing expanded. The trap: a line
that can't be read may hold half a key, so messages tell its number and never its text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from batchllm.core.errors import Problem, SpecError

NAME = ".env"
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_LARGEST_BYTES = 2**20


def parse(text: str, *, file: str = NAME) -> dict[str, str]:
    """Names and values; a later line wins. SpecError with every line that can't be read."""
    values: dict[str, str] = {}
    problems: list[Problem] = []
    at, line = 0, 1
    text = text.replace("\r\n", "\n")
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        head = text[at:end].strip()
        if not head or head.startswith("#"):
            at, line = end + 1, line + 1
            continue
        start = at + (len(text[at:end]) - len(text[at:end].lstrip()))
        match = _LINE.match(text, start, end)
        value, end_of_value = (None, end) if match is None else _value(text, match.end(), end)
        if match is None or value is None:
            problems.append(
                Problem(file=file, line=line, message="can't be read; write NAME=value, in quotes if the value has spaces around it or a #")
            )
        else:
            values[match[1]] = value
        line += text.count("\n", at, end_of_value) + 1
        at = end_of_value + 1
    if problems:
        raise SpecError(problems)
    return values


def _value(text: str, start: int, end: int) -> tuple[str | None, int]:
    """(the value, where its line ends); None for a quote without its end, or something behind it."""
    quote = text[start : start + 1]
    if quote not in {'"', "'"} or start >= end:
        # A `#` begins a comment only behind a space, as in a shell.
        return re.split(r"\s#", " " + text[start:end], maxsplit=1)[0].strip(), end
    match = (_DOUBLE if quote == '"' else _SINGLE).match(text, start)
    if match is None:
        return None, end
    line_end = text.find("\n", match.end())
    line_end = len(text) if line_end < 0 else line_end
    rest = text[match.end() : line_end].strip()
    if rest and not rest.startswith("#"):
        return None, line_end
    value = match[1]
    if quote == '"':
        value = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), value, flags=re.DOTALL)
    return value, line_end


def environment(folder: Path, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with what `.env` in this folder adds; the same object when there is none. SpecError when it can't be read."""
    path = folder / NAME
    try:
        if not path.is_file():
            # A folder of this name is some other tool's.
            return environ
        data = path.read_bytes()
    except FileNotFoundError:
        return environ
    except OSError as error:
        raise SpecError(Problem(file=str(path), message=f"can't be read: {error.strerror or error}")) from None
    if len(data) > _LARGEST_BYTES:
        raise SpecError(Problem(file=str(path), message="is larger than 1 MiB; it is no file of keys"))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(Problem(file=str(path), line=data.count(b"\n", 0, error.start) + 1, message="not UTF-8")) from None
    return {**parse(text, file=str(path)), **environ}
