"""`output.vote`: an expression over an answer, in the language of routes; answers for which it has the same value vote alike. The names are `parsed` and `output`."""

from __future__ import annotations

from typing import Any

from batchllm.core.errors import Problem, SpecError
from batchllm.route.expression import compile_expression
from batchllm.route.lexer import SyntaxProblem
from batchllm.route.node import RuleError

_NAMES = frozenset({"parsed", "output"})


class Vote:
    """A compiled expression."""

    def __init__(self, source: str) -> None:
        """Raises `SpecError` for an expression that can't be read."""
        try:
            self._run, _, _ = compile_expression(source, names=_NAMES)
        except SyntaxProblem as error:
            raise SpecError(Problem(path="output.vote", message=f"{source!r}: {error} (character {error.column})")) from None

    def of(self, *, parsed: Any, output: str | None) -> Any:
        """What an answer votes for; None: it has no such value, and doesn't vote."""
        try:
            return self._run({"parsed": parsed, "output": output}, 0)
        except RuleError:
            return None
