"""What happened, told as values. The display, the logs and the Python API are listeners; the engine knows none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsCompared:
    """A later run's fingerprint pass, before anything is sent."""

    new: int
    changed: int
    removed: int
    unchanged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something a person should know; `level` as in logging."""

    level: Literal["info", "warning", "error"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A part of a budget is used (`budget.alerts`); a `Note` says it to people as well."""

    job: str
    budget: str
    """The key of the spec that sets it: `budget.usd_per_day`."""
    fraction: float
    used: float
    """Dollars or tokens."""
    cap: float
    unit: Literal["usd", "tokens"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the run stands, a few times a second."""

    total: int | None
    """Rows in scope; None until the input's end is known."""
    ok: int
    failed: int
    in_flight: int
    waiting: int
    """Rows read and waiting for admission or for their next try."""
    spent_pico: int
    reserved_pico: int
    cap_pico: int | None
    simulated: bool
    """Whether the sums are simulated dollars."""
    requests_per_minute: float
    tokens_per_minute: float
    limited_by: str | None
    eta_seconds: float | None
    seconds: float
    waits_until_utc: float | None = None
    """When the window opens that everybody waits for (`budget.when_used_up: wait`), seconds since 1970."""


Event = RowsCompared | Note | Progress | Alert
Listener = Callable[[Event], None]
