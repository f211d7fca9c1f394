"""Keeps the limits of an account together with the other runs of this machine: what this run wants goes out once a second, what it may have comes back.

What is shared: the declared limits of a model (found ones as far as headers told them) among all runs that ask the same model of the same account, and those of
a limit group among all runs that name such a group on the same account. Alone, nothing changes: a run's part is then the whole. What refusals taught is each run's
own, as it is what passes beside the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchllm.admit import Allowance
from batchllm.core.events import Note
from batchllm.engine.access import Access
from batchllm.engine.lanes import Lanes
from batchllm.engine.shared_days import SharedDays
from batchllm.engine.shared_limits import NOTHING, RATES, ROOM, SLOTS, Meter, Pool, held_up, known_buckets, pools_of, set_part, set_slots, slots_of
from batchllm.share import Claim, DayLedger, Grant, Seat
from batchllm.share.seat import Busy

if TYPE_CHECKING:
    from batchllm.engine.context import Context

_BEAT_SECONDS = 1.0
_BEATS_A_LEASE = 20
"""After so many, money that was leased and isn't needed goes back."""
_SHORT_SECONDS = 0.1
"""Between two looks of a run that has less than its part: the others let go of it within a second."""
_BUSY_SECONDS = 10.0
"""So long a lock that others hold for a millisecond is waited for."""


