"""The one writer. Work queues up while a commit runs; the next commit takes all of it: grouped commits, off the event loop.

Who awaits a journal entry is told only after its COMMIT returned, and may send only then. After a failed commit nothing is known (a failed fsync may have
written the row all the same), so nothing is retried behind the caller's back: journals fail, and answers that were paid for are kept and written by
`close`, in case the disk has room again. Resume reads the store and never trusts an exception.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol, TypeVar

from batchllm.core.errors import StoreError
from batchllm.store.records import FAILED, OK, Answer, AttemptEnd, AttemptStart, Body, Committed

T = TypeVar("T")

_GATHER_SECONDS = 0.002
"""How long a commit waits for company. Far below any provider's latency, and it turns thousands of small commits a second into hundreds."""
_WIDTHS = (64, 16, 4, 1)
"""Rows of one statement."""


def _rows_of_marks(width: int, rows: int) -> str:
    return ", ".join(["(" + ", ".join("?" * width) + ")"] * rows)


def _insert(verb: str, table: str, columns: Sequence[str], rows: int) -> str:
    return f"{verb} INTO {table} ({', '.join(columns)}) VALUES {_rows_of_marks(len(columns), rows)}"


def _update_ends(rows: int) -> str:
    columns = AttemptEnd._fields
    sets = ", ".join(f"{name} = v.column{at}" for at, name in enumerate(columns[:-1], 1))
    return f"UPDATE attempt_log SET {sets} FROM (VALUES {_rows_of_marks(len(columns), rows)}) AS v WHERE attempt_id = v.column{len(columns)}"  # noqa: S608 - constant names


# One statement for many rows: each step of SQLite hands the interpreter lock over and back, and under load every hand-over waits for the busy event loop.
_JOURNAL = {n: _insert("INSERT", "attempt_log", AttemptStart._fields, n) for n in _WIDTHS}
_ANSWER = {n: _insert("INSERT OR REPLACE", "outcomes", Answer._fields, n) for n in _WIDTHS}
_BODY = {n: _insert("INSERT OR REPLACE", "bodies", Body._fields, n) for n in _WIDTHS}
_END = {n: _update_ends(n) for n in _WIDTHS}
_STATE = {n: f"UPDATE rows SET state = ? WHERE row_key IN ({', '.join('?' * n)})" for n in _WIDTHS}  # noqa: S608 - question marks only


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    """(from, how many): few wide statements instead of many narrow ones."""
    at = 0
    for width in _WIDTHS:
        while count - at >= width:
            yield at, width
            at += width


def _write(connection: sqlite3.Connection, statements: dict[int, str], rows: Sequence[tuple[Any, ...]]) -> None:
    for at, width in _pieces(len(rows)):
        connection.execute(statements[width], list(chain.from_iterable(rows[at : at + width])))


def _set_states(connection: sqlite3.Connection, answers: Sequence[Answer]) -> None:
    for state, status in ((OK, "ok"), (FAILED, "failed")):
        keys = [answer.row_key for answer in answers if answer.status == status]
        for at, width in _pieces(len(keys)):
            connection.execute(_STATE[width], [state, *keys[at : at + width]])


class _Group:
    """What one commit takes."""

    __slots__ = ("answers", "bodies", "calls", "ends", "journal", "notes", "waiters")

    def __init__(self) -> None:
        self.journal: list[AttemptStart] = []
        self.waiters: list[asyncio.Future[None]] = []
        self.ends: list[AttemptEnd] = []
        self.answers: list[Answer] = []
        self.bodies: list[Body] = []
        self.calls: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self.notes: list[Committed] = []

    def __bool__(self) -> bool:
        return bool(self.journal or self.ends or self.answers or self.calls)


