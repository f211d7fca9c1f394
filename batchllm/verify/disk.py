"""A store's disk in virtual time: commits that take a while, fail, or are the last thing that a process did.

It is the real writer (its groups, its order, what it keeps after a failure); only its thread is gone, because a thread could not hold this clock. What the
thread does to the engine stays: work queues up while a commit is under way, or is committed between two calls of one step.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Protocol, cast

from batchllm.core.errors import StoreError
from batchllm.core.nouns import Result
from batchllm.store.records import Answer, AttemptEnd, AttemptStart, Body, Committed
from batchllm.store.writer import ThreadWriter
from batchllm.verify.plan import Life

_FULL = "database or disk is full"
_FSYNC = "disk I/O error"


class Mortal(Protocol):
    """What may die at an event."""

    dead: bool

    def event(self) -> bool: ...


class Disk:
    """How one run's disk behaves. A run may die before and after every commit."""

    def __init__(self, life: Life, rng: random.Random, process: Mortal) -> None:
        self._life = life
        self._rng = rng
        self._process = process
        self._commits = 0
        self.failed = False
        """Whether a commit has failed."""

    def delay_seconds(self) -> float:
        """Until the next commit is done. What a dead process still writes takes no time, or the next life would begin a little later each time."""
        if self._process.dead:
            return 0.0
        slow = self._rng.random() < self._life.slow_share
        return self._life.slow_seconds if slow else self._rng.uniform(0.001, 0.004)

    def races(self) -> bool:
        """Whether the writer's thread takes what is queued this very moment."""
        return self._rng.random() < self._life.race

    def commit(self, real: Callable[[], Any]) -> Any:
        """A COMMIT, as far as it gets."""
        self._commits += 1
        self._process.event()
        trouble = self._life.disk
        if trouble is not None and trouble.first <= self._commits < trouble.first + trouble.commits:
            self.failed = True
            if trouble.kind == "fsync":
                # The page may have reached the disk all the same.
                real()
                raise sqlite3.OperationalError(_FSYNC)
            raise sqlite3.OperationalError(_FULL)
        done = real()
        self._process.event()
        return done


class _Connection:
    """A connection whose COMMIT goes to the disk above; everything else is SQLite's."""

    def __init__(self, connection: sqlite3.Connection, disk: Disk) -> None:
        self._connection = connection
        self._disk = disk

    def execute(self, sql: str, *values: Any) -> Any:
        if sql == "COMMIT":
            return self._disk.commit(lambda: self._connection.execute(sql))
        return self._connection.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class _Alarm(threading.Event):
    """Rings after the disk's delay, instead of waking a thread."""

    def __init__(self, ring: Callable[[], object]) -> None:
        super().__init__()
        self._ring = ring

    def set(self) -> None:
        if not self.is_set():
            super().set()
            self._ring()


class VirtualWriter(ThreadWriter):
    """The store's writer without its thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        *,
        on_commit: Callable[[list[Committed]], None],
        on_failure: Callable[[StoreError], None],
        disk: Disk,
    ) -> None:
        self._disk = disk
        super().__init__(cast("sqlite3.Connection", _Connection(connection, disk)), path, on_commit=on_commit, on_failure=on_failure)

    def _start(self) -> None:
        self._wake = _Alarm(lambda: self._loop.call_later(self._disk.delay_seconds(), self._due))

    def _due(self) -> None:
        self._wake.clear()
        self._commit_queued()

    async def _ended(self) -> None:
        while self._group:
            await asyncio.sleep(self._disk.delay_seconds())
            self._commit_queued()
        await asyncio.sleep(0)

    def journal(self, start: AttemptStart) -> asyncio.Future[None]:
        future = super().journal(start)
        self._perhaps_now()
        return future

    def end(self, end: AttemptEnd, body: Body | None) -> None:
        super().end(end, body)
        self._perhaps_now()

    def answer(self, answer: Answer, note: Committed | None) -> None:
        super().answer(answer, note)
        self._perhaps_now()

    def _perhaps_now(self) -> None:
        if self._disk.races():
            self._commit_queued()


def announced(results: list[Result], into: dict[int, Result]) -> list[int]:
    """Notes results that were told as committed; those told before are returned."""
    twice = [result.row for result in results if result.row in into]
    into.update((result.row, result) for result in results)
    return twice
