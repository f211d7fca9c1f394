"""The first rule that matches a row names its models.

The trap: a rule that can't be judged must not be passed over in silence, or the row would go to the next rule's model; such a row fails alone and says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Code, RowError
from batchllm.route.expression import compile_expression
from batchllm.route.lexer import SyntaxProblem
from batchllm.route.node import RuleError, Run


class Router:
    """Rules compiled once; `choose` once per row."""

    def __init__(self, rules: Sequence[tuple[str | None, tuple[str, ...]]]) -> None:
        """`rules`: (`when` or None, the chain of model names), in order. Raises `SpecError` with every expression that can't be read."""
        self._rules: list[tuple[int, Run | None, tuple[str, ...]]] = []
        columns: set[str] = set()
        uses_tokens = False
        problems: list[Problem] = []
        for index, (when, chain) in enumerate(rules):
            if when is None:
                self._rules.append((index, None, chain))
                continue
            try:
                run, named, counted = compile_expression(when)
            except SyntaxProblem as error:
                problems.append(Problem(path=f"routes.{index}.when", message=f"{when!r}: {error} (character {error.column})"))
                continue
            columns |= named
            uses_tokens = uses_tokens or counted
            self._rules.append((index, run, chain))
        if problems:
            raise SpecError(problems)
        self.columns = frozenset(columns)
        """The columns that rules name: one that no row has is worth a warning."""
        self.uses_tokens = uses_tokens
        """Whether any rule looks at `tokens`; if not, nobody needs to count them."""

    def choose(self, fields: Mapping[str, Any], tokens: int) -> tuple[str, ...] | RowError:
        """The chain of the first rule that matches; `tokens` is the prompt's fixed estimate (`core.words`).

        `RowError` is `no_route` when no rule matches, `bad_row` when a rule compares what can't be compared.
        """
        for index, run, chain in self._rules:
            if run is None:
                return chain
            try:
                if run(fields, tokens):
                    return chain
            except RuleError as error:
                return RowError(code=Code.BAD_ROW, message=f"routes.{index}.when: {error}")
        return RowError(code=Code.NO_ROUTE, message="no rule under `routes` matches this row; add a last rule without `when`")
