"""`${VAR}` in base_url, headers, input, store and results: kept as written in the spec, expanded at use, so that no value of a variable is ever stored.

`$$` is a dollar; any other dollar stays. There is no `${VAR:-default}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from batchllm.core.errors import Problem, SpecError

_MARK = re.compile(r"\$\$|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def expand(text: str, environ: Mapping[str, str], *, key: str | None = None) -> str:
    """The text with its variables filled in. SpecError names the variable (never its value) and, when given, the spec's key."""

    def fill(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        problem = _mark_problem(match)
        if problem is not None:
            raise SpecError(Problem(path=key, message=problem))
        try:
            return environ[match[1]]
        except KeyError:
            message = f"the environment variable {match[1]} is not set; set it, or write `$$` for a plain dollar"
            raise SpecError(Problem(path=key, message=message)) from None

    return _MARK.sub(fill, text)


def problem_with(text: str) -> str | None:
    """What is wrong with the marks of a text, without an environment."""
    problems = (_mark_problem(match) for match in _MARK.finditer(text) if match[0] != "$$")
    return next((problem for problem in problems if problem is not None), None)


def has_variables(text: str) -> bool:
    """Whether expansion depends on the environment."""
    return any(match[0] != "$$" for match in _MARK.finditer(text))


def values(text: str, environ: Mapping[str, str]) -> list[str]:
    """What the variables of a text hold: to be kept out of messages."""
    return [environ[match[1]] for match in _MARK.finditer(text) if match[0] != "$$" and match[1] in environ]


def literal(text: str) -> str:
    """A text, such as a path from the command line, that expands to itself."""
    return text.replace("$", "$$")


def _mark_problem(match: re.Match[str]) -> str | None:
    if not match[2]:
        return "`${` without its `}`; write `${NAME}`, or `$$` for a plain dollar"
    if _NAME.match(match[1]) is None:
        return f"`{match[0]}`: a variable's name is made of letters, digits and `_`; write `$$` for a plain dollar"
    return None
