"""A program's own rows on their way to the feeder: read ahead a little, never far.

The feeder asks from a thread; an async iterable lives in the loop, and a plain one may block for as long as it likes (a queue, a cursor) or belong to one
thread. So each kind is read where it is at home, into a small buffer. The trap: a source that is slow must not keep the rows that came already waiting,
so an empty buffer says LATER once before it blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from batchllm.engine.control import Control
from batchllm.rows.read import LATER

AnyRows: TypeAlias = Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]
"""Dicts, from any iterable or async iterable."""

MOST_ROWS = 256
_PATIENCE_SECONDS = 0.01
"""How long an empty buffer waits for the next row before it says LATER."""


def checked(rows: Any) -> None:
    """Raises TypeError for what is no iterable of dicts, with the mend."""
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        raise TypeError("rows must be an iterable of dicts; for a data frame pass df.to_dict('records')")
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable | AsyncIterable):
        raise TypeError(f"rows must be an iterable or async iterable of dicts, got {type(rows).__name__}")


class ProgramRows:
    """An iterator for the feeder's thread over rows that come from elsewhere. `start` in the run's loop, `close` at its end."""

    def __init__(self, rows: AnyRows) -> None:
        self._rows = rows
        self._buffer: deque[Any] = deque()
        self._changed = threading.Condition()
        self._over = False
        """No more rows will come into the buffer."""
        self._closed = False
        self._said_later = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._control: Control | None = None
        self.error: BaseException | None = None
        """What the iterable raised."""

    def start(self, control: Control) -> None:
        """Begins to read. An error of the iterable stops the run; whoever started the run raises it afterwards."""
        self._control = control
        self._loop = asyncio.get_running_loop()
        control.on_stop(self._close)
        if isinstance(self._rows, AsyncIterable):
            self._room = asyncio.Event()
            self._task = self._loop.create_task(self._pull_async(self._rows))
        else:
            # A thread of its own, which nobody waits for: an iterable that blocks must not keep the run from stopping.
            threading.Thread(target=self._pull, args=(self._rows,), name="batchllm-rows", daemon=True).start()

    async def close(self) -> None:
        """Ends reading. Nobody waits for the buffer any more, and an async iterable is closed."""
        self._close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._changed:
            if not self._said_later and not self._ready():
                self._changed.wait_for(self._ready, _PATIENCE_SECONDS)
                if not self._ready():
                    self._said_later = True
                    return LATER
            self._changed.wait_for(self._ready)
            self._said_later = False
            if self._closed or not self._buffer:
                raise StopIteration
            row = self._buffer.popleft()
            if len(self._buffer) == MOST_ROWS // 2:
                self._changed.notify_all()
                self._tell(self._make_room)
            return row

    def _ready(self) -> bool:
        return bool(self._buffer) or self._over

    def _close(self) -> None:
        with self._changed:
            self._closed = self._over = True
            self._buffer.clear()
            self._changed.notify_all()

    def _add(self, row: Any) -> None:
        with self._changed:
            self._buffer.append(row)
            self._changed.notify_all()

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            if error is not None and not self._closed:
                self.error = error
                self._tell(self._stop)
            self._over = True
            self._changed.notify_all()

    def _tell(self, call: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run ended long ago
            self._loop.call_soon_threadsafe(call)

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()

    def _stop(self) -> None:
        assert self._control is not None
        self._control.stop(message=f"the rows' own iterable failed ({type(self.error).__name__}); run again to continue")

    def _is_full(self) -> bool:
        return len(self._buffer) >= MOST_ROWS and not self._closed

    def _pull(self, rows: Iterable[Any]) -> None:
        error: BaseException | None = None
        try:
            for row in rows:
                with self._changed:
                    self._changed.wait_for(lambda: not self._is_full())
                if self._closed:
                    return
                self._add(row)
        except BaseException as raised:  # noqa: BLE001 - whatever it is, it is the caller's and is raised there
            error = raised
        finally:
            self._end(error)

    async def _pull_async(self, rows: AsyncIterable[Any]) -> None:
        assert self._room is not None
        error: BaseException | None = None
        iterator = aiter(rows)
        try:
            async for row in iterator:
                self._add(row)
                while self._is_full():
                    self._room.clear()
                    if self._is_full():
                        await self._room.wait()
                if self._closed:
                    return
        except asyncio.CancelledError:
            raise
        except BaseException as raised:  # noqa: BLE001 - as above
            error = raised
        finally:
            self._end(error)
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()
