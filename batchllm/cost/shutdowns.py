"""Announced last days of models: dated data, to warn by. A model that is not listed may end all the same."""

from __future__ import annotations

from datetime import date

from batchllm.cost.snapshot import same_or_snapshot

AS_OF = "2026-11"
"""When the dates were collected, from the providers' published deprecation pages (protocols H)."""

_LAST_DAYS: dict[str, dict[str, date]] = {
    "openai": {
        **dict.fromkeys(("gpt-4.1-nano", "o4-mini", "gpt-3.5-turbo", "gpt-4"), date(2026, 10, 23)),
        **dict.fromkeys(("gpt-5", "gpt-5-mini", "o3"), date(2026, 12, 11)),
        **dict.fromkeys(("gpt-4.1", "gpt-4.1-mini", "gpt-4o", "gpt-4o-mini"), date(2027, 1, 14)),
        **dict.fromkeys(("gpt-5.4-nano", "gpt-5.1"), date(2027, 4, 1)),
    },
    "anthropic": {"claude-sonnet-4-5": date(2026, 11, 30)},
}


def last_day(account: str, model_id: str) -> date | None:
    """The day on which a model is (or was) shut down at its own provider; None when none is known. `account`: the book's word, such as `openai`."""
    days = _LAST_DAYS.get(account, {})
    return next((day for name, day in days.items() if same_or_snapshot(name, model_id)), None)