class Sharing:
    """One per run. `join` before the first request, `run` beside the work, `leave` at the end."""

    def __init__(
        self, *, folder: Path, context: Context, lanes: Lanes, access: Mapping[str, Access], store: Path, pid: int, since_utc: float
    ) -> None:
        self._folder = folder
        self._context = context
        self._pools, self._accounts = pools_of(lanes, access)
        self._meters: dict[str, Meter] = {}
        self._caps = _day_caps(self._pools, lanes, folder, context.job_id)
        self._days = SharedDays(folder, self._pools, context.job_id, context.clock)
        self._others = 0
        self._beats = 0
        self._seat: Seat | None = None
        self._told = False
        self._refused: set[str] = set()
        """Caps whose ledger can't be written, as was said once."""
        self._heard = False
        """Whether the others could be asked at least once."""
        self._busy_since: float | None = None
        self._info = {"job": context.spec.name, "store": str(store), "pid": pid, "since": since_utc}
        self.state: Callable[[], dict[str, Any]] = dict
        """Where the run stands, for `batchllm jobs`."""

    def join(self) -> None:
        """Takes a place among the runs. Never fails: where there can be none, the run is alone and says so."""
        try:
            self._seat = Seat(self._folder, {**self._info, "accounts": [account.as_dict() for account in self._accounts]})
        except OSError as error:
            self._alone(error)
            return
        self._open_ledgers()
        self._look_at_days()
        self._beat(first=True)

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        short = True
        while self._seat is not None:
            await asyncio.sleep(_SHORT_SECONDS if short else _BEAT_SECONDS)
            self._look_at_days()
            short = self._beat()

    def leave(self) -> None:
        """Gives the place back: the others have its part within a second, and all money that wasn't used."""
        if self._seat is None:
            return
        for cap, ledger in self._caps:
            cap.purse.leave()
            # What can't be given back is lost to the others for the day, no more.
            with contextlib.suppress(Busy, OSError):
                ledger.settle(cap.starts_utc, used=cap.purse.spent_pico + cap.purse.reserved_pico)
        self._look_at_days()
        self._seat.leave()
        self._seat = None

    def _look_at_days(self) -> None:
        try:
            self._days.look()
        except Busy:
            pass  # a second later will do
        except OSError as error:
            if not self._told:
                self._told = True
                self._say("warning", f"{error.filename or self._folder}: {error.strerror}; what other runs use of the limits per day is not seen")

    # Money.

    def _open_ledgers(self) -> None:
        """From now on a group's dollars of the day are leased before they are reserved."""
        for cap, ledger in self._caps:
            try:
                ledger.settle(cap.starts_utc, used=cap.purse.spent_pico + cap.purse.reserved_pico)
            except Busy:
                pass  # an old lease is too much, never too little
            except OSError as error:
                self._say("warning", f"{error.filename or self._folder}: {error.strerror}; {cap.name} is kept for this job alone")
                continue
            cap.purse.lender = partial(self._lend, cap, ledger)

    def _lend(self, cap: Allowance, ledger: DayLedger, cap_pico: int, used: int, need: int) -> int:
        assert cap.group is not None
        share = self._context.spec.limit_groups[cap.group].share
        try:
            return ledger.lease(cap.starts_utc, cap=cap_pico if share == 1 else int(cap_pico / share), used=used, need=need)
        except Busy:
            return used
        except OSError as error:
            if cap.name not in self._refused:
                self._refused.add(cap.name)
                self._say("warning", f"{error.filename or self._folder}: {error.strerror}; no more of {cap.name} can be had")
            return used

    # Rates and slots.

    def _alone(self, error: OSError) -> None:
        level, what = ("warning", ", so limits are not shared") if self._pools else ("info", "")
        self._say(level, f"{self._folder}: {error.strerror}; other runs don't see this one{what} (BATCHLLM_STATE names another folder)")
        if self._seat is not None:
            self._seat.leave()
            self._seat = None
        for cap, _ in self._caps:
            cap.purse.lender = None
        self._whole()

    def _say(self, level: Any, text: str) -> None:
        self._context.listener(Note(level=level, text=text))

    def _beat(self, *, first: bool = False) -> bool:
        """One word to the others, and one of theirs. Whether this run should ask again soon."""
        assert self._seat is not None
        now = self._context.clock.now()
        self._beats += 1
        if self._beats % _BEATS_A_LEASE == 0:
            for cap, _ in self._caps:
                cap.purse.give_back()
        claims = self._claims(now)
        try:
            grants = self._seat.beat(now, claims, self.state())
        except Busy:
            return self._wait(now, first=first)
        except OSError as error:
            if first:
                self._alone(error)
            elif not self._told:
                self._told = True
                self._say("warning", f"{self._folder}: {error.strerror}; this run keeps to its present part of the limits it shares with other runs")
            return False
        self._busy_since, self._told, self._heard = None, False, True
        return self._take(now, grants, first=first)

    def _wait(self, now: float, *, first: bool) -> bool:
        """Somebody has the lock. A newcomer sends nothing until it knows its part, but doesn't wait for a process that is stopped with the lock in its hands."""
        if first:
            for pool in self._pools:
                for name in RATES:
                    for group, _ in known_buckets(pool, name):
                        set_part(group, name, NOTHING, now, empty=True)
                for group in pool.groups:
                    group.slots_part = 0
        if self._busy_since is None:
            self._busy_since = now
        elif not self._heard and now - self._busy_since >= _BUSY_SECONDS:
            self._alone(TimeoutError(0, "another process doesn't let go of the lock on it"))
            return False
        return True

    def _claims(self, now: float) -> dict[str, Claim]:
        claims: dict[str, Claim] = {}
        for pool in self._pools:
            for name in RATES:
                claim = self._rate_claim(pool, name, now)
                if claim is not None:
                    claims[f"{pool.key}/{name}"] = claim
            slots = slots_of(pool, self._context.spec)
            if slots is not None:
                busy = sum(group.in_flight for group in pool.groups)
                key = f"{pool.key}/{SLOTS}"
                meter = self._meters.setdefault(key, Meter(now))
                meter.look(now, 0.0, held_up=held_up(pool, SLOTS))
                want = None if meter.want(now) is None else float(math.ceil(busy * ROOM) + 1)
                claims[key] = Claim(limit=slots[0], most=slots[1] if slots[1] < slots[0] else None, want=want, held=float(busy), whole=True)
        return claims

    def _rate_claim(self, pool: Pool, name: str, now: float) -> Claim | None:
        known = known_buckets(pool, name)
        if not known:
            # What other runs know of this limit holds for this one, too, unless its spec says otherwise.
            curious = pool.group_name is None and any(lane.adaptive for lane in pool.lanes)
            return Claim(limit=None) if curious else None
        key = f"{pool.key}/{name}"
        meter = self._meters.setdefault(key, Meter(now))
        meter.look(now, sum(bucket.used for _, bucket in known), held_up=held_up(pool, name))
        own = math.fsum(bucket.per_minute for _, bucket in known)
        share = 1.0 if pool.group_name is None else self._context.spec.limit_groups[pool.group_name].share
        return Claim(limit=own / share, most=own if share < 1 else None, want=meter.want(now))

    def _take(self, now: float, grants: Mapping[str, Grant], *, first: bool) -> bool:
        short = changed = False
        others = 0
        for pool in self._pools:
            for name in RATES:
                grant = grants.get(f"{pool.key}/{name}")
                if grant is not None:
                    others = max(others, grant.others)
                    short = short or grant.part < grant.target * 0.99
                    changed = self._pace(pool, name, grant, now, first=first) or changed
            grant = grants.get(f"{pool.key}/{SLOTS}")
            if grant is not None:
                others = max(others, grant.others)
                short = short or grant.part < grant.target
                changed = set_slots(pool, grant) or changed
        if others > self._others:
            which = ", ".join(sorted({f"{pool.account.provider} ({pool.account.host})" for pool in self._pools}))
            runs = "another run" if others == 1 else f"{others} other runs"
            self._say(
                "info",
                f"{runs} on this machine use{'s' if others == 1 else ''} the same account at {which}: its limits are shared (see `batchllm jobs`)",
            )
        self._others = others
        if changed and not first:
            self._context.admission.pump()
        return short

    def _pace(self, pool: Pool, name: str, grant: Grant, now: float, *, first: bool) -> bool:
        known = known_buckets(pool, name)
        if not known:
            curious = [lane for lane in pool.lanes if lane.adaptive]
            for lane in curious:
                # As if a header had said so.
                lane.finder.told[name] = grant.limit / len(curious)
                lane.own.set_rate(name, grant.limit / len(curious), burst_seconds=lane.burst_seconds, now=now)
            known = known_buckets(pool, name)
        own = math.fsum(bucket.per_minute for _, bucket in known)
        part = max(NOTHING, min(1.0, grant.part / own))
        newcomer = first and grant.others > 0
        # Buckets come and go (`set`, headers): what they are told is what counts.
        changed = [group for group, bucket in known if bucket.part != part or newcomer]
        for group in changed:
            # What others have used of a burst can't be used again: a newcomer begins with nothing saved up.
            set_part(group, name, part, now, empty=newcomer)
        return bool(changed)

    def _whole(self) -> None:
        """From now on as if there were no others."""
        now = self._context.clock.now()
        for pool in self._pools:
            for name in RATES:
                for group, _ in known_buckets(pool, name):
                    set_part(group, name, 1.0, now, empty=False)
            for group in pool.groups:
                group.slots_part = math.inf
        self._context.admission.pump()


def _day_caps(pools: list[Pool], lanes: Lanes, folder: Path, job_id: str) -> list[tuple[Allowance, DayLedger]]:
    """Caps per day of limit groups, each with the ledger that it has in common with other runs."""
    caps = [cap for cap in lanes.budgets.all(simulated=False) if cap.group is not None and cap.window is not None]
    keys = {pool.group_name: pool.key for pool in pools if pool.group_name is not None}
    return [(cap, DayLedger(folder, keys[cap.group], job_id)) for cap in caps if cap.group in keys]
