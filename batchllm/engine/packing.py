"""Inputs of embeddings travel together: many rows in one request, each with its own attempt, money, answer and result.

Rows walk alone and meet here. The first to come opens a pack; it leaves when it is full or when nobody joined for two milliseconds, through one
admission. The trap is the row that spoils it for the others: a pack that is refused for what is in it is halved and sent again until the bad row fails alone,
and rows whose pack broke for other reasons try again in smaller ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from batchllm.admit import Closed, Divide, Evicted, Lease, Part
from batchllm.admit.charging import NOTHING
from batchllm.core.nouns import Fault, Kind, Reply
from batchllm.core.wire import HttpReply
from batchllm.engine.attempt import Accepted, LaneOut, Rejected, Unbounded, Unwritten, cancelled, conclude, settle, started, unwritten
from batchllm.engine.exchange import Exchange, exchange_many
from batchllm.providers.codec import PackingCodec
from batchllm.providers.prompts import one_text
from batchllm.providers.shares import shared_usage
from batchllm.retry.decide import Again, row_error

if TYPE_CHECKING:
    from batchllm.engine.context import Context
    from batchllm.engine.lane import Lane, Prepared
    from batchllm.engine.work import Work

MOST_INPUTS = 128
"""Of one request. Wires take more (2048), but a request that fails takes all its rows along."""
MOST_TOKENS = 200_000
"""By the estimate; OpenAI takes 300,000 in a request (protocols A.6)."""
_MOST_BYTES = 4 << 20
_GATHER_SECONDS = 0.002
_SMALLER = 3
"""After each failure that counts, packs of an eighth."""
_DIVIDED = frozenset({Kind.BAD_REQUEST, Kind.CONTEXT, Kind.OVERSIZE, Kind.FILTER})
"""Faults that one row may have brought upon all."""
_SENT_ANEW = frozenset({"first", "fallback", "escalation"})


class Seat:
    """A row in a pack."""

    __slots__ = ("end", "level", "prepared", "size", "work")

    def __init__(self, work: Work, prepared: Prepared, size: int, level: int) -> None:
        self.work = work
        self.prepared = prepared
        self.size = size
        """Bytes of its text."""
        self.level = level
        """How often it failed: rows ride with their like."""
        self.end: asyncio.Future[Callable[[], Accepted | Rejected]] = asyncio.get_running_loop().create_future()
        """Brings what its row then settles itself."""


class _Pack:
    """Rows that will leave together."""

    __slots__ = ("bytes", "closed", "grew", "seats", "tokens")

    def __init__(self) -> None:
        self.seats: list[Seat] = []
        self.tokens = 0
        self.bytes = 0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.grew = False

    def close(self) -> None:
        """Nobody gets on any more."""
        if not self.closed.done():
            self.closed.set_result(None)


class _Share:
    """A row's part of a lease; the lease ends with its last part."""

    __slots__ = ("_fare", "_held")

    def __init__(self, fare: _Fare, held: tuple[int, int]) -> None:
        self._fare = fare
        self._held = held

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
        """As `Lease.end`."""
        self._fare.add(Part(*self._held, cost_pico, maybe, tokens, worst_pico, worst_tokens), used)


class _Fare:
    """Collects how the parts of one lease end."""

    __slots__ = ("_count", "_lease", "_parts", "_used")

    def __init__(self, lease: Lease, count: int) -> None:
        self._lease = lease
        self._count = count
        self._parts: list[Part] = []
        self._used: dict[str, float] | None = {}

    def add(self, part: Part, used: dict[str, float] | None) -> None:
        """One row's end; what its usage says of the limits is summed up, and a row that knows nothing leaves all as reserved."""
        self._parts.append(part)
        if used is None:
            self._used = None
        elif self._used is not None:
            for name, amount in used.items():
                self._used[name] = self._used.get(name, 0.0) + amount
        if len(self._parts) == self._count:
            self._lease.end_parts(self._used, self._parts)


