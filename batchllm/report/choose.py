"""Which display a run gets: the live one on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from typing import Protocol, Self

from batchllm.core.events import Event
from batchllm.engine.summary import Summary
from batchllm.report.plain import PlainLog


class Display(Protocol):
    """What `run` needs of a display: a context manager that is also the engine's listener."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def __call__(self, event: Event) -> None: ...

    def failed(self, error: Exception) -> None:
        """Says why the run ended by an exception."""

    def finished(self, summary: Summary, *, job: str, simulated: bool) -> None:
        """Says how the run ended; `job` is how the user names the job on the command line."""


def display(name: str, *, quiet: bool = False, live: bool = True) -> Display:
    """`quiet`: errors only. `live=False`: plain lines also on a terminal."""
    if not quiet and live and _is_terminal():
        from batchllm.report.live import LiveDisplay

        return LiveDisplay(name)
    return PlainLog(name, quiet=quiet)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb"}
