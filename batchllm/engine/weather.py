"""What faults say about the world beyond a row: a limit group that must pause, an endpoint that is down, a model that is refused for good.

Refusals and outages never touch a row (contract 3, "stop or go on"). The trap is the burst: sixty-four requests in flight all come back with the same refusal,
and it is one refusal; so what was sent before an episode began belongs to it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from batchllm.admit import LimitGroup, windows
from batchllm.admit.admission import Queue
from batchllm.admit.bucket import DayBucket
from batchllm.admit.charging import DAY
from batchllm.admit.finder import dimension_of
from batchllm.admit.windows import next_californian_midnight
from batchllm.core.clock import Clock
from batchllm.core.events import Listener, Note
from batchllm.core.nouns import Fault, Kind, LimitHint
from batchllm.engine.lane import Lane
from batchllm.engine.outage import FAULTS_IN_A_ROW
from batchllm.engine.stop import Stop, Stopper
from batchllm.retry.backoff import full_jitter
from batchllm.retry.decide import ModelOut, Refused
from batchllm.spec import RetrySpec

if TYPE_CHECKING:
    from batchllm.engine.attempt import Accepted, Rejected
    from batchllm.engine.work import Work

_SHAKY = frozenset({Kind.NETWORK, Kind.TIMEOUT, Kind.GATEWAY_TIMEOUT, Kind.BAD_GATEWAY})
"""Faults that count for a row, but that a dying endpoint gives too."""
_EXCUSES = 3
"""So often a fault of a row is taken for the endpoint's, once others got answers after the first of them."""
_PAID_EXCUSES = 8
"""So often a fault of a row that may have been paid for is taken for the endpoint's, over all runs: an endpoint that really hangs has many rows to be probed by."""
_NO_PROBE = frozenset({"budget", *DAY})
"""What keeps even a probe from being sent."""
_VAIN = 0.25
"""Of the first backoff, what is added to a hint after one that was obeyed in vain; doubled each time."""
_DOUBLINGS = 8
_JITTER = 0.1
"""On top of a server's hint: up to this part of it, and at most a second."""