class Packer:
    """One per lane."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._open: dict[int, _Pack] = {}

    def seat(self, work: Work, prepared: Prepared) -> Seat | None:
        """The row's place in the next pack; None for what can't be written (it fails alone)."""
        try:
            size = len(one_text(prepared.request.messages, "embeddings").encode())
        except ValueError:
            return None
        return Seat(work, prepared, size, sum(work.failures.values())) if size else None

    async def ride(self, run: Context, lane: Lane, seat: Seat) -> Accepted | Rejected:
        """Sends the row together with others. Raises what a row that is sent alone raises: `Closed`, `LaneOut`, `Unbounded`, `Unwritten`, `TooDear`."""
        pack = self._board(lane, seat)
        if pack is not None:
            # Not by this row: it must be free to settle its part, or a pack that is divided waits for a slot that it holds itself.
            run.start(self._drive, run, lane, pack, seat.level)
        # Each row settles its own part, right before its answer is written: an attempt that is known to be paid for and its answer must reach the disk together.
        return (await seat.end)()

    async def _drive(self, run: Context, lane: Lane, pack: _Pack, level: int) -> None:
        try:
            await pack.closed
        except asyncio.CancelledError:
            self._leave(pack, level)
            for seat in pack.seats:
                seat.end.cancel()
            raise
        await self._deliver(run, lane, pack.seats)

    def _board(self, lane: Lane, seat: Seat) -> _Pack | None:
        """Takes a place; the new pack when the row is its first."""
        pack = self._open.get(seat.level)
        if pack is not None and not self._fits(lane, pack, seat):
            self._leave(pack, seat.level)
            pack = None
        opened = None
        if pack is None:
            pack = opened = self._open[seat.level] = _Pack()
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._look, pack, seat.level)
        pack.seats.append(seat)
        pack.tokens += seat.prepared.estimate
        pack.bytes += seat.size
        pack.grew = True
        if len(pack.seats) >= max(1, self._most >> _SMALLER * seat.level):
            self._leave(pack, seat.level)
        return opened

    def _look(self, pack: _Pack, level: int) -> None:
        if pack.closed.done():
            return
        if pack.grew:
            pack.grew = False
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._look, pack, level)
        else:
            self._leave(pack, level)

    def _leave(self, pack: _Pack, level: int) -> None:
        pack.close()
        if self._open.get(level) is pack:
            del self._open[level]

    @staticmethod
    def _fits(lane: Lane, pack: _Pack, seat: Seat) -> bool:
        first, request = pack.seats[0].prepared.request, seat.prepared.request
        if request.params is not first.params and request.params != first.params:
            return False
        if pack.bytes + seat.size > _MOST_BYTES:
            return False
        # A request larger than the provider's own bucket would never pass.
        room = min((b.capacity for group in lane.groups for b in group.buckets if b.dimension in {"tpm", "itpm"}), default=MOST_TOKENS)
        return pack.tokens + seat.prepared.estimate <= min(room, MOST_TOKENS)

    async def _deliver(self, run: Context, lane: Lane, seats: Sequence[Seat]) -> bool:
        """Brings all seats to their end; whether one request was enough."""
        try:
            return await self._send(run, lane, [seat for seat in seats if not seat.end.done()])
        except BaseException as error:
            for seat in seats:
                if not seat.end.done():
                    if isinstance(error, Exception):
                        seat.end.set_exception(error)
                    else:
                        seat.end.cancel()
            if not isinstance(error, Exception):
                raise
            return False

    async def _divide(self, run: Context, lane: Lane, seats: Sequence[Seat], *, learn: bool) -> bool:
        """In halves, one after the other: where every request is refused, that is known before all rows were sent alone."""
        half = (len(seats) + 1) // 2
        passed = [await self._deliver(run, lane, part) for part in (seats[:half], seats[half:])]
        if learn and all(passed):
            # Nothing was wrong with any row: it takes no more inputs than that.
            self._most = min(self._most, half)
        return False

    async def _send(self, run: Context, lane: Lane, seats: Sequence[Seat]) -> bool:
        if not seats:
            return True
        first = seats[0].work
        tag = f"{run.job_id}.{first.row_key}.{first.attempts + 1}"
        try:
            codec = lane.codec("embeddings")
            assert isinstance(codec, PackingCodec)
            call = codec.encode_many([seat.prepared.request for seat in seats], client_request_id=tag)
        except (TypeError, ValueError) as error:
            if len(seats) > 1:
                return await self._divide(run, lane, seats, learn=False)
            raise Unwritten(unwritten(error)) from error
        try:
            lease, ids = await _journalled(run, lane, seats)
        except Divide:
            return await self._divide(run, lane, seats, learn=False)
        trip = _Trip(run, lane, seats, lease, ids)
        if len(codec.warnings) > lane.warned:
            run.warn(lane, codec)
        try:
            came, outcomes, reply_body = await exchange_many(run, lane, codec, call, [seat.prepared.estimate for seat in seats])
        except asyncio.CancelledError:
            trip.cancelled()
            raise
        bodies = (call.body, reply_body)
        if lane.reads_hints and isinstance(came, HttpReply):
            hints = codec.hints(came.headers)
            if hints:
                run.weather.hinted(lane, hints)
        if isinstance(outcomes, Fault) and outcomes.kind in _DIVIDED and len(seats) > 1:
            trip.in_vain(run.without_secrets(outcomes), came)
            return await self._divide(run, lane, seats, learn=outcomes.kind is Kind.BAD_REQUEST)
        trip.conclude(came, outcomes, bodies)
        return not isinstance(outcomes, Fault)


class _Trip:
    """One request of a pack, from its journal to its end."""

    __slots__ = ("_again", "_fare", "_ids", "_lane", "_run", "_seats", "_sent_at", "_sent_utc", "_told")

    def __init__(self, run: Context, lane: Lane, seats: Sequence[Seat], lease: Lease, ids: Sequence[int]) -> None:
        self._run = run
        self._lane = lane
        self._seats = seats
        self._ids = ids
        self._fare = _Fare(lease, len(seats))
        self._sent_at = run.clock.now()
        self._sent_utc = lease.sent_utc
        self._told = False
        self._again: Again | None = None
        for seat in seats:
            seat.work.attempts += 1
        run.sent()

    def conclude(self, came: HttpReply | Fault, outcomes: Sequence[Reply | Fault] | Fault, bodies: tuple[bytes | None, bytes | None]) -> None:
        """Hands each row its outcome."""
        each = self._shared(outcomes) if isinstance(outcomes, Fault) else outcomes
        for place, (seat, attempt_id, outcome) in enumerate(zip(self._seats, self._ids, each, strict=True)):
            # The bodies of a pack are kept once, and only where there are no vectors in them: those are the answers.
            kept = bodies if isinstance(outcome, Fault) and (place == 0 or not isinstance(outcomes, Fault)) else (None, None)
            if not seat.end.done():
                seat.end.set_result(partial(self._end, seat, attempt_id, came, outcome, kept))

    def _end(
        self, seat: Seat, attempt_id: int, came: HttpReply | Fault, outcome: Reply | Fault, bodies: tuple[bytes | None, bytes | None]
    ) -> Accepted | Rejected:
        """A row's end. The first to ask speaks for all where it is about the endpoint."""
        request_body, reply_body = bodies
        end = conclude(
            self._run,
            self._lane,
            seat.work,
            seat.prepared,
            _Share(self._fare, seat.prepared.held),
            attempt_id,
            Exchange(came, outcome, reply_body, None),
            request_body,
            sent_at=self._sent_at,
            sent_utc=self._sent_utc,
        )
        end.echo, self._told = self._told, True
        if isinstance(end, Rejected) and isinstance(end.decision, Again):
            # They come back together, or the next packs would be crumbs.
            if self._again is not None:
                end.decision = replace(end.decision, delay_seconds=self._again.delay_seconds)
            self._again = end.decision
        return end

    def in_vain(self, fault: Fault, came: HttpReply | Fault) -> None:
        """Books a request that was refused for what one of its rows may have brought; it counts for none of them."""
        status = came.status if isinstance(came, HttpReply) else None
        for seat, attempt_id, part in zip(self._seats, self._ids, self._shared(fault), strict=True):
            settle(
                self._run,
                self._lane,
                seat.work,
                seat.prepared,
                _Share(self._fare, seat.prepared.held),
                attempt_id,
                None,
                part,
                status,
                None,
                outcome=str(row_error(fault).code),
                sent_utc=self._sent_utc,
                now_utc=self._run.clock.utc(),
                words=fault.message,
            )
            if seat.work.kind in _SENT_ANEW:
                seat.work.kind = "retry"

    def _shared(self, fault: Fault) -> list[Fault]:
        """One fault of all rows as a fault of each: what the request used was used once."""
        if fault.usage is None:
            return [fault] * len(self._seats)
        usages = shared_usage(fault.usage, [seat.prepared.estimate for seat in self._seats])
        return [replace(fault, usage=usage) for usage in usages]

    def cancelled(self) -> None:
        """Broken off by us: each row may have been billed."""
        for seat, attempt_id in zip(self._seats, self._ids, strict=True):
            prepared = seat.prepared
            self._run.writer.end(cancelled(attempt_id, self._run.clock.utc()), None)
            _Share(self._fare, prepared.held).end(
                used=None, cost_pico=None, maybe=True, worst_pico=prepared.reserve_pico, worst_tokens=prepared.reserve_tokens
            )


