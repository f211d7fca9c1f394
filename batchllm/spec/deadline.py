"""`deadline`: a local time of day (the next one after the run's start), an ISO time, or a duration from the run's start.

Trap: local time jumps twice a year, so the next 02:30 is found by asking the time zone day by day and not by adding 24 hours.
"""

from __future__ import annotations

import datetime as dt
import re

from batchllm.core.errors import Problem, SpecError

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?\Z")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:d|h|min|m|s)\s*)+\Z")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)")
_SECONDS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}
FORMS = 'expected a local time such as "07:00", an ISO time such as 2026-12-01T07:00, or a duration such as 8h'


def deadline_utc(text: str, *, now_utc: float, tz: dt.tzinfo | None = None) -> float:
    """The moment, seconds since 1970 UTC, for a run that starts at `now_utc`. `tz` is the zone of local times, default the machine's. An ISO time may lie in the past."""
    time = _TIME.match(text)
    if time is not None:
        clock = dt.time(int(time[1]), int(time[2]), int(time[3] or 0))
        return _next(clock, now_utc, tz)
    duration = _duration_seconds(text)
    if duration is not None:
        return now_utc + duration
    moment = _iso(text)
    if moment is None:
        raise SpecError(Problem(path="deadline", message=f"{FORMS}, got {text!r}"))
    if moment.tzinfo is None and tz is not None:
        moment = moment.replace(tzinfo=tz)
    return moment.timestamp()


def is_deadline(text: str) -> bool:
    """Whether the text has one of the three forms."""
    return _TIME.match(text) is not None or _duration_seconds(text) is not None or _iso(text) is not None


def _next(clock: dt.time, now_utc: float, tz: dt.tzinfo | None) -> float:
    today = dt.datetime.fromtimestamp(now_utc, tz).date()
    moments = []
    for days in range(3):
        for fold in (0, 1):
            wall = dt.datetime.combine(today + dt.timedelta(days=days), clock, tzinfo=tz).replace(fold=fold)
            moment = wall.timestamp()
            # The second fold is real only in the hour that happens twice; in the hour that never happens it points before the gap.
            real = dt.datetime.fromtimestamp(moment, tz).replace(tzinfo=None, fold=0) == wall.replace(tzinfo=None, fold=0)
            if moment > now_utc and (real or fold == 0):
                moments.append(moment)
    return min(moments)


def _duration_seconds(text: str) -> float | None:
    if _DURATION.match(text) is None:
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    return seconds or None


def _iso(text: str) -> dt.datetime | None:
    # A bare date would silently mean its first instant.
    if ":" not in text and "T" not in text:
        return None
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return None
