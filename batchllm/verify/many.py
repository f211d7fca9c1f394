"""Many seeds, on as many processes as asked for: each seed is on its own, so all that is shared is the list of what is left."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator

from batchllm.verify.one import Verdict, verify

_AT_ONCE = 4


def _one(task: tuple[int, int]) -> Verdict:
    seed, rows = task
    return verify(seed, rows=rows)


def verify_many(seeds: Iterable[int], *, rows: int = 200, jobs: int = 1) -> Iterator[Verdict]:
    """The verdicts as they come, in any order when several processes work."""
    if jobs <= 1:
        for seed in seeds:
            yield verify(seed, rows=rows)
        return
    # A fresh interpreter each: a fork would take along whatever threads and locks the caller has.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, maxtasksperchild=500) as pool:
        yield from pool.imap_unordered(_one, ((seed, rows) for seed in seeds), chunksize=_AT_ONCE)
