"""`input.where`: an expression over a row, in the language of routes, without `tokens`: rows are chosen before anybody counts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchllm.core.errors import Problem, SpecError
from batchllm.route.expression import compile_expression
from batchllm.route.lexer import SyntaxProblem
from batchllm.route.node import RuleError

_KEY = "input.where"


class Filter:
    """A compiled condition."""

    def __init__(self, source: str) -> None:
        """Raises `SpecError` for an expression that can't be read."""
        try:
            self._run, self.columns, tokens = compile_expression(source)
        except SyntaxProblem as error:
            raise SpecError(Problem(path=_KEY, message=f"{source!r}: {error} (character {error.column})")) from None
        if tokens:
            raise SpecError(Problem(path=_KEY, message=f"{source!r}: `tokens` isn't known here; use it in `routes`"))

    def passes(self, fields: Mapping[str, Any]) -> bool | str:
        """Whether a row with these fields is wanted; a text says why that can't be told."""
        try:
            return bool(self._run(fields, 0))
        except RuleError as error:
            return str(error)
