"""What `anthropic-ratelimit-*` headers say: requests, and tokens of input and output apart.

The traps: resets are moments (RFC 3339), so they mean something only beside the reply's own `Date`; what remains of tokens is rounded to whole thousands, so the
lower end is taken; `tokens` is mostly the sum of input and output, which limits nothing by itself. Source: protocols B.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from batchllm.core.nouns import LimitHint

Dimension = Literal["requests", "tokens", "input_tokens", "output_tokens"]
_NAMES: tuple[tuple[Dimension, str], ...] = (
    ("requests", "anthropic-ratelimit-requests"),
    ("input_tokens", "anthropic-ratelimit-input-tokens"),
    ("output_tokens", "anthropic-ratelimit-output-tokens"),
    ("tokens", "anthropic-ratelimit-tokens"),
)
_ROUNDED_TO = 1000


def anthropic_hints(headers: Mapping[str, str]) -> tuple[LimitHint, ...]:
    """At most one hint per dimension; all limits are a minute's."""
    hints: dict[Dimension, LimitHint] = {}
    for dimension, name in _NAMES:
        limit = _count(headers.get(f"{name}-limit"))
        remaining = _count(headers.get(f"{name}-remaining"))
        if not limit or remaining is None:
            # A limit of 0 and one without what remains mean "not said".
            if not limit:
                continue
        elif dimension != "requests" and remaining % _ROUNDED_TO == 0 and remaining < limit:
            remaining = max(0, remaining - _ROUNDED_TO // 2)
        hints[dimension] = LimitHint(
            dimension=dimension, limit=limit, remaining=remaining, reset_seconds=_seconds(headers.get(f"{name}-reset"), headers), window="minute"
        )
    both = hints.get("tokens")
    if both is not None:
        sides = [hint.limit or 0 for name, hint in hints.items() if name in ("input_tokens", "output_tokens")]
        if both.limit in (*sides, sum(sides)):
            del hints["tokens"]
    return tuple(hints.values())


def _count(text: str | None) -> int | None:
    if not text:
        return None
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _seconds(reset: str | None, headers: Mapping[str, str]) -> float | None:
    """Seconds from the reply's `Date` to the reset; 0 once it is past. None without a date: our clock may differ from the server's."""
    date = headers.get("date")
    if not reset or not date:
        return None
    from email.utils import parsedate_to_datetime

    try:
        at, now = datetime.fromisoformat(reset.strip()), parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    # A moment without a zone is taken for UTC.
    at, now = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC) for moment in (at, now))
    return max(0.0, (at - now).total_seconds())
