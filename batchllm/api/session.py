"""A run whose results are taken as they are committed, no faster than they are taken.

The run is a task of its own that hands results over by a queue: no task group or cancel scope of it is open while the reader's code runs (a generator may
be left, closed or collected in another task). Back-pressure shuts the run's door while the reader is `concurrency` results behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import anyio

from batchllm.api.rows import AnyRows
from batchllm.api.running import Flags, Order, go, order
from batchllm.api.words import in_python
from batchllm.core.errors import Stopped
from batchllm.core.nouns import Result
from batchllm.engine import Summary
from batchllm.engine.control import Control
from batchllm.spec import JobSpec
from batchllm.store.read import StoreReader
from batchllm.store.stored import Stored, results_after

_BEHIND = 64
"""Results that a reader may be behind where the spec has no `concurrency`."""
_CHUNK_ROWS = 500
_LEFT = "left by the program; run again to continue"


class Session:
    """One run, open for reading. Made by `batchllm.open`; an async context manager."""

    def __init__(self, asked: Order) -> None:
        self._order = asked
        self._most_behind = asked.spec.concurrency or _BEHIND
        self._behind = 0
        self._queue: asyncio.Queue[list[Result] | None] = asyncio.Queue()
        self._began = asyncio.Event()
        self._go_on = asyncio.Event()
        self._control: Control | None = None
        self._task: asyncio.Task[Summary] | None = None
        self._streaming = False
        self._new_only = False
        self._told = False
        """Whether the run's error was raised to the reader."""

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("a session is one run; open another one")
        run = go(self._order, on_start=self._start, on_result=self._queue.put_nowait, on_known=self._met)
        self._task = asyncio.create_task(run, name="batchllm-session")
        self._task.add_done_callback(self._over)
        try:
            await self._began.wait()
        except BaseException:
            await self._close(at_once=True)
            raise
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # A cancellation must not wait for answers; what is in flight then counts as possibly billed.
        await self._close(at_once=kind is not None and not issubclass(kind, Exception | GeneratorExit))
        assert self._task is not None
        if error is None and not self._told:
            self._task.result()

    def stream(self, *, new_only: bool = False) -> AsyncIterator[Result]:
        """Each row's result once, only after its commit; those of earlier runs first (`new_only=True` leaves them out).

        No more is sent while the reader is `concurrency` results behind (64 where the spec has none). Leaving the loop ends the run: what is in flight
        finishes and is stored. Raises StoreError when the store fails. The loop also ends when the run stops early: see `summary`.
        """
        if self._control is None:
            raise RuntimeError("use `async with batchllm.open(job) as session` first")
        if self._streaming:
            raise RuntimeError("a session has one stream; open another session")
        self._streaming = True
        self._new_only = new_only
        return self._results(self._control)

    @property
    def summary(self) -> Summary:
        """How the run ended; there after the stream's end, and after the `async with` block."""
        if self._task is None or not self._task.done():
            raise RuntimeError("the run goes on; its summary is there when the stream has ended")
        return self._task.result()

    async def _results(self, control: Control) -> AsyncGenerator[Result, None]:
        try:
            if not control.fresh and not self._new_only and self._order.options.records is None:
                async for result in self._earlier(control):
                    yield result
            self._go_on.set()
            while (batch := await self._queue.get()) is not None:
                for result in batch:
                    self._behind -= 1
                    if self._behind < self._most_behind:
                        control.release()
                    yield result
            assert self._task is not None
            self._told = True
            self._task.result()
        finally:
            self._stop()

    async def _earlier(self, control: Control) -> AsyncGenerator[Result, None]:
        """Results of earlier runs that still stand, in input order. Nothing is sent before the last one was taken."""
        after = -1
        while chunk := await anyio.to_thread.run_sync(_chunk, control.store, after):
            for row_key, identity, result in chunk:
                if control.stands(row_key=row_key, position=result.row, identity=identity):
                    yield result
            after = chunk[-1].result.row

    # What the run calls, in this loop.

    async def _start(self, control: Control) -> None:
        self._control = control
        control.on_row(self._one_more)
        control.on_stop(self._go_on.set)
        self._began.set()
        await self._go_on.wait()

    def _one_more(self, count: int = 1) -> None:
        # Counted before its commit: while a commit takes its time, many a quick request could be sent.
        self._behind += count
        if self._behind >= self._most_behind and self._control is not None:
            self._control.hold()

    def _met(self, results: list[Result]) -> None:
        if not self._new_only:
            self._one_more(len(results))
            self._queue.put_nowait(results)

    def _over(self, _task: asyncio.Task[Summary]) -> None:
        self._began.set()
        self._queue.put_nowait(None)

    def _stop(self) -> None:
        if self._control is not None and self._task is not None and not self._task.done():
            self._control.stop(message=_LEFT)

    async def _close(self, *, at_once: bool) -> None:
        """Waits for the run's end, so that the store is closed and unlocked."""
        task = self._task
        assert task is not None
        if at_once:
            task.cancel()
        else:
            self._stop()
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not task.done():
                try:
                    await asyncio.wait({task})
                except asyncio.CancelledError as error:
                    cancelled = error
                    if not at_once:
                        # Once only: a second one would cut the run's own closing short.
                        at_once = True
                        task.cancel()
        if cancelled is not None:
            raise cancelled
        if not task.cancelled():
            task.exception()  # looked at, so that nobody is told that it was never retrieved


def _chunk(store: Path, after: int) -> list[Stored]:
    with StoreReader(store) as reader:
        return results_after(reader, after, _CHUNK_ROWS)


def open_session(job: JobSpec | str | Path, *, rows: AnyRows | None = None, **flags: Unpack[Flags]) -> Session:
    """Opens a job for one run whose results are streamed.

        async with batchllm.open(job) as session:
            async for result in session.stream():
                print(result.custom_id, result.output)
        print(session.summary.cost_usd)

    Arguments as for `run`. Entering raises SpecError and StoreError; nothing is sent before `stream` is read. Leaving drains and closes: what is in flight
    finishes, the store is unlocked, and the next run goes on from there. Being cancelled leaves at once.
    """
    return Session(order(job, rows, **flags))


def stream(rows: AnyRows, job: JobSpec | str | Path, *, new_only: bool = False, **flags: Unpack[Flags]) -> AsyncGenerator[Result, None]:
    """Results of a program's own rows, as they are committed. `rows` is any iterable or async iterable of dicts, read no faster than results are taken.

        async for result in batchllm.stream(rows, job):
            ...

    A row that the job's store has answered before isn't sent again; its result comes too (unless `new_only`). When the run stops early (a cap, a provider),
    Stopped is raised after the last result, with `summary`. Leaving the loop finishes what is in flight in the background; to wait for that, close the
    iterator (`contextlib.aclosing`) or use `open(job, rows=rows)`. What `rows` itself raises is raised here, after the run was closed.
    """
    return _stream(open_session(job, rows=rows, **flags), new_only=new_only)


async def _stream(session: Session, *, new_only: bool) -> AsyncGenerator[Result, None]:
    async with session:
        async for result in session.stream(new_only=new_only):
            yield result
    summary = session.summary
    if summary.message is not None:
        raise Stopped(in_python(summary.message), results=[], summary=summary)