async def _journalled(run: Context, lane: Lane, seats: Sequence[Seat]) -> tuple[Lease, list[int]]:
    """One admission for all, and an attempt of each on disk. As for a row that is sent alone, nothing has left before."""
    while True:
        lease = await _admitted(run, lane, seats)
        if lane.out is not None or any(lane.unbounded(seat.prepared) for seat in seats):
            lease.end(used=NOTHING, cost_pico=None, maybe=False, tokens=0)
            raise LaneOut if lane.out is not None else Unbounded
        ids = [run.next_attempt_id() for _ in seats]
        pack = ids[0] if len(ids) > 1 else None
        entries = [
            run.writer.journal(started(run, lane, seat.work, seat.prepared, attempt_id, lease.sent_utc, pack=pack))
            for seat, attempt_id in zip(seats, ids, strict=True)
        ]
        try:
            await asyncio.gather(*entries)
            if run.stopper.stop is not None:
                raise Closed  # noqa: TRY301 - the same way out as a cancellation: nothing was sent
        except BaseException:
            _unsend(run, lease, ids)
            raise
        if not lease.lapsed:
            return lease, ids
        _unsend(run, lease, ids)


def _unsend(run: Context, lease: Lease, ids: Sequence[int]) -> None:
    for attempt_id in ids:
        run.unsend(attempt_id)
    lease.end(used=NOTHING, cost_pico=None, maybe=False, tokens=0)


async def _admitted(run: Context, lane: Lane, seats: Sequence[Seat]) -> Lease:
    whole = lane.together([seat.prepared for seat in seats])
    pico = sum(seat.prepared.held[0] for seat in seats)
    tokens = sum(seat.prepared.held[1] for seat in seats)
    ticket = min(seat.work.ticket for seat in seats)
    while True:
        try:
            return await run.admission.reserve(
                lane.queue, whole.amounts, pico, tokens=tokens, ticket=ticket, fresh=lambda: lane.amounts(whole), divisible=len(seats) > 1
            )
        except Evicted:
            if any(run.leaves(lane, seat.work, whole.amounts) for seat in seats):
                raise LaneOut from None