class Weather:
    """One per run."""

    def __init__(
        self,
        *,
        clock: Clock,
        rng: random.Random,
        retry: RetrySpec,
        stopper: Stopper,
        listener: Listener,
        pump: Callable[[], None],
        evict: Callable[[Queue], None],
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._retry = retry
        self._stopper = stopper
        self._listener = listener
        self._pump = pump
        self._evict = evict

    def backoff(self, k: int) -> float:
        """Seconds of full jitter after `k` earlier waits."""
        return full_jitter(k, self._retry.initial_seconds, self._retry.max_seconds, self._rng)

    def came_through(self, lane: Lane, end: Accepted | Rejected, *, answered: bool) -> None:
        """The endpoint answered (`answered`: and the model did)."""
        if end.echo:
            return
        sent_at = end.sent_at
        if lane.outage.down:
            seconds = self._clock.now() - lane.outage.first_at
            self._listener(Note(level="info", text=f"{lane.label} is back after {_span(seconds)}"))
        lane.outage.over()
        lane.outage.alive_at = max(lane.outage.alive_at, sent_at)
        if answered:
            lane.answered = True
        if lane.adaptive and answered:
            self._pace(lane, lane.finder.passed(self._clock.now()))
        freed = False
        for group in lane.groups:
            if sent_at >= group.episode_at:
                freed = freed or group.probing
                group.probing = False
                group.went_well(self._clock.now())
                if group.pace < 1.0:
                    group.regrow(self._clock.now())
        if freed:
            self._pump()

    def _pace(self, lane: Lane, rate: float | None) -> None:
        """Requests a second that refusals taught."""
        if rate is not None:
            lane.own.set_rate("rpm", rate * 60, burst_seconds=lane.burst_seconds, now=self._clock.now())

    def hinted(self, lane: Lane, hints: Sequence[LimitHint]) -> None:
        """What response headers say: a limit that nobody declared, or that is lower than declared, is kept from now on."""
        now = self._clock.now()
        for hint in hints:
            told = dimension_of(hint)
            if told is None:
                continue
            if lane.finder.hint(*told):
                self._told(lane, *told, now)
            if hint.remaining is not None:
                lane.own.correct(told[0], float(hint.remaining), now)

    def _told(self, lane: Lane, dimension: str, limit: float, now: float) -> None:
        declared = getattr(lane.spec.limits, dimension)
        if declared is not None and limit >= declared:
            return
        if declared is not None:
            words = f"{lane.label}: the provider's {dimension} is {limit:,.0f}, not {declared:,}; keeping to that"
            self._listener(Note(level="warning", text=words))
        if dimension in DAY:
            # What was used of it, the header itself says.
            lane.own.set_day(DayBucket(dimension, limit=limit, now=now), now)
        else:
            lane.own.set_rate(dimension, limit, burst_seconds=lane.burst_seconds, now=now)

    def refused(self, lane: Lane, decision: Refused, end: Rejected) -> None:
        """The provider said "not now": its group pauses, once per burst, for the hint or a backoff of its own."""
        if end.echo:
            return
        now = self._clock.now()
        words = end.fault.message if end.fault is not None else ""
        hint = decision.wait_seconds
        if hint is None and decision.until_window:
            utc = self._clock.utc()
            hint = (next_californian_midnight(utc) if lane.charging.day == "california" else windows.DAY.end(utc)) - utc
        if hint is None:
            # Who says when to come back is alive: such refusals are no part of an outage that may follow.
            lane.outage.fault(now, words)
        for group in lane.blamed:
            first = group.refused(sent_at=end.sent_at, now=now, factor=0.5)
            group.paused_for = "rpd" if decision.until_window else "pause"
            if hint is not None:
                self._pause(lane, group, now, hint + self._in_vain(group.refusals - 1), words, say=first)
            elif first:
                group.pause(now + self.backoff(group.refusals - 1) + (self._retry.initial_seconds if decision.slower else 0.0))
            if first and decision.slower:
                group.slow(now)
            group.emptied(now, day=decision.until_window)
            if first and group is lane.own and lane.adaptive:
                self._pace(lane, lane.finder.refused(now))
        self._spread(lane)
        if hint is None and lane.outage.streak >= FAULTS_IN_A_ROW:
            # Two refusals are no outage, however seldom a limit lets anything out.
            self._watch(lane, now, "refuses every request")

    def _in_vain(self, times: int) -> float:
        """Seconds on top of a hint after hints that were obeyed and refused again: such hints are too short (they may not count the refused request itself), and
        asking at exactly the rate at which the bucket refills would be refused for ever.
        """
        if times < 1:
            return 0.0
        return min(self._retry.max_seconds / 2, self._retry.initial_seconds * _VAIN * (1 << min(times - 1, _DOUBLINGS)))

    def _pause(self, lane: Lane, group: LimitGroup, now: float, hint: float, words: str, *, say: bool) -> None:
        wait = hint + self._rng.uniform(0.0, min(1.0, hint * _JITTER))
        if wait > self._retry.max_seconds:
            # Too long to sit out on the server's word alone: one probe goes out every max_seconds.
            wait = self._retry.max_seconds
            group.probing = True
            if say:
                self._listener(
                    Note(
                        level="warning",
                        text=f"{lane.label}: the provider asks for a pause of {_span(hint)} ({words}); trying once every {_span(wait)}",
                    )
                )
        group.pause(now + wait)

    def down(self, lane: Lane, wait: float | None, end: Rejected) -> None:
        """The endpoint is unreachable or overloaded. Some such faults are noise; a row of them is an outage."""
        if end.echo:
            return
        now = self._clock.now()
        words = end.fault.message if end.fault is not None else ""
        lane.outage.fault(now, words, late=end.fault is not None and end.fault.kind is Kind.TIMEOUT)
        straggler = end.sent_at < lane.own.episode_at
        if wait is not None:
            for group in lane.blamed:
                self._pause(lane, group, now, wait, words, say=group.refused(sent_at=end.sent_at, now=now, factor=0.8))
        elif end.fault is not None and end.fault.kind is Kind.OVERLOAD:
            lane.own.refused(sent_at=end.sent_at, now=now, factor=0.8)
        self._maybe_outage(lane, now, straggler=straggler)

    def excuses(self, lane: Lane, work: Work, fault: Fault) -> bool:
        """Whether a fault that would count for its row is the outage's; to be asked once for each. Not for ever: when all other rows have come to their ends, those
        that hang by themselves are alone and look like an outage, and each time may be paid for. So none is excused more than `_PAID_EXCUSES` times.
        """
        if not lane.outage.down or work.suspect or fault.kind not in _SHAKY:
            return False
        if fault.kind is not Kind.BAD_GATEWAY:
            work.paid_excuses += 1
            if work.paid_excuses > _PAID_EXCUSES:
                work.suspect = True
                return False
        if work.excused_at is None:
            work.excused_at = self._clock.now()
        work.excused += 1
        if work.excused > _EXCUSES and lane.outage.alive_at > work.excused_at:
            work.suspect = True
            return False
        return True

    def blames(self, lane: Lane, work: Work, fault: Fault) -> bool:
        """Whether a gateway that finds nobody behind it does so for this row alone: others got their answers since it was first told so. Such a row must come to
        its own end, or it would be asked for ever.
        """
        if fault.kind is not Kind.BAD_GATEWAY or lane.outage.down:
            return False
        if work.gateway_at is None:
            work.gateway_at = self._clock.now()
        return lane.outage.alive_at > work.gateway_at

    def shaky(self, lane: Lane, work: Work, end: Rejected) -> None:
        """A fault that counts for its row, and may be the first sign of an outage."""
        if end.echo:
            return
        if end.fault is None or end.fault.kind not in _SHAKY:
            lane.outage.over()
            return
        now = self._clock.now()
        if work.suspect or end.sent_at <= lane.outage.alive_at:
            # Others got their replies meanwhile: it is the row that hangs or breaks, and it must come to its own end.
            work.suspect = True
            return
        lane.outage.fault(now, end.fault.message, late=end.fault.kind is Kind.TIMEOUT, row_key=work.row_key)
        self._maybe_outage(lane, now, straggler=end.sent_at < lane.own.episode_at)

    def _maybe_outage(self, lane: Lane, now: float, *, straggler: bool) -> None:
        outage = lane.outage
        if not outage.down:
            if outage.streak < FAULTS_IN_A_ROW:
                return
            outage.down = True
            lane.own.probing = True
            lane.own.episode_at = now
            moving = self._retry.on_outage == "fallback"
            what = "its rows move on along their chain" if moving else "its rows wait"
            self._listener(Note(level="warning", text=f"{lane.label} is down ({outage.words}); {what}, one probe at a time"))
            if moving:
                self._evict(lane.queue)
            else:
                self._spread(lane)
        elif straggler and outage.probes:
            return  # a straggler of the burst before the probes
        outage.probes += 1
        lane.own.episode_at = now
        lane.own.pause(now + max(self.backoff(outage.probes - 1), self._retry.initial_seconds / 2))
        self._watch(lane, now, "is down")

    def _spread(self, lane: Lane) -> None:
        """Who waits for a key that is of no use now may go by another one."""
        if len(lane.keys) > 1:
            self._evict(lane.queue)

    def _watch(self, lane: Lane, now: float, what: str) -> None:
        outage = lane.outage
        if lane.outage.down and self._retry.on_outage == "fallback" and not lane.queue.waiters:
            return  # whoever could go elsewhere went; only rows that can't are still at the door
        if not outage.streak or any(not key.outage.streak and key.out is None for key in lane.keys):
            return  # another key works
        # A fault of another key, however old this one's trouble is, begins a trouble of the model only then.
        since = max(key.outage.first_at for key in lane.keys if key is lane or key.out is None)
        if now - since >= self._retry.outage_seconds:
            step = "run again when it is back" + (", or raise retry.timeout_seconds if these rows need longer" if outage.late else "")
            words = f"{lane.label} {what} for {_span(now - since)} ({outage.words}); no row failed by it - {step}"
            self._stopper.set(Stop(exit_code=4, stopped_by="outage", message=words))

    def check(self, lane: Lane) -> None:
        """Looked at now and then: an outage ends a run also while nobody probes - unless nobody may, for a budget or a day's limit: then its time stands still."""
        outage, now = lane.outage, self._clock.now()
        since, outage.looked_at = outage.looked_at, now
        if outage.down:
            if any(key.queue.waiters and key.queue.blocked_by in _NO_PROBE for key in lane.keys):
                outage.first_at += now - max(since, outage.first_at)
            self._watch(lane, now, "is down")

    def model_out(self, lane: Lane, decision: ModelOut) -> None:
        """Refused for good. One that never answered here means a wrong key, name or account: the run stops before it does harm."""
        if lane.out is not None:
            return
        lane.out = decision.reason
        if not lane.is_out:
            self._listener(Note(level="warning", text=f"{lane.label} is out for this run, other keys go on: {decision.reason}"))
            self._spread(lane)
        elif any(key.answered for key in lane.keys):
            self._listener(Note(level="warning", text=f"{lane.name} is out for this run: {decision.reason}"))
        else:
            self._stopper.set(Stop(exit_code=4, stopped_by="provider", message=f"{lane.name}: {decision.reason}"))
        self._pump()


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