def write_group(connection: sqlite3.Connection, group: _Group) -> list[Any]:
    """One transaction. Ends before answers before calls, so that a call sees everything that was asked for before it."""
    results: list[Any] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        if group.journal:
            _write(connection, _JOURNAL, group.journal)
        if group.ends:
            _write(connection, _END, group.ends)
        if group.bodies:
            _write(connection, _BODY, group.bodies)
        if group.answers:
            _write(connection, _ANSWER, group.answers)
            _set_states(connection, group.answers)
        results = [call(connection) for call, _ in group.calls]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


def explain(error: sqlite3.Error, path: str) -> StoreError:
    """SQLite's word, turned into what to do."""
    text = str(error)
    if "full" in text or "disk I/O" in text:
        mend = "the disk is full or failing: free some space, then run the same command again; everything committed so far is safe"
    elif "locked" in text or "busy" in text:
        mend = "another program holds a lock on it (a SQLite browser with an open transaction?): close it, then run again"
    elif "readonly" in text:
        mend = "it is read-only: mend its permissions, or choose another place with --store"
    elif "not a database" in text or "malformed" in text:
        mend = "it is damaged or no SQLite file: restore it from a copy, or move it away to start anew"
    elif "unable to open" in text:
        mend = "SQLite can't make its files beside it: copy the store, with its `-wal` if there is one, to a folder that can be written"
    else:
        mend = "run again; if this repeats, run `sqlite3 FILE 'pragma integrity_check'`"
    return StoreError(f"{path}: {text} - {mend}")


class Writer(Protocol):
    """What the store asks of a writer, in a thread or inline."""

    def journal(self, start: AttemptStart) -> asyncio.Future[None]: ...

    def end(self, end: AttemptEnd, body: Body | None) -> None: ...

    def answer(self, answer: Answer, note: Committed | None) -> None: ...

    def call(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]: ...

    async def close(self) -> None: ...


class MakeWriter(Protocol):
    """What makes the writer of a store: one of the classes below, or a double of theirs."""

    def __call__(
        self,
        connection: sqlite3.Connection,
        path: str,
        *,
        on_commit: Callable[[list[Committed]], None],
        on_failure: Callable[[StoreError], None],
    ) -> Writer: ...


