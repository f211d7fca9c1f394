"""The door: one place that lets requests pass, all dimensions at once, in the order in which they came.

Every model has a queue. Its head waits for all its groups (its own limits, declared groups, the whole run's slots) and for the purse; nothing is held while
it waits, and nobody behind it in its queue passes before it, so a large request is never starved. Heads of different queues pass each other, except where
an older head waits for a group that both need: that group is claimed for it. (aiolimiter wakes the smallest waiter first and can't give back: dependencies 3.1.)
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence

from batchllm.admit.group import LimitGroup
from batchllm.admit.purse import Purse
from batchllm.core.clock import Clock

# uvloop's timers have 1 ms and fire early: a shorter one would spin.
_TIMER_FLOOR_SECONDS = 0.002


class Closed(Exception):  # noqa: N818 - a state, not a fault
    """The run takes no more requests; raised to whoever waits at the door."""


class Evicted(Exception):  # noqa: N818 - a state, not a fault
    """The line was sent away: its model is down and the rows may try another one."""


class Lease:
    """What one passing request holds, from admission to its end. `end` must be called exactly once."""

    __slots__ = ("_admission", "_queue", "amounts", "ended", "pico", "sent_at")

    def __init__(self, admission: Admission, queue: Queue, amounts: dict[str, float], pico: int, now: float) -> None:
        self._admission = admission
        self._queue = queue
        self.amounts = amounts
        self.pico = pico
        self.sent_at = now
        self.ended = False

    def end(self, *, used: dict[str, float] | None, cost_pico: int | None, maybe: bool) -> None:
        """Settles: `used` is what the provider really charged per dimension (a missing one was charged as reserved); `maybe` keeps the money reserved."""
        if self.ended:
            raise RuntimeError("a lease ends once")
        self.ended = True
        back = {name: self.amounts[name] - amount for name, amount in used.items() if name in self.amounts} if used else None
        self._admission.release(self._queue, back, self.pico, cost_pico=cost_pico, maybe=maybe)


class _Waiter:
    __slots__ = ("amounts", "future", "pico", "ticket")

    def __init__(self, ticket: int, amounts: dict[str, float], pico: int, future: asyncio.Future[Lease]) -> None:
        self.ticket = ticket
        self.amounts = amounts
        self.pico = pico
        self.future = future


class Queue:
    """One model's line at the door."""

    def __init__(self, groups: Sequence[LimitGroup], purse: Purse) -> None:
        self.groups = tuple(groups)
        self.purse = purse
        self.waiters: deque[_Waiter] = deque()
        self.blocked_by: str | None = None
        """Why its head waits: a dimension, `concurrency`, `pause` or `budget`."""


