"""What rows ask for, and who has the answer already: a row that asks the same (a twin), or another job (the cache)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import anyio.to_thread

from batchllm.core.nouns import Row, RowError
from batchllm.engine.caching import Caching
from batchllm.engine.lane import Lane
from batchllm.engine.source import Planned, Source, duplicate
from batchllm.engine.twin_keys import Twin, TwinKeys
from batchllm.engine.twins import Shared
from batchllm.engine.work import Work
from batchllm.store.cache import CachedAnswer
from batchllm.store.records import Known
from batchllm.store.twins import Found, asked_anew, error_of, load_twins

if TYPE_CHECKING:
    from batchllm.engine.context import Context


class Asks(NamedTuple):
    """What a row of the present chunk asks for, where rows may share answers."""

    planned: Planned | RowError
    twin: Twin | None
    found: Found | None
    """An outcome in the store that it may share."""
    cached: CachedAnswer | None = None
    """An answer that another job had."""


class Asking:
    """One per run."""

    def __init__(self, run: Context, source: Source, lanes: Mapping[str, Lane], *, inline: bool) -> None:
        self._run = run
        self._source = source
        self._lanes = lanes
        self._inline = inline
        self._keys = TwinKeys(run.spec, list(lanes.values()), run.ladder, reads_rows=run.answers.keeps_fields)

    @property
    def applies(self) -> bool:
        """Whether a row of this job may have another one's answer at all."""
        return self._keys.apply or self._run.outcomes.caching is not None

    async def has_answer(self, work: Work, row: Row, planned: Planned, asks: Asks) -> bool:
        """Whether the row need not be sent now: it has an answer, or waits for one that is under way."""
        if asks.twin is None:
            return self._reuses(work, row, planned, asks.cached)
        work.twin = asks.twin.key
        work.fingerprint = (self._lanes[planned.chain[0]], asks.twin.fingerprint)
        return await self._shares(work, asks.twin, asks.found, lambda: self._reuses(work, row, planned, asks.cached))

    def _planned(self, row: Row, one: Known) -> Planned | RowError:
        is_repeat = one.nth > 1 and row.identity.startswith("id:")
        return duplicate(row) if is_repeat else self._source.plan(row, one.pin)

    async def plan(self, row: Row, one: Known) -> Planned | RowError:
        """What the row asks for; where rows attach files, off the loop: they are read to be told apart."""
        if self._inline or not self._source.drafter.attaches:
            return self._planned(row, one)
        return await anyio.to_thread.run_sync(self._planned, row, one)

    async def asks(self, todo: Sequence[tuple[Row, Known]]) -> dict[int, Asks]:
        """By row key, what rows that are to be handed on ask for; empty where no row can share another's answer."""
        keys, caching = self._keys, self._run.outcomes.caching
        if not todo or not (keys.apply or caching is not None):
            return {}
        planned = [(one.row_key, await self.plan(row, one)) for row, one in todo]
        twins: dict[int, Twin] = {}
        for row_key, plan in planned:
            if not isinstance(plan, RowError) and keys.apply:
                twin = keys.of(plan.draft, tuple(self._lanes[name] for name in plan.chain))
                if twin is not None:
                    twins[row_key] = twin
        found: dict[bytes, Found] = {}
        wanted = {twin.key: None for twin in twins.values()}
        self._run.outcomes.twins.expect(wanted)
        if wanted:
            found = await self._run.writer.call(lambda connection: load_twins(connection, list(wanted)))
        asks = {row_key: Asks(plan, twins.get(row_key), found.get(twins[row_key].key) if row_key in twins else None) for row_key, plan in planned}
        return asks if caching is None else await self._with_cached(caching, asks)

    async def _with_cached(self, caching: Caching, asks: dict[int, Asks]) -> dict[int, Asks]:
        cache_keys: dict[int, bytes] = {}
        for row_key, one in asks.items():
            if one.found is None and isinstance(one.planned, Planned):
                lane = self._lanes[one.planned.chain[0]]
                key = caching.key(lane, one.planned.draft, one.twin.fingerprint if one.twin is not None else None)
                if key is not None:
                    cache_keys[row_key] = key
        cached = await caching.find(set(cache_keys.values()))
        hits = [row_key for row_key, key in cache_keys.items() if key in cached]
        if hits:
            for row_key in await self._run.writer.call(lambda connection: asked_anew(connection, hits)):
                del cache_keys[row_key]
        return {row_key: one._replace(cached=cached.get(cache_keys[row_key]) if row_key in cache_keys else None) for row_key, one in asks.items()}

    def _reuses(self, work: Work, row: Row, planned: Planned, cached: CachedAnswer | None) -> bool:
        """Whether the row has the answer of another job."""
        caching = self._run.outcomes.caching
        if cached is None or caching is None:
            return False
        good, parsed = caching.read(cached, row.fields)
        if good:
            lane = self._lanes[planned.chain[0]]
            assert work.draft is not None
            self._run.outcomes.reuse(work, lane, work.fingerprint_of(lane, lane.request(work.draft)), cached, parsed, caching.source(cached))
        return good

    async def _shares(self, work: Work, twin: Twin, found: Found | None, reuses: Callable[[], bool]) -> bool:
        """Whether the row has an outcome of another one, or waits for one; else it leads those that come after it."""
        outcomes = self._run.outcomes
        twins = outcomes.twins
        if twins.is_open(twin.key):
            await twins.room(outcomes.release)
            if self._run.stopper.stop is not None:
                return True
        if twins.is_open(twin.key):
            twins.follow(work)
            return True
        dear = twins.aside(twin.key)
        if dear is not None:
            self._run.too_dear(work, dear)
            return True
        shared = twins.known(twin.key)
        if shared is None and found is not None:
            answer = found.answer
            shared = Shared(answer, found.custom_id or str(answer.row_key), found.model, error_of(answer))
        if shared is None:
            if reuses():
                return True
            twins.lead(work)
            return False
        outcomes.share(work, shared)
        return True
