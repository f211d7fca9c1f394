"""The rows of a run walk: a first round for all of the input, and further ones for what a second terminal puts back meanwhile.

Each round has workers of its own, which end when its rows are at their end: what was put back during a round is read again only when nothing else moves.
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from batchllm.engine.access import Access
from batchllm.engine.changes import Changes
from batchllm.engine.compare import Judge
from batchllm.engine.context import Context
from batchllm.engine.control import Control, Stands
from batchllm.engine.deps import Deps
from batchllm.engine.feeder import Feeder
from batchllm.engine.journey import journey
from batchllm.engine.lane import Lane
from batchllm.engine.lanes import Lanes
from batchllm.engine.pool import Pool
from batchllm.engine.source import Source
from batchllm.engine.steer import Steering
from batchllm.engine.view import View
from batchllm.engine.work import Work


class Rounds:
    """One per run."""

    def __init__(
        self,
        context: Context,
        deps: Deps,
        *,
        source: Source,
        lanes: Lanes,
        changes: Changes,
        judge: Judge | None,
        view: View,
        access: Mapping[str, Access],
        deadline: float | None,
    ) -> None:
        self._context = context
        self._on_start = deps.on_start
        self._lanes = lanes
        self._pool: Pool | None = None
        self._control = Control(
            store=lanes.store.path,
            fresh=changes.fresh,
            clock=context.clock,
            stopper=context.stopper,
            admission=context.admission,
            everything=lanes.everything,
            outcomes=context.outcomes,
            stands=_stands(source, changes),
        )
        self._feeder = view.feeder = Feeder(
            context,
            source,
            lanes.by_name,
            changes=changes,
            inline=context.inline,
            put=self._put,
            control=self._control,
            on_known=deps.on_known,
            on_met=deps.on_met,
            judge=judge,
        )
        self.steering = Steering(
            context=context,
            lanes=lanes,
            access=access,
            control=self._control,
            feeder=self._feeder,
            deadline=deadline,
            files=not source.is_stream,
            show=lambda: context.listener(view.progress()),
        )
        self._control.answer = self.steering.answer

    async def walk(self) -> None:
        """Returns when no row is left to walk, or when the run has stopped."""
        await self._round(again=False)
        while await self.steering.rows_left():
            # What is held back would look pending there, and be asked once more.
            self._context.outcomes.release()
            for lane in self._lanes.by_name.values():
                lane.reopen()
            await self._round(again=True)

    def drop(self) -> None:
        """Forgets the rows that wait: they stay pending."""
        if self._pool is not None:
            for lane in self._lanes.by_name.values():
                self._pool.drop(lane)

    async def _round(self, *, again: bool) -> None:
        context = self._context
        async with anyio.create_task_group() as tasks:
            pool = self._pool = Pool(tasks, lambda work: journey(context, work))
            context.spawn, context.start = pool.spawn, tasks.start_soon
            tasks.start_soon(self._feed, pool, again)

    async def _feed(self, pool: Pool, again: bool) -> None:
        try:
            if again:
                await self._feeder.feed_again()
                return
            if self._on_start is not None:
                await self._on_start(self._control)
            if self._context.stopper.stop is None:
                await self._feeder.feed()
        finally:
            for lane in self._lanes.by_name.values():
                pool.close(lane)

    async def _put(self, lane: Lane, work: Work) -> None:
        """Hands a row to a lane of the present round."""
        assert self._pool is not None
        await self._pool.put(lane, work)


def _stands(source: Source, changes: Changes) -> Stands:
    comparison, rerun = changes.comparison, changes.rerun

    def stands(*, row_key: int, position: int, identity: str) -> bool:
        if not source.covers(position, identity):
            return False
        if comparison is None:
            return True
        gone = row_key in comparison.changed_failed or row_key in comparison.removed
        return not gone and not (rerun and row_key in comparison.changed_ok)

    return stands
