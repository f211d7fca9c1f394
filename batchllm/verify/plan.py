"""A plan: the job, the provider's moods, and the lives of the processes that work on it - everything that will happen under one seed, as plain values.

`draw` makes it of the seed, and nothing else draws what happens, so a seed replays exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Line = dict[str, Any] | str
"""A record, or a line as it stands."""
End = Literal["finish", "kill", "kill_at", "cancel", "interrupt"]
PRICES: dict[str, dict[str, float]] = {"a": {"input": 1, "output": 2}, "b": {"input": 3, "output": 5}}
"""USD per million tokens."""
CAP_ROOM_USD = 100.0
"""More than any plan's job costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Commits that fail."""

    kind: Literal["full", "fsync"]
    """`fsync`: it was written all the same."""
    first: int
    """The number of the first commit that fails, from 1."""
    commits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process that works on the job."""

    end: End = "finish"
    at: float = 0.0
    """When it ends: events (commits, replies, readings of the clock, ...) for `kill`, seconds for the others."""
    wait_seconds: float = 0.0
    """Before it starts."""
    disk: Trouble | None = None
    slow_share: float = 0.0
    """Share of commits that take `slow_seconds`."""
    slow_seconds: float = 0.0
    race: float = 0.0
    """Share of queued things that are committed at once, not with what follows them in the same step."""
    jumps: tuple[tuple[float, float], ...] = ()
    """(seconds after its start, seconds by which wall time jumps)."""
    locked: bool = False
    """The provider refuses the key."""
    retry_failed: bool = False
    limit: int | None = None
    settle: Literal["worst", "truth"] | None = None
    """Before it starts, possibly billed attempts are settled by this word."""
    rows: tuple[Line, ...] | None = None
    """The input from now on; None: as before."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the spec, for this life only."""

    @property
    def calm(self) -> bool:
        """Whether requests leave when they were let through the door."""
        return self.slow_share * self.slow_seconds == 0 and self.disk is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that happens under one seed."""

    seed: int
    rows: tuple[Line, ...]
    keys: Mapping[str, Any]
    """The spec, without its input."""
    sims: Mapping[str, Mapping[str, Any]]
    """Settings of each model's simulator."""
    honest: bool
    """Whether the declared limits are the provider's own."""
    silent: bool
    """Whether replies say nothing of what is left of the limits, as those of many gateways do."""
    start_seconds: float
    """Wall time at the beginning, in seconds after midnight UTC."""
    lives: tuple[Life, ...]

    @property
    def final_rows(self) -> tuple[Line, ...]:
        """The input at the end."""
        return next((life.rows for life in reversed(self.lives) if life.rows is not None), self.rows)

    @property
    def is_formed(self) -> bool:
        """Whether answers must have a form."""
        output = self.keys.get("output", {})
        return "schema" in output or "choices" in output

    @property
    def jumps(self) -> bool:
        """Whether wall time jumps at some time."""
        return any(life.jumps for life in self.lives)
