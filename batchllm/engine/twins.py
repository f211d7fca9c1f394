"""Rows that ask the same as another one: of those in progress the first is sent (it leads), the others wait for its answer (they follow).

The trap is the moment at which a leader ends: a row that is met then must find it either here or in the store. So what ends while a chunk of rows is handed
on is remembered until the next chunk asks the store, and the store is asked only after everything that ended before was queued for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from batchllm.admit import TooDear
from batchllm.core.nouns import Code, RowError
from batchllm.engine.stop import Stopper

if TYPE_CHECKING:
    from batchllm.engine.work import Work
    from batchllm.store.records import Answer

MOST_WAITING = 10_000
"""Rows that wait for others' answers; beyond it no more are read, so that memory stays flat."""
MOST_ASIDE = 100_000
"""Keys of rows that a budget had no room for which are remembered."""
ALIKE = frozenset({Code.TOO_LONG, Code.REJECTED, Code.REFUSED})
"""Failures that say something about the request: whoever asks the same fails alike."""


class Shared(NamedTuple):
    """An outcome that other rows share."""

    answer: Answer
    source: str
    """The `custom_id` of the row that was asked."""
    model: str | None
    """The name of the model that gave it."""
    error: RowError | None


class _Leading:
    """A row in progress and those that wait for it."""

    __slots__ = ("followers", "held", "leader")

    def __init__(self, leader: Work) -> None:
        self.leader = leader
        self.followers: deque[Work] = deque()
        self.held = False
        """Whether its failure is held back, as it may be everybody's."""


class Twins:
    """One per run; belongs to the run's loop."""

    def __init__(self, stopper: Stopper, *, most_waiting: int = MOST_WAITING) -> None:
        self._stopper = stopper
        self._most_waiting = most_waiting
        self._open: dict[bytes, _Leading] = {}
        self._expected: Collection[bytes] = ()
        self._done: dict[bytes, Shared] = {}
        self._held = 0
        self._aside: dict[bytes, TooDear] = {}
        self._changed = asyncio.Event()
        self.waiting = 0
        """Rows that wait for another one's answer."""
        stopper.on_stop(lambda _stop: self._changed.set())

    def expect(self, keys: Collection[bytes]) -> None:
        """A new chunk: of its keys, what ends from now on is remembered. To be called in the same step in which the store is asked."""
        self._expected = keys
        self._done = {}

    def known(self, key: bytes) -> Shared | None:
        """What ended while this chunk was handed on."""
        return self._done.get(key)

    def set_aside(self, work: Work, dear: TooDear) -> Collection[Work]:
        """A budget had no room for the row: there is none for its twins either, even if other rows' rest makes some, or the wrong one would be sent. Returns those that waited."""
        leading = self._leading(work)
        if leading is None:
            return ()
        assert work.twin is not None
        del self._open[work.twin]
        if len(self._aside) < MOST_ASIDE:
            self._aside[work.twin] = dear
        self._fewer(len(leading.followers))
        return leading.followers

    def aside(self, key: bytes) -> TooDear | None:
        """What a row with this key had no room for in this run."""
        return self._aside.get(key)

    def is_open(self, key: bytes) -> bool:
        """Whether a row with this key is in progress."""
        return key in self._open

    def lead(self, work: Work) -> None:
        """The row will be asked; from now on its twins follow."""
        assert work.twin is not None
        self._open[work.twin] = _Leading(work)

    def follow(self, work: Work) -> None:
        """The row waits for its leader's outcome."""
        assert work.twin is not None
        self._open[work.twin].followers.append(work)
        self.waiting += 1

    async def room(self, release: Callable[[], None]) -> None:
        """Waits until another row may follow, or the run stops. `release` commits failures that are held back: beside so many rows that ask the same, they are about them."""
        while self.waiting >= self._most_waiting and self._stopper.stop is None:
            if self._held:
                release()
                if self.waiting < self._most_waiting or self._stopper.stop is not None:
                    return
            self._changed.clear()
            await self._changed.wait()

    def hold(self, work: Work) -> None:
        """Its failure is held back; whoever follows waits on."""
        leading = self._leading(work)
        if leading is not None and not leading.held:
            leading.held = True
            self._held += 1
            self._changed.set()

    def end(self, work: Work, shared: Shared) -> deque[Work] | None:
        """The row's outcome is on its way to the store. Returns those that share it."""
        leading = self._leading(work)
        if leading is None:
            return None
        assert work.twin is not None
        del self._open[work.twin]
        self._held -= leading.held
        if work.twin in self._expected:
            self._done[work.twin] = shared
        self._fewer(len(leading.followers))
        return leading.followers

    def successor(self, work: Work) -> Work | None:
        """Who is asked next after a leader whose outcome isn't for others, or that has none; None when nobody follows, or when its failure is held back."""
        leading = self._leading(work)
        if leading is None or leading.held:
            return None
        assert work.twin is not None
        if not leading.followers or self._stopper.stop is not None:
            # After a stop they all stay pending.
            del self._open[work.twin]
            self._fewer(len(leading.followers))
            return None
        leading.leader = leading.followers.popleft()
        self._fewer(1)
        return leading.leader

    def _leading(self, work: Work) -> _Leading | None:
        leading = self._open.get(work.twin) if work.twin is not None else None
        return leading if leading is not None and leading.leader is work else None

    def _fewer(self, count: int) -> None:
        self.waiting -= count
        self._changed.set()
