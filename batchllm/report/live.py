"""The live display of a run on a terminal: a bar and three lines that are repainted in place, notes scrolling by above them.

Traps: rich's `Live` would take over stdout, where results may go, so only stderr is its business; its own refresh thread would fight with the loop, so it
repaints only when an event comes, at most eight times a second; and a display that fails (a terminal that went away) must never end the run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batchllm.core.events import Event, Note, Progress, RowsCompared
from batchllm.engine.summary import Summary
from batchllm.report.plain import compared_words, money_parts, percent, progress_line
from batchllm.report.text import about, clean, limited_words, number, span
from batchllm.report.words import summary_lines

_REPAINT_SECONDS = 0.12
_GAP = "   "
_STYLES = {"warning": "yellow", "error": "bold red", "info": "dim"}


class _Terminal(Console):
    """rich's own way with a broken pipe is to close stdout and end the program; here it only falls silent."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class LiveDisplay:
    """A listener and context manager. Painting begins with the first progress, so that questions before the run stand alone."""

    def __init__(self, name: str, *, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic, console: Console | None = None) -> None:
        self._name = clean(name, 40)
        self._console = console or _Terminal(file=stream, stderr=stream is None, highlight=False)
        self._now = now
        self._live: Live | None = None
        self._painted_at = 0.0
        self._last: Progress | None = None
        self._dead = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        last, live = self._last, self._live is not None
        self._stop()
        if last is not None and live:
            self._print(Text(progress_line(self._name, last, end=True)))

    def __call__(self, event: Event) -> None:
        match event:
            case Note():
                label = "" if event.level == "info" else f"{event.level}: "
                self._print(Text(label + clean(event.text), style=_STYLES[event.level]))
            case RowsCompared():
                self._print(Text(compared_words(event), style="dim"))
            case Progress():
                self._last = event
                self._paint()

    def failed(self, error: Exception) -> None:
        """The run ended by an error of ours."""
        self._stop()
        self._print(Text(f"error: {error}", style="bold red"))

    def finished(self, summary: Summary, *, job: str, simulated: bool) -> None:
        """The run ended: the display goes, the summary stays."""
        self._stop()
        title, *lines = summary_lines(summary, job=job, simulated=simulated)
        self._print(Text(title, style="bold"))
        for line in lines:
            self._print(Text(line))

    def _paint(self) -> None:
        now = self._now()
        if self._dead or self._last is None or (self._live is not None and now - self._painted_at < _REPAINT_SECONDS):
            return
        self._painted_at = now
        with self._guarded():
            if self._live is None:
                self._live = Live(
                    console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=True, vertical_overflow="crop"
                )
                self._live.start()
            self._live.update(picture(self._name, self._last, width=self._console.width, height=self._console.height), refresh=True)

    def _print(self, text: Text) -> None:
        if not self._dead:
            with self._guarded():
                # Whole lines as they are: rich would wrap paths and commands, which people copy.
                self._console.print(text, soft_wrap=True)

    def _stop(self) -> None:
        live, self._live = self._live, None
        self._last = None
        if live is not None:
            with self._guarded():
                live.stop()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            self._dead = True


def picture(name: str, progress: Progress, *, width: int, height: int = 24) -> RenderableType:
    """What is painted: the bar, and as many lines of facts as the terminal's height allows. Lines are filled for this width, so nothing wraps."""
    lines: list[RenderableType] = [_bar(name, progress, width)]
    facts = [_row_facts(progress), _speed_facts(progress), _money_facts(progress, width - 1)]
    for cells in facts:
        lines += _filled(cells, width - 1)
    return Group(*lines[: max(1, height - 2)])


def _bar(name: str, progress: Progress, width: int) -> RenderableType:
    done = progress.ok + progress.failed
    words = f"{done:,} rows" if progress.total is None else f"{done:,} / {progress.total:,} rows{percent(progress)}"
    left = Text(name, style="bold", no_wrap=True, overflow="ellipsis")
    room = width - 1 - len(words) - 2
    if room < 12:
        return Text(words, no_wrap=True, overflow="ellipsis")
    label = name if len(name) + 14 <= room else ""
    bar = ProgressBar(
        total=progress.total,
        completed=done,
        width=min(60, room - (len(label) + 2 if label else 0)),
        pulse=progress.total is None,
        animation_time=progress.seconds,
    )
    grid = Table.grid(padding=(0, 2, 0, 0))
    if label:
        grid.add_row(left, bar, Text(words, no_wrap=True))
    else:
        grid.add_row(bar, Text(words, no_wrap=True))
    return grid


def _filled(cells: list[Text], width: int) -> list[Text]:
    """Cells side by side, on further lines where the terminal is narrow."""
    lines: list[Text] = []
    line = Text(no_wrap=True, overflow="ellipsis")
    for cell in cells:
        if line.cell_len and line.cell_len + len(_GAP) + cell.cell_len > width:
            lines.append(line)
            line = Text(no_wrap=True, overflow="ellipsis")
        if line.cell_len:
            line.append(_GAP)
        line.append_text(cell)
    return [*lines, line] if line.cell_len else lines


def _row_facts(progress: Progress) -> list[Text]:
    return [
        Text(f"{progress.ok:,} ok", style="green"),
        Text(f"{progress.failed:,} failed", style="red" if progress.failed else ""),
        Text(f"{progress.in_flight:,} in flight"),
        Text(f"{progress.waiting:,} waiting"),
    ]


def _speed_facts(progress: Progress) -> list[Text]:
    cells = [Text(f"{number(progress.requests_per_minute)} requests/min"), Text(f"{number(progress.tokens_per_minute)} tokens/min")]
    limited = limited_words(progress.limited_by, progress.waits_until_utc)
    return [*cells, Text(limited, style="cyan")] if limited else cells


def _money_facts(progress: Progress, width: int) -> list[Text]:
    left = f"about {about(progress.eta_seconds)} left" if progress.eta_seconds is not None else "time left unknown"
    parts = money_parts(progress)
    spent = [" ".join(parts)] if len(" ".join(parts)) <= width else parts
    return [*map(Text, spent), Text(f"{span(progress.seconds)} elapsed"), Text(left)]
