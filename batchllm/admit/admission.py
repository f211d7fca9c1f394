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
from typing import Literal, NamedTuple

from batchllm.admit.allowance import Allowance
from batchllm.admit.group import LimitGroup
from batchllm.admit.purse import Purse
from batchllm.core.clock import Clock

# uvloop's timers have 1 ms and fire early: a shorter one would spin.
_TIMER_FLOOR_SECONDS = 0.002
_MUCH = 20
"""A twentieth of a cap is worth looking for rows that it does for."""
MOST_ASIDES = 100
"""Requests in a row that are set aside as too dear before the budget counts as used up: what is left may do for smaller ones, but nobody reads ten million
rows to find out."""


class Closed(Exception):  # noqa: N818 - a state, not a fault
    """The run takes no more requests; raised to whoever waits at the door."""


class Evicted(Exception):  # noqa: N818 - a state, not a fault
    """The line was sent away: its model is down and the rows may try another one."""


class TooDear(Exception):  # noqa: N818 - a state, not a fault
    """What is left of a budget is too little for this request, though not for others: it was set aside, and its row stays pending."""

    def __init__(self, cap: Allowance, amount: int) -> None:
        super().__init__(cap.name)
        self.cap = cap
        self.amount = amount


class Divide(Exception):  # noqa: N818 - a state, not a fault
    """A request for several rows is more than a budget has left, now that nothing is in flight: its parts may still fit."""


class Part(NamedTuple):
    """One row's part of a request for several rows, at its end; the words are those of `Lease.end`."""

    held_pico: int
    held_tokens: int
    cost_pico: int | None
    maybe: bool
    tokens: int | None
    worst_pico: int | None
    worst_tokens: int | None


class Lease:
    """What one passing request holds, from admission to its end. `end` must be called exactly once."""

    __slots__ = ("_admission", "_purses", "_queue", "amounts", "ended", "pico", "sent_at", "sent_utc", "tokens")

    def __init__(self, admission: Admission, queue: Queue, amounts: dict[str, float], pico: int, tokens: int, now: float, utc: float) -> None:
        self._admission = admission
        self._queue = queue
        self._purses = [cap.purse for cap in queue.caps]
        self.amounts = amounts
        self.pico = pico
        self.tokens = tokens
        self.sent_at = now
        self.sent_utc = utc
        """The moment by which its day and month are told, here and in the store."""
        self.ended = False
        for cap, purse in zip(queue.caps, self._purses, strict=True):
            purse.hold(tokens if cap.of_tokens else pico)

    def end(
        self,
        *,
        used: dict[str, float] | None,
        cost_pico: int | None,
        maybe: bool,
        tokens: int | None = None,
        worst_pico: int | None = None,
        worst_tokens: int | None = None,
    ) -> None:
        """Settles: `used` is what the provider really charged per dimension (a missing one was charged as reserved); `maybe` keeps the money reserved.

        `tokens`: what it used; None keeps them reserved where it may have been billed and is nothing otherwise. `worst_*`: the most that it can have come to,
        where less was reserved.
        """
        if self.ended:
            raise RuntimeError("a lease ends once")
        self.ended = True
        back = {name: self.amounts[name] - amount for name, amount in used.items() if name in self.amounts} if used else None
        for cap, purse in zip(self._queue.caps, self._purses, strict=True):
            if cap.of_tokens:
                held, cost, pinned, worst = self.tokens, tokens, maybe and tokens is None, worst_tokens
            else:
                held, cost, pinned, worst = self.pico, cost_pico, maybe, worst_pico
            purse.settle(held, cost_pico=cost, maybe=pinned)
            if pinned and worst is not None and worst > held:
                purse.pin(worst - held)
        self._admission.release(self._queue, back)

    def end_parts(self, used: dict[str, float] | None, parts: Sequence[Part]) -> None:
        """Settles a request for several rows, whose parts of the money end each in its own way; `used` is the whole request's."""
        if self.ended:
            raise RuntimeError("a lease ends once")
        self.ended = True
        back = {name: self.amounts[name] - amount for name, amount in used.items() if name in self.amounts} if used else None
        for cap, purse in zip(self._queue.caps, self._purses, strict=True):
            cost = kept = 0
            for part in parts:
                if cap.of_tokens:
                    held, spent, pinned, worst = part.held_tokens, part.tokens, part.maybe and part.tokens is None, part.worst_tokens
                else:
                    held, spent, pinned, worst = part.held_pico, part.cost_pico, part.maybe, part.worst_pico
                if pinned:
                    kept += max(held, worst or 0)
                else:
                    cost += spent or 0
            # Pinned first: the sum must never fall below what is really held back.
            purse.pin(kept)
            purse.settle(self.tokens if cap.of_tokens else self.pico, cost_pico=cost, maybe=False)
        self._admission.release(self._queue, back)

    @property
    def lapsed(self) -> bool:
        """Whether a window closed since it passed: nothing of the new one is reserved for it, so it must pass again before it is sent."""
        self._queue.roll(self._admission.utc())
        return any(cap.purse is not purse for cap, purse in zip(self._queue.caps, self._purses, strict=True))


