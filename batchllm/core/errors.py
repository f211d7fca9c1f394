"""The one error root. An exception here is for what stops a run; a row's failure is data (`nouns.RowError`).

Every message says what is wrong, where, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class BatchLLMError(Exception):
    """Root of all errors that batchllm raises on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


SHOWN_PROBLEMS = 20
"""Problems that a message lists; a file that is no spec at all has one on every line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a spec, an input or an argument, and how to mend it."""

    message: str
    """What is wrong, and the mend."""
    file: str | None = None
    """The file as the user named it, or e.g. `--set`."""
    line: int | None = None
    """1-based."""
    column: int | None = None
    """1-based."""
    path: str | None = None
    """Dotted key, e.g. `models.mini.provider`."""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return ": ".join(part for part in (place, self.path, self.message) if part)


class SpecError(BatchLLMError):
    """The spec, the input or the arguments are wrong; nothing was sent. Exit code 2."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem] | Problem | str) -> None:
        if isinstance(problems, str):
            problems = [Problem(message=problems)]
        elif isinstance(problems, Problem):
            problems = [problems]
        self.problems: tuple[Problem, ...] = tuple(problems)
        lines = [str(problem) for problem in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            lines.append(f"... and {len(self.problems) - SHOWN_PROBLEMS} more problems")
        super().__init__("\n".join(lines))


class StoreError(BatchLLMError):
    """The store can't be used: locked, disk full, not a store, newer than this program, another job's. Exit code 5."""

    exit_code = 5


class StoreBusy(StoreError):  # noqa: N818 - a state, not a fault
    """Another run holds the store."""


class Stopped(BatchLLMError):  # noqa: N818 - contract 4 names it
    """`map` ended before every row had a result; `results` has None for the unanswered rows."""

    def __init__(self, message: str, *, results: list[Any], summary: Any = None) -> None:
        super().__init__(message)
        self.results = results
        self.summary = summary
