"""Deadlines: the next local time of day, ISO times, durations; and the two days a year on which local time jumps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from batchllm.core.errors import SpecError
from batchllm.spec import deadline_utc

NOW = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("07:00", "2026-11-21T07:00Z"),
        ("7:00", "2026-11-21T07:00Z"),
        ("06:30", "2026-11-22T06:30Z"),
        ("06:30:01", "2026-11-21T06:30:01Z"),
        ("00:00", "2026-11-22T00:00Z"),
        ("8h", "2026-11-21T14:30Z"),
        ("1h30m", "2026-11-21T08:00Z"),
        ("1.5 h", "2026-11-21T08:00Z"),
        ("90min", "2026-11-21T08:00Z"),
        ("2d", "2026-11-23T06:30Z"),
        ("45s", "2026-11-21T06:30:45Z"),
        ("2026-12-01T07:00", "2026-12-01T07:00Z"),
        ("2026-12-01 07:00:00+02:00", "2026-12-01T05:00Z"),
        ("2020-01-01T00:00:00Z", "2020-01-01T00:00Z"),
    ],
)
def test_forms(text: str, moment: str) -> None:
    assert deadline_utc(text, now_utc=NOW.timestamp(), tz=UTC) == at(moment)


def test_the_zone_of_local_times() -> None:
    zone = timezone(timedelta(hours=9))
    assert deadline_utc("07:00", now_utc=NOW.timestamp(), tz=zone) == at("2026-11-22T07:00+09:00")
    assert deadline_utc("2026-12-01T07:00", now_utc=NOW.timestamp(), tz=zone) == at("2026-12-01T07:00+09:00")


@pytest.mark.parametrize("text", ["", "24:00", "07:61", "soon", "8", "0h", "-8h", "8 hours", "2026-12-01", "8h 07:00"])
def test_refused(text: str) -> None:
    with pytest.raises(SpecError, match="deadline: expected a local time"):
        deadline_utc(text, now_utc=NOW.timestamp(), tz=UTC)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # A rule and not a zone's name, so that no time zone data is needed. Spring: 29 March 2026, autumn: 25 October 2026.
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("now", "text", "moment"),
    [
        ("2026-03-28T23:00+01:00", "07:00", "2026-03-29T07:00+02:00"),
        ("2026-10-24T23:00+02:00", "07:00", "2026-10-25T07:00+01:00"),
        ("2026-03-29T01:00+01:00", "02:30", "2026-03-29T03:30+02:00"),
        ("2026-10-25T02:00+02:00", "02:30", "2026-10-25T02:30+02:00"),
        ("2026-10-25T02:45+02:00", "02:30", "2026-10-25T02:30+01:00"),
        ("2026-10-25T02:45+01:00", "02:30", "2026-10-26T02:30+01:00"),
    ],
)
@pytest.mark.usefixtures("berlin")
def test_days_on_which_local_time_jumps(now: str, text: str, moment: str) -> None:
    assert deadline_utc(text, now_utc=at(now)) == at(moment)
