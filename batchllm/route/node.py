"""A part of an expression, and how a failure inside it is told: with its text, the column, and the mend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchllm.route.values import Mixed

Run = Callable[[Mapping[str, Any], int], Any]


class RuleError(Exception):
    """A rule that can't be judged for this row; the text says why, and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A part of an expression: how to compute it, and what to call it in a message."""

    run: Run
    text: str
    has: Run | None = None
    """Whether the name is there; for names and paths only."""
    path: tuple[str, ...] | None = None
    """For names and constant paths: `("row", "x")`."""

    @property
    def column(self) -> str | None:
        """The row's column that a path begins with."""
        path = self.path or ()
        if path[:1] == ("row",):
            return path[1] if len(path) > 1 else None
        return path[0] if path and path != ("tokens",) else None


def guarded(text: str, function: Callable[..., Any], *nodes: Node) -> Run:
    """Applies a function to the nodes' values; what can't be taken together becomes a `RuleError` that names the columns."""

    def told(error: Mixed, fields: Mapping[str, Any], tokens: int) -> RuleError:
        named = [node for node in nodes if node.column]
        texts = [node for node in named if isinstance(node.run(fields, tokens), str)]
        if not error.text_with_number or not texts:
            return RuleError(f"`{text}` {error}{f'; look at column {named[0].column!r}' if named else ''}")
        column, path = texts[0].column, texts[0].path or ()
        if len(path) > (2 if path[:1] == ("row",) else 1):
            return RuleError(f"`{text}` {error}: in column {column!r}, `{texts[0].text}` is text; compare it with a text, or use `|float`")
        return RuleError(
            f"`{text}` {error}: column {column!r} is text; give it a type (`input: {{path: ..., types: {{{column}: number}}}}`) or use `|float`"
        )

    if len(nodes) == 2:
        left, right = nodes[0].run, nodes[1].run

        def run_two(fields: Mapping[str, Any], tokens: int) -> Any:
            try:
                return function(left(fields, tokens), right(fields, tokens))
            except Mixed as error:
                raise told(error, fields, tokens) from None

        return run_two

    def run(fields: Mapping[str, Any], tokens: int) -> Any:
        try:
            return function(*(node.run(fields, tokens) for node in nodes))
        except Mixed as error:
            raise told(error, fields, tokens) from None

    return run
