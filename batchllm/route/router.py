"""The first rule that matches a row names its models.

The trap: a rule that can't be judged must not be passed over in silence, or the row would go to the next rule's model; such a row fails alone and says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Code, RowError
from batchllm.route.expression import compile_expression
from batchllm.route.lexer import SyntaxProblem
from batchllm.route.node import RuleError, Run
from batchllm.route.split import pick


class Choice(NamedTuple):
    """The models of a row."""

    chain: tuple[str, ...]
    """To ask, in this order."""
    allowed: tuple[str, ...]
    """Those whose answers stand: with weights all of the rule, since other weights must not ask answered rows again."""
    rule: int
    """The rule's number, from 0."""


class Router:
    """Rules compiled once; `choose` once per row."""

    def __init__(self, rules: Sequence[tuple[str | None, tuple[str, ...] | Mapping[str, float]]]) -> None:
        """`rules`: (`when` or None, the chain of model names or their weights), in order. Raises `SpecError` with every expression that can't be read."""
        self._rules: list[tuple[int, Run | None, Choice, Mapping[str, float] | None]] = []
        columns: set[str] = set()
        uses_tokens = False
        problems: list[Problem] = []
        for index, (when, use) in enumerate(rules):
            names = tuple(use)
            weights = use if isinstance(use, Mapping) else None
            run = None
            if when is not None:
                try:
                    run, named, counted = compile_expression(when)
                except SyntaxProblem as error:
                    problems.append(Problem(path=f"routes.{index}.when", message=f"{when!r}: {error} (character {error.column})"))
                    continue
                columns |= named
                uses_tokens = uses_tokens or counted
            self._rules.append((index, run, Choice(chain=names, allowed=names, rule=index), weights))
        if problems:
            raise SpecError(problems)
        self.columns = frozenset(columns)
        """The columns that rules name: one that no row has is worth a warning."""
        self.uses_tokens = uses_tokens
        """Whether any rule looks at `tokens`; if not, nobody needs to count them."""

    def choose(self, fields: Mapping[str, Any], tokens: int, key: str) -> Choice | RowError:
        """The models of the first rule that matches. `tokens` is the prompt's fixed estimate (`core.words`), `key` what weights split by: the row's id.

        `RowError` is `no_route` when no rule matches, `bad_row` when a rule compares what can't be compared.
        """
        for index, run, choice, weights in self._rules:
            try:
                if run is not None and not run(fields, tokens):
                    continue
            except RuleError as error:
                return RowError(code=Code.BAD_ROW, message=f"routes.{index}.when: {error}")
            return choice if weights is None else choice._replace(chain=(pick(weights, key, index),))
        return RowError(code=Code.NO_ROUTE, message="no rule under `routes` matches this row; add a last rule without `when`")
