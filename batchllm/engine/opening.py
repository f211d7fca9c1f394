"""What a run opens before its first request: the store, as soon as it may have it, with failed rows put back; and the cache of other jobs' answers."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from aiolimiter import AsyncLimiter

from batchllm.core.errors import StoreBusy
from batchllm.core.events import Note
from batchllm.engine.access import Access
from batchllm.engine.answers import Answers
from batchllm.engine.caching import Caching
from batchllm.engine.deps import Deps
from batchllm.engine.source import Source
from batchllm.spec import JobSpec
from batchllm.store import Store
from batchllm.store.cache import AnswerCache, CacheProblem, cache_path
from batchllm.store.store import keys_where, reopen

_LOCK_SECONDS = 0.5


async def open_store(spec: JobSpec, path: Path, *, version: str, now_utc: float, waits: bool) -> Store:
    """The store. `waits`: until another run has left it; else raises StoreBusy."""
    asking = AsyncLimiter(1, _LOCK_SECONDS)
    while True:
        # Asked for again and again instead of waiting in the kernel: so Ctrl-C is heard.
        await asking.acquire()
        try:
            return Store.open(
                path,
                name=spec.name,
                spec_text=spec.text,
                spec_path=str(spec.path) if spec.path is not None else None,
                folder=str(spec.folder),
                version=version,
                now_utc=now_utc,
                durability=spec.durability,
            )
        except StoreBusy:
            if not waits:
                raise


def put_back(store: Store, codes: frozenset[str], source: Source, *, now_utc: float) -> None:
    """Failed rows are pending again (`--retry-failed`): those that failed with these codes, all where none is named; what this run leaves out keeps its outcome."""

    def covers(connection: sqlite3.Connection, row_key: int) -> bool:
        position, identity = connection.execute("SELECT row, identity FROM rows WHERE row_key = ?", (row_key,)).fetchone()
        return source.covers(position, identity)

    def work(connection: sqlite3.Connection) -> None:
        marks = ", ".join("?" * len(codes))
        where = f"status = 'failed' AND error_code IN ({marks})" if codes else "status = 'failed'"
        keys = keys_where(connection, where, sorted(codes))
        reopen(connection, [key for key in keys if covers(connection, key)], reason="retry", now_utc=now_utc, changed=False)

    store.transaction(work)


def open_cache(spec: JobSpec, deps: Deps, access: Mapping[str, Access], answers: Answers, *, job_id: str) -> Caching | None:
    """The answers of other jobs, where the job wants them. A cache that can't be opened is told of, and the run goes on without it."""
    if spec.cache is False:
        return None
    path = cache_path(spec.cache, deps.environ, spec.folder)
    try:
        if path is None:
            raise CacheProblem("there is no home folder to keep it in; name a file: cache: answers.db")  # noqa: TRY301 - one way out for all problems
        cache = AnswerCache(path)
    except CacheProblem as problem:
        deps.listener(Note(level="warning", text=f"this run has no cache: {problem}"))
        return None
    bases = {name: reach.base_url for name, reach in access.items()}
    return Caching(cache, spec, job_id=job_id, bases=bases, answers=answers, listener=deps.listener, inline=deps.inline)
