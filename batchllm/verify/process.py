"""One life, from the outside: a process with its clock, its folder and its death.

Where can a process die? Between two things that anybody outside could tell apart: a commit, a request's arrival, a reply, a file. Every other step between two awaits
changes memory only, and memory is lost. Readings of the clock and events count too, as they lie between steps that write without the writer (the run's record, the results).
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from batchllm.core.nouns import Fault, Result
from batchllm.core.wire import HttpReply
from batchllm.engine import Summary
from batchllm.engine.control import Control
from batchllm.verify.findings import Findings
from batchllm.verify.plan import Life

EPOCH = 1_795_219_200.0
"""A midnight UTC: wall time when the world begins, before the plan shifts it."""
_MOST_EVENTS = 1_000_000
"""Of one life, which may wait for a day; more means that something spins."""


class Around(Protocol):
    """What outlives a process."""

    findings: Findings
    shift_seconds: float
    """By which wall time differs from the loop's."""

    def next_folder(self) -> Path:
        """An empty folder for the next life."""


class Wall:
    """One process's clock; wall time is the world's, with its jumps, and never falls within a process."""

    def __init__(self, around: Around, event: Callable[[], object]) -> None:
        self._around = around
        self._event = event
        self._loop = asyncio.get_running_loop()
        self._last = 0.0

    def now(self) -> float:
        return self._loop.time()

    def utc(self) -> float:
        self._event()
        return self.look()

    def look(self) -> float:
        """The same without being an event."""
        self._last = max(self._last, EPOCH + self._loop.time() + self._around.shift_seconds)
        return self._last

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Process:
    """One life."""

    def __init__(self, around: Around, life: Life, folder: Path, where: str) -> None:
        self.life = life
        self.folder = folder
        self.where = where
        self.dead = False
        self.image: Path | None = None
        """The folder as the death left it."""
        self.told: dict[int, Result] = {}
        """Results that were announced as committed, by position."""
        self.control: Control | None = None
        self.task: asyncio.Task[Summary] | None = None
        self.asked: list[asyncio.Task[HttpReply | Fault]] = []
        """Requests, as the provider sees them, in the order of their arrival."""
        self._around = around
        self._left = int(life.at) if life.end == "kill" else -1
        self._events = 0

    def event(self) -> bool:
        """Something that the outside could see: the process may die right here. Whether it is dead."""
        if self.dead:
            return True
        self._events += 1
        if self._events == self._left:
            self.die()
        elif self._events == _MOST_EVENTS:
            self._around.findings.add(f"{self.where}: still at work after {_MOST_EVENTS} events")
            self.die()
        return self.dead

    def die(self) -> None:
        """kill -9."""
        if self.dead or self.task is None or self.task.done():
            return
        self.dead = True
        self.image = self._around.next_folder()
        for path in self.folder.iterdir():
            # The log's index is rebuilt from the log; the lock is gone with its process.
            if not path.name.endswith(("-shm", ".lock")):
                shutil.copy(path, self.image / path.name)
        self.task.cancel()

    def stop(self) -> None:
        """`batchllm stop`, or a first Ctrl-C."""
        if self.control is not None and not self.dead:
            self.control.stop(message="stopped by the plan")

    async def hang_up(self) -> None:
        """The process is gone; the provider notices it request by request.

        In the order of arrival: a cancelled program unwinds in the order of a set, which is another one each time, and no seed would replay exactly.
        """
        left = [asked for asked in self.asked if not asked.done()]
        for asked in left:
            asked.cancel()
        if left:
            await asyncio.wait(left)

    async def started(self, control: Control) -> None:
        """The engine hands its control over."""
        self.control = control
