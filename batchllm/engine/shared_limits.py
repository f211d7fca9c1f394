"""What runs on one account have in common: a model of it, or a limit group - with its buckets and slots, and how much of them this run uses.

The trap is a rate that refusals taught: it is what passes beside the others, not the account's limit, so it is never divided.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

from batchllm.admit import Bucket, LimitGroup
from batchllm.engine.access import Access
from batchllm.engine.lane import Lane
from batchllm.engine.lanes import Lanes
from batchllm.share import Account, Grant, account_of
from batchllm.share.split import split_whole

if TYPE_CHECKING:
    from batchllm.spec import JobSpec

_MEMORY_SECONDS = 3.0
"""What was used, or held up, so long ago still counts as wanted."""
_SOME_SECONDS = 0.5
"""Shorter measurements say nothing."""
ROOM = 1.25
"""On top of what a run uses, so that it can grow."""
RATES = ("rpm", "tpm", "itpm", "otpm")
SLOTS = "concurrency"
NOTHING = 1e-9
"""Of a limit: so little that nothing passes. (A rate of 0 would divide by it.)"""


class Meter:
    """How fast one limit is used, and whether it holds its run up."""

    __slots__ = ("_held_up_at", "_marks")

    def __init__(self, now: float) -> None:
        self._marks: deque[tuple[float, float]] = deque()
        # Nobody knows yet: as much as there is.
        self._held_up_at = now

    def look(self, now: float, used: float, *, held_up: bool) -> None:
        """Takes a reading of the sum of all that was used so far."""
        self._marks.append((now, used))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _MEMORY_SECONDS:
            self._marks.popleft()
        if held_up:
            self._held_up_at = now

    def want(self, now: float) -> float | None:
        """Per minute; None: as much as there is."""
        then, used = self._marks[0]
        if now - self._held_up_at < _MEMORY_SECONDS or now - then < _SOME_SECONDS:
            return None
        return max(0.0, (self._marks[-1][1] - used) / (now - then) * 60 * ROOM)


class Pool:
    """One model of an account, or one limit group: what different runs have in common."""

    __slots__ = ("account", "group_name", "groups", "key", "lanes")

    def __init__(self, key: str, account: Account, lanes: list[Lane], groups: list[LimitGroup], group_name: str | None) -> None:
        self.key = key
        self.account = account
        self.lanes = lanes
        """Who uses it."""
        self.groups = groups
        self.group_name = group_name
        """The limit group's name; None: a model's own limits."""


def pools_of(lanes: Lanes, access: Mapping[str, Access]) -> tuple[list[Pool], list[Account]]:
    """What this run may have in common with others, and the accounts behind it. Simulated models have no account."""
    accounts: dict[Lane, Account] = {}
    pools: dict[str, Pool] = {}
    ways = [(lane, way) for name, first in lanes.by_name.items() for lane, way in zip(first.keys, access[name].each, strict=True)]
    for lane, reach in ways:
        if lane.simulated:
            continue
        account = accounts[lane] = account_of(lane.spec.provider, reach.base_url, reach.key, reach.headers)
        key = f"{account.digest}/model:{lane.spec.model}"
        pool = pools.setdefault(key, Pool(key, account, [], [], None))
        pool.lanes.append(lane)
        pool.groups.append(lane.own)
    for name, group in lanes.groups.items():
        members = [lane for lane in accounts if group in lane.groups]
        if members:
            digests = sorted({accounts[lane].digest for lane in members})
            # A group over several accounts is one of its own.
            digest = digests[0] if len(digests) == 1 else sha256(" ".join(digests).encode()).hexdigest()[:16]
            key = f"{digest}/group:{name}"
            pools[key] = Pool(key, accounts[members[0]], members, [group], name)
    return list(pools.values()), list({account.digest: account for account in accounts.values()}.values())


def known_buckets(pool: Pool, name: str) -> list[tuple[LimitGroup, Bucket]]:
    """The buckets of a limit that was declared, or told by headers: not those of what refusals taught."""
    found = []
    for index, group in enumerate(pool.groups):
        if pool.group_name is None:
            lane = pool.lanes[index]
            if getattr(lane.spec.limits, name) is None and name not in lane.finder.told:
                continue
        found += [(group, bucket) for bucket in group.buckets if bucket.dimension == name and not bucket.per_day]
    return found


def set_part(group: LimitGroup, name: str, part: float, now: float, *, empty: bool) -> None:
    """This run's part of a limit from now on; `empty`: nothing of it is saved up."""
    for bucket in group.buckets:
        if bucket.dimension == name and not bucket.per_day:
            bucket.set_part(part, now)
            if empty:
                bucket.lower(0.0, now)


def slots_of(pool: Pool, spec: JobSpec) -> tuple[float, float] | None:
    """Declared slots of the pool: (of all runs together, the most of this one)."""
    if pool.group_name is not None:
        declared = spec.limit_groups[pool.group_name].concurrency
        return None if declared is None else (float(declared), pool.groups[0].slots_max)
    own = [lane.spec.limits.concurrency for lane in pool.lanes]
    total = float(sum(slots for slots in own if slots is not None))
    return None if None in own else (total, total)


def set_slots(pool: Pool, grant: Grant) -> bool:
    """This run's slots from now on, over all groups of the pool; whether that is news."""
    if grant.others == 0:
        parts = [math.inf] * len(pool.groups)
    else:
        mosts = [min(group.slots_max, grant.part) for group in pool.groups]
        parts = [float(part) for part in split_whole(int(grant.part), mosts, mosts)]
    changed = parts != [group.slots_part for group in pool.groups]
    for group, part in zip(pool.groups, parts, strict=True):
        group.slots_part = part
    return changed


def held_up(pool: Pool, name: str) -> bool:
    """Whether requests wait for this limit."""
    return any(lane.queue.waiters and lane.queue.blocked_by == name for lane in pool.lanes)
