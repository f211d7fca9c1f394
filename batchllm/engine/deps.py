"""What the engine is given from outside, so that a test, a notebook and a terminal can run the same engine."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from batchllm.core.clock import Clock
from batchllm.core.events import Listener, RowsCompared
from batchllm.core.nouns import Result
from batchllm.core.secret import Scrubber
from batchllm.core.wire import Transport
from batchllm.engine.control import Control
from batchllm.spec import ModelSpec
from batchllm.store.writer import MakeWriter

if TYPE_CHECKING:
    from batchllm.engine.lane import Lane

AskChange = Callable[[RowsCompared], str]
"""Asks a person what to do about changed answers: `rerun`, `keep` or `refuse`."""
OnResult = Callable[[list[Result]], None]


def _deaf(event: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """The outside world of one run."""

    clock: Clock
    environ: Mapping[str, str]
    rng: random.Random = field(default_factory=random.Random)
    inline: bool = False
    """Work in the loop's thread instead of threads of its own (virtual time)."""
    writer: MakeWriter | None = None
    """What makes the store's writer; None: a thread's, or an inline one."""
    listener: Listener = _deaf
    transports: Callable[[str, ModelSpec], Transport | None] = lambda _name, _spec: None
    """A transport for a model, by name; None: the usual one."""
    around: Callable[[Lane, Scrubber], Transport] | None = None
    """What a model's requests go through instead of its transport, to watch them; it hands them on."""
    ask_change: AskChange | None = None
    """None: nobody is there to be asked."""
    on_result: OnResult | None = None
    """Called with results after their commit."""
    on_known: Callable[[list[Result]], None] | None = None
    """Called with results that the store has already, as their rows are met in a stream (files have theirs before the run: `Control.stands`)."""
    on_met: Callable[[list[int]], None] | None = None
    """Called with the positions of rows as they are met in a stream, in the order given, before any of them can have a result."""
    on_start: Callable[[Control], Awaitable[None]] | None = None
    """Awaited before the first row is read: whoever holds the control may stop the run, or hold it back."""
    state: Path | None = None
    """The user's state folder, where the runs of this machine find each other; None: this run is alone, and unlisted."""
    signals: bool = False
    """Whether SIGINT and SIGTERM are this run's (main thread only)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Flags that hold for one run; what a spec key can say is in the spec."""

    limit: int | None = None
    """Only the first N rows."""
    sample_fraction: float | None = None
    sample_count: int | None = None
    retry_failed: frozenset[str] | None = None
    """Codes of failed rows to try again; empty: all of them; None: leave them alone."""
    if_running: str = "fail"
    """fail | wait (skip is the command line's)."""
    stream: BinaryIO | None = None
    """Rows as JSONL from a pipe, instead of the spec's input; its `where` and `join` hold."""
    records: Iterable[Any] | None = None
    """Rows as dicts, instead of the spec's input."""

    def as_json(self) -> dict[str, Any]:
        """What is written into the store's `runs`."""
        options: dict[str, Any] = {}
        for name in ("limit", "sample_fraction", "sample_count"):
            if getattr(self, name) is not None:
                options[name] = getattr(self, name)
        if self.retry_failed is not None:
            options["retry_failed"] = sorted(self.retry_failed)
        return options
