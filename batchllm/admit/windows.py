"""Days and months: when the present one began and when the next one begins, as seconds since 1970 UTC.

Budgets count UTC days and months (contract 5). A provider's own day may begin elsewhere: Gemini's at midnight in California (protocols G).
"""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Literal

DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A span of time in which a cap holds."""

    kind: Literal["day", "month"]

    def start(self, utc: float) -> float:
        """When the window that holds this moment began."""
        if self.kind == "day":
            return utc // DAY_SECONDS * DAY_SECONDS
        return datetime.fromtimestamp(utc, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()

    def end(self, utc: float) -> float:
        """When the next one begins."""
        if self.kind == "day":
            return self.start(utc) + DAY_SECONDS
        # Any moment of the next month is within 31 days of the last one's end.
        return self.start(self.start(utc) + 31 * DAY_SECONDS + DAY_SECONDS)


DAY = Window(kind="day")
MONTH = Window(kind="month")


def _california() -> tzinfo:
    try:
        return zoneinfo.ZoneInfo("America/Los_Angeles")
    except zoneinfo.ZoneInfoNotFoundError:
        # Without a time zone database: winter time, which is never too early.
        return timezone(timedelta(hours=-8))


def next_californian_midnight(utc: float) -> float:
    """The first midnight in California after this moment."""
    local = datetime.fromtimestamp(utc, _california())
    midnight = (local + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return midnight.timestamp()


def last_californian_midnight(utc: float) -> float:
    """The midnight in California by which the present day there began."""
    return datetime.fromtimestamp(utc, _california()).replace(hour=0, minute=0, second=0, microsecond=0, fold=0).timestamp()


def clock_words(utc: float, now_utc: float) -> str:
    """When a window opens, for people: `00:00 UTC`, with its date where that isn't the next midnight."""
    moment = datetime.fromtimestamp(utc, UTC)
    soon = utc - now_utc <= DAY_SECONDS
    return f"{moment:%H:%M} UTC" if soon else f"{moment:%Y-%m-%d %H:%M} UTC"
