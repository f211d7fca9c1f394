"""How long a server asks us to wait: the first useful hint out of headers and texts, in seconds.

The trap: a hint of 0, a negative number, NaN, infinity, a Unix time or garbage is no hint, and the next source is asked. Sources, best first:
`retry-after-ms`, `retry-after` (seconds or an HTTP date, counted from the reply's own `Date`), a gateway's copy of its upstream's header, RetryInfo, the
text ("try again in 6m0s"), and last `x-ratelimit-reset-*` of a dimension that has nothing left: that one says when the bucket is full, which is later than needed.
Source: protocols A.1, A.8, C.5, E and F rules 1 and 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite

LONGEST_SECONDS = 31 * 86400.0
"""A longer hint is a Unix time or a mistake. (The longest real one is a limit that returns with the next month.)"""

_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "millisecond": 1e-3,
    "sec": 1.0,
    "second": 1.0,
    "min": 60.0,
    "minute": 60.0,
    "hr": 3600.0,
    "hour": 3600.0,
    "day": 86400.0,
}
_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d)")
_TEXT = re.compile(r"(?:try again|retry|available again|wait)\s+(?:in|after|for)?\s*(?:about\s+)?(?=(\d[\w.\sµμ]{0,60}))", re.IGNORECASE)
_TEXT_PART = re.compile(
    r"\s*(\d+(?:\.\d+)?)\s*(milliseconds?|seconds?|minutes?|hours?|days?|secs?|mins?|hrs?|ns|us|µs|μs|ms|s|m|h|d)(?![a-z])", re.IGNORECASE
)
_RESETS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("x-ratelimit-remaining-project-requests", "x-ratelimit-reset-project-requests"),
    ("x-ratelimit-remaining-project-tokens", "x-ratelimit-reset-project-tokens"),
)


def useful(seconds: float | None) -> float | None:
    """The hint if a wait of that length means something, else None."""
    if seconds is None or not isfinite(seconds) or not 0 < seconds <= LONGEST_SECONDS:
        return None
    return seconds


def number(text: str | None) -> float | None:
    """A plain decimal number; None for anything else (also for Python's `1_000`)."""
    if not text or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def go_seconds(text: str | None) -> float | None:
    """Seconds of a Go duration (`1h2m3.5s`, `20ms`) or, as Azure sends it under the same header names, of a plain number. None for garbage; 0 is 0."""
    if not text:
        return None
    text = text.strip()
    head = text[:-2] if text.endswith("ms") else text.removesuffix("s")
    plain = number(head)
    if plain is not None:
        seconds = plain / 1000 if text.endswith("ms") else plain
        return seconds if isfinite(seconds) and seconds >= 0 else None
    total, at = 0.0, 0
    while at < len(text):
        part = _GO_PART.match(text, at)
        if part is None:
            return None
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    return total if total < float("inf") else None


def text_seconds(text: str) -> float | None:
    """The wait that an error text names: "Please try again in 6m0s", "Please retry after 6 seconds"."""
    for found in _TEXT.finditer(text):
        total, at, words = 0.0, 0, found[1]
        while part := _TEXT_PART.match(words, at):
            unit = part[2].lower()
            total += float(part[1]) * (_UNITS[unit] if unit in _UNITS else _UNITS[unit.rstrip("s")])
            at = part.end()
        if total > 0:
            return useful(total)
    return None


def _header_seconds(value: str | None, date: str | None) -> float | None:
    """`retry-after`: seconds (also fractions), or an HTTP date counted from the reply's own `Date`, as our clock may differ from the server's."""
    if not value:
        return None
    seconds = number(value)
    if seconds is not None or not date:
        return useful(seconds)
    from email.utils import parsedate_to_datetime

    try:
        return useful((parsedate_to_datetime(value) - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def header_wait(headers: Mapping[str, str]) -> float | None:
    """The wait that `retry-after-ms` or `retry-after` (or a gateway's copy of its upstream's) asks for."""
    for prefix in ("", "llm_provider-"):
        milliseconds = number(headers.get(f"{prefix}retry-after-ms"))
        wait = useful(None if milliseconds is None else milliseconds / 1000) or _header_seconds(
            headers.get(f"{prefix}retry-after"), headers.get("date")
        )
        if wait is not None:
            return wait
    return None


def reset_wait(headers: Mapping[str, str]) -> float | None:
    """The longest `x-ratelimit-reset-*` of the dimensions that have nothing left; None when all have something left."""
    waits = [useful(go_seconds(headers.get(reset))) for remaining, reset in _RESETS if (headers.get(remaining) or "").strip() == "0"]
    return max((wait for wait in waits if wait is not None), default=None)


def wait_hint(headers: Mapping[str, str], text: str, retry_delay: str | None, *, resets: bool) -> float | None:
    """The server's wait in seconds, or None.

    `retry_delay` is RetryInfo's (`"26s"`); `resets` allows the reset headers, which only mean a wait where a rate limit refused.
    """
    wait = header_wait(headers) or useful(go_seconds(retry_delay)) or text_seconds(text)
    if wait is None and resets:
        wait = reset_wait(headers)
    return wait