class _Waiter:
    __slots__ = ("amounts", "divisible", "fresh", "future", "pico", "ticket", "tokens")

    def __init__(
        self,
        ticket: int,
        amounts: dict[str, float],
        pico: int,
        tokens: int,
        future: asyncio.Future[Lease],
        fresh: Callable[[], dict[str, float]] | None,
        divisible: bool,
    ) -> None:
        self.fresh = fresh
        self.divisible = divisible
        self.ticket = ticket
        self.amounts = amounts
        self.pico = pico
        self.tokens = tokens
        self.future = future


class Queue:
    """One model's line at the door."""

    def __init__(self, groups: Sequence[LimitGroup], purse: Purse, caps: Sequence[Allowance] = ()) -> None:
        self.groups = tuple(groups)
        self.purse = purse
        self.caps = tuple(caps) or (Allowance("budget.usd", purse),)
        """All that a request must be paid from; the first is `purse`."""
        self.windowed = any(cap.window is not None for cap in self.caps)
        self.waiters: deque[_Waiter] = deque()
        self.blocked_by: str | None = None
        """Why its head waits: a dimension, `concurrency`, `pause` or `budget`."""
        self.short_cap: Allowance | None = None
        """The cap that keeps its head waiting, when that is a budget."""
        self.broke: Allowance | None = None
        """The cap that its head will never get enough of."""

    def roll(self, utc: float) -> bool:
        """Opens windows whose time has come; says whether there was one."""
        if not self.windowed:
            return False
        rolled = [cap.roll(utc) for cap in self.caps]
        return any(rolled)


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

    def queue(self, groups: Sequence[LimitGroup], purse: Purse, caps: Sequence[Allowance] = ()) -> Queue:
        """A new line, for one model. `caps`: all budgets that its requests are paid from, `purse` the first; default: `purse` alone."""
        queue = Queue(groups, purse, caps)
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

    def utc(self) -> float:
        """Wall time."""
        return self._clock.utc()

    async def reserve(
        self,
        queue: Queue,
        amounts: dict[str, float],
        pico: int,
        *,
        tokens: int = 0,
        ticket: int | None = None,
        fresh: Callable[[], dict[str, float]] | None = None,
        divisible: bool = False,
    ) -> Lease:
        """Waits its turn: by `ticket`, or behind everybody. `tokens`: the most that it can use, for budgets of tokens. `fresh`: the amounts by what is known
        when its turn comes, for lines that are long.

        Raises Closed when the run takes no more requests, Evicted when the line is sent away, TooDear when what is left of a budget does for others only, and
        instead of that Divide where it is `divisible`.
        """
        if self._closed:
            raise Closed
        if not queue.waiters and self._claimed.isdisjoint(queue.groups):
            now = self._clock.now()
            if queue.windowed:
                queue.roll(self._clock.utc())
            if self._short(queue, amounts, pico, now, tokens) is None:
                return self._pass(queue, amounts, pico, now, tokens)
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(self.ticket() if ticket is None else ticket, amounts, pico, tokens, future, fresh, divisible)
        _take_place(queue.waiters, waiter)
        if queue.waiters[0] is waiter:
            self.pump()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                # Granted and cancelled in the same moment: nothing was sent, everything goes back.
                lease = future.result()
                lease.end(used=dict.fromkeys(lease.amounts, 0.0), cost_pico=None, maybe=False, tokens=0)
            else:
                if waiter in queue.waiters:
                    queue.waiters.remove(waiter)
                self.pump()
            raise

    def release(self, queue: Queue, back: dict[str, float] | None) -> None:
        """Ends a lease (called by it, when its purses are settled)."""
        now = self._clock.now()
        for group in queue.groups:
            group.end(back, now)
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

    def _short(self, queue: Queue, amounts: dict[str, float], pico: int, now: float, tokens: int) -> tuple[str, float, LimitGroup | None] | None:
        """What keeps a request out: (reason, seconds, the group), the group only when it alone is short."""
        found: tuple[str, float, LimitGroup | None] | None = None
        for group in queue.groups:
            short = group.short_of(amounts, now)
            if short is not None:
                found = (*short, group) if found is None else (*(short if short[1] > found[1] else found[:2]), None)
        if found is None:
            for cap in queue.caps:
                if not cap.purse.fits(tokens if cap.of_tokens else pico):
                    queue.short_cap = cap
                    return ("budget", math.inf, None)
        return found

    def _pass(self, queue: Queue, amounts: dict[str, float], pico: int, now: float, tokens: int = 0) -> Lease:
        for group in queue.groups:
            group.take(amounts)
        return Lease(self, queue, amounts, pico, tokens, now, self._clock.utc())

    @staticmethod
    def _hope(queue: Queue, waiter: _Waiter) -> Literal["wait", "aside", "broke"]:
        """What becomes of a head that can't be paid for: it waits for what is in flight or for the next window, it makes way for smaller ones, or there is no money."""
        verdict: Literal["wait", "aside", "broke"] = "wait"
        queue.broke = None
        for cap in queue.caps:
            purse, amount = cap.purse, cap.amount(waiter.pico, waiter.tokens)
            if purse.fits(amount):
                continue
            never = cap.never(amount)
            if not never and (purse.holders or cap.waits):
                continue
            queue.short_cap = cap
            left = purse.left_pico or 0
            others = (purse.fits(cap.amount(other.pico, other.tokens)) for other in queue.waiters if other is not waiter)
            seen = purse.least_pico is None or purse.least_pico <= left or left * _MUCH >= (purse.cap_pico or 0)
            of_use = (never and cap.waits) or (left > 0 and (seen or any(others)))
            if of_use and purse.asides < MOST_ASIDES:
                verdict = "aside"
            elif not purse.holders:
                queue.broke = cap
                return "broke"
            else:
                return "wait"
        return verdict

    def pump(self) -> None:
        """Lets everybody pass who may now, oldest first, and sets the one timer for the next who may later."""
        if self._closed:
            return
        now = self._clock.now()
        self._claimed.clear()
        open_queues = [queue for queue in self._queues if queue.waiters]
        wake = math.inf
        broke = False
        if any(queue.windowed for queue in open_queues):
            utc = self._clock.utc()
            for queue in open_queues:
                queue.roll(utc)
        while open_queues:
            queue = min(open_queues, key=_age) if len(open_queues) > 1 else open_queues[0]
            waiter = queue.waiters[0]
            if waiter.future.done():
                queue.waiters.popleft()
            elif not self._claimed.isdisjoint(queue.groups):
                open_queues.remove(queue)
                continue
            else:
                if waiter.fresh is not None:
                    waiter.amounts = waiter.fresh()
                short = self._short(queue, waiter.amounts, waiter.pico, now, waiter.tokens)
                hope = self._hope(queue, waiter) if short is not None and short[0] == "budget" else "wait"
                if hope != "wait" and waiter.divisible:
                    queue.waiters.popleft()
                    waiter.future.set_exception(Divide())
                    if not queue.waiters:
                        queue.blocked_by = None
                        open_queues.remove(queue)
                    continue
                if short is not None and hope != "aside":
                    reason, seconds, group = short
                    queue.blocked_by = reason
                    wake = min(wake, seconds)
                    if group is not None:
                        self._claimed.add(group)
                    broke = broke or hope == "broke"
                    open_queues.remove(queue)
                    continue
                queue.waiters.popleft()
                if short is None:
                    waiter.future.set_result(self._pass(queue, waiter.amounts, waiter.pico, now, waiter.tokens))
                else:
                    self._set_aside(queue, waiter)
            if not queue.waiters:
                queue.blocked_by = None
                open_queues.remove(queue)
        self._arm(wake)
        if broke:
            self._on_broke()

    @staticmethod
    def _set_aside(queue: Queue, waiter: _Waiter) -> None:
        cap = queue.short_cap
        assert cap is not None
        cap.purse.asides += 1
        waiter.future.set_exception(TooDear(cap, cap.amount(waiter.pico, waiter.tokens)))

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
