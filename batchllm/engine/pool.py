"""The workers of a lane: as many as may be in flight, started when there is work, plus one for each row that only waits for its next try."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from anyio.abc import TaskGroup

from batchllm.engine.lane import Lane
from batchllm.engine.work import Work

_PARKED_LIMIT = 4
"""Rows that wait for a next try, in multiples of a lane's width; beyond it, waiting rows hold up the others, and memory stays flat."""


class Pool:
    """Starts workers and ends them; `walk` is the journey."""

    def __init__(self, tasks: TaskGroup, walk: Callable[[Work], Awaitable[None]]) -> None:
        self._tasks = tasks
        self._walk = walk

    async def put(self, lane: Lane, work: Work) -> None:
        """Hands a row to a lane; waits while its queue is full (a stop empties it)."""
        while lane.backlog.qsize() >= lane.backlog_limit:
            lane.taken.clear()
            await lane.taken.wait()
        lane.backlog.put_nowait(work)
        self.spawn(lane)

    def spawn(self, lane: Lane) -> None:
        """One more worker, if there is work for it and room."""
        busy = lane.workers - lane.idle - lane.parked
        if lane.idle == 0 and not lane.backlog.empty() and busy < lane.width and lane.parked <= lane.width * _PARKED_LIMIT:
            lane.workers += 1
            self._tasks.start_soon(self._work, lane)

    async def _work(self, lane: Lane) -> None:
        try:
            while lane.workers - lane.parked <= lane.width:
                if lane.backlog.empty() and lane.closed:
                    return
                lane.idle += 1
                try:
                    work = await lane.backlog.get()
                finally:
                    lane.idle -= 1
                if work is None:
                    # A worker that was busy may have taken the wake-up of one that still waits: pass it on.
                    if lane.idle and lane.backlog.empty():
                        lane.backlog.put_nowait(None)
                    return
                if not lane.taken.is_set() and lane.backlog.qsize() < lane.backlog_limit:
                    lane.taken.set()
                if not lane.backlog.empty():
                    self.spawn(lane)
                await self._walk(work)
        finally:
            lane.workers -= 1

    def close(self, lane: Lane) -> None:
        """No more rows will come: workers end when the queue is empty."""
        lane.closed = True
        self._wake_idle(lane)

    def drop(self, lane: Lane) -> None:
        """Forgets the rows that wait (they stay pending), and lets the feeder go on to its end."""
        while not lane.backlog.empty():
            lane.backlog.get_nowait()
        lane.taken.set()
        if lane.closed:
            self._wake_idle(lane)

    @staticmethod
    def _wake_idle(lane: Lane) -> None:
        if lane.idle:
            lane.backlog.put_nowait(None)
