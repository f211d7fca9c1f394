"""How numbers, spans of time and other people's words look on a terminal.

The trap: error messages come from providers and input files. A control character in one could move the cursor or recolour the screen, so every text that
isn't ours passes `clean`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


def clean(text: str, characters: int | None = None) -> str:
    """One line without control characters or marks that turn the direction of writing; cut to so many characters."""
    text = _CONTROL.sub(" ", text).strip()
    if characters is not None and len(text) > characters:
        text = text[: max(characters - 1, 0)].rstrip() + "…"
    return text.encode("utf-8", "replace").decode()


def clean_lines(text: str) -> str:
    """A text of several lines as it is, but for control characters (line ends and tabs stay)."""
    return "".join(_CONTROL.sub("", part) if part not in "\n\t" else part for part in re.split(r"([\n\t])", text)).encode("utf-8", "replace").decode()


def span(seconds: float | None) -> str:
    """`4.2 s`, `4:02`, `3:04:05`, `2 d 3:04:05`; `unknown` for None."""
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    if seconds < 60:
        return f"{max(seconds, 0):.1f} s"
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}:{rest:02}"
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02}:{rest:02}"
    return f"{days} d {clock}" if days else clock


def about(seconds: float | None) -> str:
    """A forecast, no finer than it deserves: `20 s`, `4 min`, `3 h 10 min`, `2 d 5 h`; `unknown` for None."""
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    if seconds < 90:
        return f"{max(round(seconds), 0)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def rows(count: int) -> str:
    """`1 row`, `1,200 rows`."""
    return counted(count, "row")


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the plural where it is one."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def number(value: float) -> str:
    """A rate for people: one decimal below ten."""
    return f"{value:,.1f}" if 0 < value < 10 else f"{value:,.0f}"


def columns(lines: Sequence[Sequence[str]], *, indent: str = "  ", right: frozenset[int] = frozenset()) -> list[str]:
    """Cells under each other; the columns in `right` end flush."""
    if not lines:
        return []
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return [
        (
            indent
            + "  ".join(cell.rjust(width) if at in right else cell.ljust(width) for at, (cell, width) in enumerate(zip(line, widths, strict=True)))
        ).rstrip()
        for line in lines
    ]


LIMITED_BY = {
    "rpm": "limited by rpm (requests per minute)",
    "tpm": "limited by tpm (tokens per minute)",
    "itpm": "limited by itpm (input tokens per minute)",
    "otpm": "limited by otpm (output tokens per minute)",
    "rpd": "limited by rpd (requests per day)",
    "tpd": "limited by tpd (tokens per day)",
    "concurrency": "limited by concurrency (requests in flight)",
    "budget": "limited by the budget (waiting for what is held, or for the next day)",
    "pause": "paused (by `batchllm pause`, or the provider asked to wait, or is down)",
    "latency": "limited by the provider's latency",
    "input": "limited by reading the input",
}


def limited_words(limited_by: str | None, waits_until_utc: float | None = None) -> str:
    """What limits the speed, in words; empty for None. `waits_until_utc`: when the window opens that all wait for."""
    if waits_until_utc is not None:
        moment = datetime.fromtimestamp(waits_until_utc, UTC)
        return f"waiting until {moment:%H:%M} UTC on {moment:%Y-%m-%d}: the budget is used up till then"
    return "" if limited_by is None else LIMITED_BY.get(limited_by, f"limited by {limited_by}")
