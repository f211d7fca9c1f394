"""Progress as log lines, for when nobody watches: stderr is a file, a pipe or a service's journal.

One line at the start, one about every ten seconds, one at the end, notes as they come. With `quiet` only errors. A listener must never end the run: when
stderr is gone (a closed pipe, a full disk), the log goes silent.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from batchllm.core.events import Event, Note, Progress, RowsCompared
from batchllm.core.money import text_usd
from batchllm.engine.summary import Summary
from batchllm.report.text import about, clean, limited_words, number, span
from batchllm.report.words import summary_lines


class PlainLog:
    """A listener and context manager that writes timestamped lines."""

    def __init__(
        self,
        name: str,
        *,
        quiet: bool = False,
        every_seconds: float = 10.0,
        stream: TextIO | None = None,
        utc: Callable[[], float] = time.time,
    ) -> None:
        self._name = clean(name)
        self._quiet = quiet
        self._every_seconds = every_seconds
        self._stream = stream
        self._utc = utc
        self._begun = False
        self._said_at: float | None = None
        self._last: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._last is not None and not self._quiet:
            self._line(progress_line(self._name, self._last, end=True))
            self._last = None

    def __call__(self, event: Event) -> None:
        if not self._begun:
            # Not before: a spec that is wrong starts nothing.
            self._begun = True
            if not self._quiet:
                self._line(f"{self._name}: started")
        match event:
            case Note():
                self._note(event)
            case RowsCompared():
                if not self._quiet:
                    self._line(compared_words(event))
            case Progress():
                first = self._last is None
                self._last = event
                if self._said_at is None or first:
                    self._said_at = self._said_at or event.seconds
                if not self._quiet and event.seconds - self._said_at >= self._every_seconds:
                    self._said_at = event.seconds
                    self._line(progress_line(self._name, event))

    def failed(self, error: Exception) -> None:
        """The run ended by an error of ours."""
        self._write(f"error: {error}")

    def finished(self, summary: Summary, *, job: str, simulated: bool) -> None:
        """The run ended: the summary, unless told to be quiet (a stop by a provider or the store is an error, and always said)."""
        self._last = None
        if not self._quiet:
            for line in summary_lines(summary, job=job, simulated=simulated):
                self._write(line)
        elif summary.message is not None and summary.exit_code:
            self._write(f"error: {clean(summary.message)}")

    def _note(self, note: Note) -> None:
        if self._quiet and note.level != "error":
            return
        self._line(f"{'' if note.level == 'info' else note.level + ': '}{clean(note.text)}")
        if self._last is not None and not self._quiet:
            # Where the run stood when it happened; the next line comes a full interval later.
            self._said_at = self._last.seconds
            self._line(progress_line(self._name, self._last))

    def _line(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._utc()))
        self._write(f"{stamp} {text}")

    def _write(self, text: str) -> None:
        stream = self._stream if self._stream is not None else sys.stderr
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.write(text.encode("utf-8", "replace").decode() + "\n")
            stream.flush()


def progress_line(name: str, progress: Progress, *, end: bool = False) -> str:
    """`reviews: 1,234 of 25,000 rows (4.9 %), 3 failed, ...` on one line."""
    done = progress.ok + progress.failed
    words = [f"{done:,} rows done" if progress.total is None else f"{done:,} of {progress.total:,} rows done{percent(progress)}"]
    if progress.failed:
        words.append(f"{progress.failed:,} failed")
    if not end:
        words.append(f"{progress.in_flight:,} in flight")
        words.append(f"{number(progress.requests_per_minute)} requests/min")
        words.append(f"{number(progress.tokens_per_minute)} tokens/min")
        limited = limited_words(progress.limited_by, progress.waits_until_utc)
        if limited:
            words.append(limited)
    words.append(money_line(progress))
    if end:
        words.append(f"after {span(progress.seconds)}")
    elif progress.eta_seconds is not None:
        words.append(f"about {about(progress.eta_seconds)} left")
    return f"{name}: " + ", ".join(words)


def percent(progress: Progress) -> str:
    """` (48.2 %)`; never 100 before the last row is done."""
    if not progress.total:
        return ""
    return f" ({int((progress.ok + progress.failed) * 1000 / progress.total) / 10:.1f} %)"


def money_line(progress: Progress) -> str:
    """`$1.23 spent + $0.04 reserved of $20.00`."""
    return " ".join(money_parts(progress))


def money_parts(progress: Progress) -> list[str]:
    """The same in parts that may stand on lines of their own."""
    parts = [f"{text_usd(progress.spent_pico)} spent{' (simulated)' if progress.simulated else ''}"]
    if progress.reserved_pico:
        parts.append(f"+ {text_usd(progress.reserved_pico)} reserved")
    if progress.cap_pico is not None:
        parts.append(f"of {text_usd(progress.cap_pico)}")
    return parts


def compared_words(event: RowsCompared) -> str:
    """What the fingerprint pass of a later run found."""
    return f"compared with the store: {event.new:,} new, {event.changed:,} changed, {event.removed:,} removed, {event.unchanged:,} unchanged rows"
