"""Expressions cut into tokens: numbers, quoted texts, names and signs, each with its place for messages."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<name>[^\W\d]\w*)|(?P<sign>==|!=|<=|>=|//|[<>+\-*/%~|.,()\[\]]))",
    re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class SyntaxProblem(Exception):  # noqa: N818 - the router makes a SpecError of it
    """An expression that can't be read; `column` is 1-based."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.column = column


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A piece of an expression; `start` and `end` count from 0, `kind` is number, text, name or sign."""

    kind: str
    value: str
    start: int
    end: int


def tokens_of(source: str) -> list[Token]:
    """All tokens of an expression. Raises `SyntaxProblem`."""
    tokens: list[Token] = []
    place = 0
    while source[place:].strip():
        match = _TOKEN.match(source, place)
        if match is None:
            column = place + len(source[place:]) - len(source[place:].lstrip()) + 1
            char = source[column - 1]
            hint = {
                "=": "; write `==` to compare",
                "&": "; write `and`",
                "!": "; write `not`",
                "'": ": a quote is missing",
                '"': ": a quote is missing",
            }.get(char, "")
            raise SyntaxProblem(f"{char!r} can't stand here{hint}", column)
        kind = match.lastgroup or ""
        tokens.append(Token(kind=kind, value=match.group(kind), start=match.start(kind), end=match.end()))
        place = match.end()
    return tokens


def unquoted(token: Token) -> str:
    """What a quoted text says."""
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), token.value[1:-1], flags=re.DOTALL)