class Admission:
    """`on_broke` is called when a head can't be paid for and no money is in flight that could come back."""

    def __init__(self, clock: Clock, *, on_broke: Callable[[], None]) -> None:
        self._clock = clock
        self._on_broke = on_broke
        self._queues: list[Queue] = []
        self._claimed: set[LimitGroup] = set()
        self._ticket = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._pumping = False

    def queue(self, groups: Sequence[LimitGroup], purse: Purse) -> Queue:
        """A new line, for one model."""
        queue = Queue(groups, purse)
        self._queues.append(queue)
        return queue

    @property
    def waiting(self) -> int:
        """Requests at the door."""
        return sum(len(queue.waiters) for queue in self._queues)

    def ticket(self) -> int:
        """A place in the order of arrival; a row keeps its own for its further tries."""
        self._ticket += 1
        return self._ticket

    async def reserve(self, queue: Queue, amounts: dict[str, float], pico: int, *, ticket: int | None = None) -> Lease:
        """Waits its turn: by `ticket`, or behind everybody. Raises Closed when the run takes no more requests, Evicted when the line is sent away."""
        if self._closed:
            raise Closed
        if not queue.waiters and self._claimed.isdisjoint(queue.groups):
            now = self._clock.now()
            if self._short(queue, amounts, pico, now) is None:
                return self._pass(queue, amounts, pico, now)
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(self.ticket() if ticket is None else ticket, amounts, pico, future)
        _take_place(queue.waiters, waiter)
        if queue.waiters[0] is waiter:
            self.pump()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                # Granted and cancelled in the same moment: nothing was sent, everything goes back.
                lease = future.result()
                lease.end(used=dict.fromkeys(lease.amounts, 0.0), cost_pico=None, maybe=False)
            else:
                if waiter in queue.waiters:
                    queue.waiters.remove(waiter)
                self.pump()
            raise

    def release(self, queue: Queue, back: dict[str, float] | None, pico: int, *, cost_pico: int | None, maybe: bool) -> None:
        """Ends a lease (called by it)."""
        now = self._clock.now()
        for group in queue.groups:
            group.end(back, now)
        queue.purse.settle(pico, cost_pico=cost_pico, maybe=maybe)
        if not self._pumping and any(other.waiters for other in self._queues):
            # Not at once: a refusal frees its place before its pause is set, and the next one must not slip out in between.
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump_soon)

    def _pump_soon(self) -> None:
        self._pumping = False
        self.pump()

    def evict(self, queue: Queue) -> None:
        """Sends a line away; who can't go elsewhere may queue up again."""
        while queue.waiters:
            waiter = queue.waiters.popleft()
            if not waiter.future.done():
                waiter.future.set_exception(Evicted())
        queue.blocked_by = None
        self.pump()

    def close(self) -> None:
        """From now on nobody passes; everybody who waits is told."""
        self._closed = True
        for queue in self._queues:
            while queue.waiters:
                waiter = queue.waiters.popleft()
                if not waiter.future.done():
                    waiter.future.set_exception(Closed())
        self._disarm()

    def _short(self, queue: Queue, amounts: dict[str, float], pico: int, now: float) -> tuple[str, float, LimitGroup | None] | None:
        """What keeps a request out: (reason, seconds, the group), the group only when it alone is short."""
        found: tuple[str, float, LimitGroup | None] | None = None
        for group in queue.groups:
            short = group.short_of(amounts, now)
            if short is not None:
                found = (*short, group) if found is None else (*(short if short[1] > found[1] else found[:2]), None)
        if found is None and not queue.purse.fits(pico):
            return ("budget", math.inf, None)
        return found

    def _pass(self, queue: Queue, amounts: dict[str, float], pico: int, now: float) -> Lease:
        for group in queue.groups:
            group.take(amounts)
        queue.purse.hold(pico)
        return Lease(self, queue, amounts, pico, now)

    def pump(self) -> None:
        """Lets everybody pass who may now, oldest first, and sets the one timer for the next who may later."""
        if self._closed:
            return
        now = self._clock.now()
        self._claimed.clear()
        open_queues = [queue for queue in self._queues if queue.waiters]
        wake = math.inf
        broke = False
        while open_queues:
            queue = min(open_queues, key=_age) if len(open_queues) > 1 else open_queues[0]
            waiter = queue.waiters[0]
            if waiter.future.done():
                queue.waiters.popleft()
            elif not self._claimed.isdisjoint(queue.groups):
                open_queues.remove(queue)
                continue
            else:
                short = self._short(queue, waiter.amounts, waiter.pico, now)
                if short is not None:
                    reason, seconds, group = short
                    queue.blocked_by = reason
                    wake = min(wake, seconds)
                    if group is not None:
                        self._claimed.add(group)
                    broke = broke or (reason == "budget" and queue.purse.holders == 0)
                    open_queues.remove(queue)
                    continue
                queue.waiters.popleft()
                waiter.future.set_result(self._pass(queue, waiter.amounts, waiter.pico, now))
            if not queue.waiters:
                queue.blocked_by = None
                open_queues.remove(queue)
        self._arm(wake)
        if broke:
            self._on_broke()

    def _arm(self, wait: float) -> None:
        self._disarm()
        if math.isfinite(wait):
            self._timer = asyncio.get_running_loop().call_later(max(wait, _TIMER_FLOOR_SECONDS), self.pump)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _take_place(waiters: deque[_Waiter], waiter: _Waiter) -> None:
    if not waiters or waiters[-1].ticket < waiter.ticket:
        waiters.append(waiter)
        return
    # A row on its next try: its ticket is older than nearly all others.
    at = 0
    while waiters[at].ticket < waiter.ticket:
        at += 1
    waiters.insert(at, waiter)


def _age(queue: Queue) -> int:
    return queue.waiters[0].ticket
