"""`--since RUN|TIME|SPAN`: what a user may write for "finished since then", as a condition over `results`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from batchllm.core.errors import Problem, SpecError
from batchllm.store.read import Since

_SPAN = re.compile(r"(\d{1,6})\s*(m|h|d)\Z")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def since(text: str, *, now_utc: float) -> Since:
    """A run's number (`3`: that run and later ones), a time (ISO; UTC unless it names its zone) or a span up to now (`90m`, `24h`, `7d`). SpecError for anything else."""
    text = text.strip()
    if re.fullmatch(r"\d{1,9}", text):
        return Since(column="run", value=int(text))
    if span := _SPAN.match(text):
        at = datetime.fromtimestamp(now_utc, UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})
    else:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            words = f"expected a run's number, a time such as 2026-11-20 or 2026-11-20T22:30:00+01:00, or a span such as 24h, got {text!r}"
            raise SpecError(Problem(file="--since", message=words)) from None
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    # As the store writes its times, so that text compares as time does.
    return Since(column="finished_at", value=f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z")