class ThreadWriter:
    """Commits in a thread of its own; results come back to the loop once per group."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        *,
        on_commit: Callable[[list[Committed]], None],
        on_failure: Callable[[StoreError], None],
    ) -> None:
        self._connection = connection
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._on_commit = on_commit
        self._on_failure = on_failure
        self._group = _Group()
        self._kept = _Group()
        self._broken: StoreError | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="batchllm-store", daemon=True)
        self._thread.start()

    async def _ended(self) -> None:
        try:
            while self._thread.is_alive():  # noqa: ASYNC110 - a thread's end sets no event of the loop
                await asyncio.sleep(0.002)
        finally:
            # Also when cancelled once more: a connection that is closed while a thread works on it takes the whole process down.
            self._thread.join()
        # What became of its last group waits in the loop: a failed one must be known as kept before anybody looks.
        await asyncio.sleep(0)

    def journal(self, start: AttemptStart) -> asyncio.Future[None]:
        """A future that is done when the attempt is on disk."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._broken is not None:
            future.set_exception(self._broken)
            return future
        with self._lock:
            self._group.journal.append(start)
            self._group.waiters.append(future)
        if not self._wake.is_set():
            self._wake.set()
        return future

    def end(self, end: AttemptEnd, body: Body | None) -> None:
        """Queues the end of an attempt."""
        with self._lock:
            group = self._kept if self._broken is not None else self._group
            group.ends.append(end)
            if body is not None:
                group.bodies.append(body)
        if not self._wake.is_set():
            self._wake.set()

    def answer(self, answer: Answer, note: Committed | None) -> None:
        """Queues a row's outcome; `note` goes to `on_commit` after the commit."""
        with self._lock:
            group = self._kept if self._broken is not None else self._group
            group.answers.append(answer)
            if note is not None:
                group.notes.append(note)
        if not self._wake.is_set():
            self._wake.set()

    def call(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Runs `work` inside the next transaction, in the writer's thread."""
        future: asyncio.Future[T] = self._loop.create_future()
        if self._broken is not None:
            future.set_exception(self._broken)
            return future
        with self._lock:
            self._group.calls.append((work, future))
        if not self._wake.is_set():
            self._wake.set()
        return future

    async def close(self) -> None:
        """Writes what is queued and ends the thread. Raises StoreError when the last commit failed."""
        self._closing = True
        self._wake.set()
        await self._ended()
        if self._kept:
            # A failed store gets one more chance with the answers that are already paid for.
            try:
                write_group(self._connection, self._kept)
            except sqlite3.Error as error:
                raise explain(error, self._path) from error
            self._on_commit(self._kept.notes)

    def _work(self) -> None:
        while True:
            if not self._closing:
                self._wake.wait()
                time.sleep(_GATHER_SECONDS)
            self._wake.clear()
            if not self._commit_queued() and self._closing:
                return

    def _commit_queued(self) -> bool:
        """One commit of all that is queued; whether there was anything."""
        with self._lock:
            group, self._group = self._group, _Group()
        if group:
            self._commit(group)
        return bool(group)

    def _commit(self, group: _Group) -> None:
        try:
            results = write_group(self._connection, group)
        except Exception as error:  # noqa: BLE001 - whatever it is, the loop must hear of it
            failure = explain(error, self._path) if isinstance(error, sqlite3.Error) else error
            self._loop.call_soon_threadsafe(self._failed, group, failure)
        else:
            self._loop.call_soon_threadsafe(self._done, group, results)

    def _done(self, group: _Group, results: list[Any]) -> None:
        for waiter in group.waiters:
            if not waiter.done():
                waiter.set_result(None)
        for (_, future), result in zip(group.calls, results, strict=True):
            if not future.done():
                future.set_result(result)
        if group.notes:
            self._on_commit(group.notes)

    def _failed(self, group: _Group, error: Exception) -> None:
        failure = error if isinstance(error, StoreError) else StoreError(f"{self._path}: {error}")
        if not isinstance(error, StoreError):
            failure.__cause__ = error
        self._broken = self._broken or failure
        self._kept.ends += group.ends
        self._kept.bodies += group.bodies
        self._kept.answers += group.answers
        self._kept.notes += group.notes
        for future in [*group.waiters, *(future for _, future in group.calls)]:
            if not future.done():
                future.set_exception(failure)
        self._on_failure(failure)


class InlineWriter:
    """Commits at once, in the caller's thread: for virtual time, where a thread could not hold the clock."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        *,
        on_commit: Callable[[list[Committed]], None],
        on_failure: Callable[[StoreError], None],
    ) -> None:
        self._connection = connection
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._on_commit = on_commit
        self._on_failure = on_failure

    def _run(self, group: _Group) -> list[Any]:
        try:
            results = write_group(self._connection, group)
        except sqlite3.Error as error:
            failure = explain(error, self._path)
            self._on_failure(failure)
            raise failure from error
        if group.notes:
            self._on_commit(group.notes)
        return results

    def journal(self, start: AttemptStart) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        group = _Group()
        group.journal.append(start)
        try:
            self._run(group)
        except StoreError as error:
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    def end(self, end: AttemptEnd, body: Body | None) -> None:
        group = _Group()
        group.ends.append(end)
        if body is not None:
            group.bodies.append(body)
        self._run(group)

    def answer(self, answer: Answer, note: Committed | None) -> None:
        group = _Group()
        group.answers.append(answer)
        if note is not None:
            group.notes.append(note)
        self._run(group)

    def call(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        group = _Group()
        group.calls.append((work, future))
        try:
            future.set_result(self._run(group)[0])
        except Exception as error:  # noqa: BLE001 - it belongs to whoever awaits
            future.set_exception(error)
        return future

    async def close(self) -> None:
        """Nothing is ever queued."""
