"""`output.check`: an expression over an answer, in the language of routes. The names are `parsed`, `output` and `row`.

The trap: a check that can't be judged (a text where a number was expected) must not pass for true; it says what is wrong with the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchllm.core.errors import Problem, SpecError
from batchllm.route.expression import compile_expression
from batchllm.route.lexer import SyntaxProblem
from batchllm.route.node import RuleError

_NAMES = frozenset({"parsed", "output", "row"})


class Check:
    """A compiled check."""

    def __init__(self, source: str) -> None:
        """Raises `SpecError` for an expression that can't be read."""
        self.source = source.strip()
        try:
            self._run, named, _ = compile_expression(source, names=_NAMES)
        except SyntaxProblem as error:
            raise SpecError(Problem(path="output.check", message=f"{source!r}: {error} (character {error.column})")) from None
        self.sees_row = "row" in named
        """Whether it looks at the row's fields; if not, nobody needs to keep them."""

    def problem(self, *, parsed: Any, output: str | None, row: Mapping[str, Any] | None) -> str | None:
        """Why the answer doesn't pass; None when it does."""
        try:
            passes = self._run({"parsed": parsed, "output": output, "row": row}, 0)
        except RuleError as error:
            return f"the check can't be judged: {error}"
        return None if passes else f"the check `{self.source}` is not true"
