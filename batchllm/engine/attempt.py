"""One attempt: admitted, journalled, sent, judged, priced, settled. The order of these lines is guarantee 2 and 3; think twice before moving one.

If the process dies
- before the journal's commit: nothing was sent, nothing is owed;
- between commit and settle: the next run finds the attempt in flight, lists it as possibly billed and keeps its reservation;
- after settle was queued: queue order is commit order, so no later reservation can reach the disk before the settlement that made room for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import anyio.to_thread

from batchllm.admit import Closed, Evicted
from batchllm.admit.admission import Lease
from batchllm.admit.charging import NOTHING, Charging
from batchllm.core.nouns import Code, Fault, Kind, Reply, Request, RowError, Usage
from batchllm.core.wire import HttpReply
from batchllm.engine.exchange import Exchange, exchange
from batchllm.engine.work import Work
from batchllm.retry.decide import Again, Decision, Down, Fail, Improve, ModelOut, Refused, RetryPolicy, Tally, decide, row_error
from batchllm.retry.improve import improve
from batchllm.retry.judge import judge
from batchllm.rows.media import BadFile, attachments, loaded, without_content
from batchllm.store.records import AttemptEnd, AttemptStart, Body
from batchllm.validate import Parsed

if TYPE_CHECKING:
    from batchllm.engine.context import Context
    from batchllm.engine.lane import Lane, Prepared

_MESSAGE_CHARACTERS = 500


class Accepted:
    """The answer is good; it is written down together with its attempt."""

    __slots__ = ("attempt_id", "echo", "is_turn", "latency_seconds", "parsed", "reply", "sent_at")

    def __init__(
        self, reply: Reply, parsed: Parsed | None, attempt_id: int, latency_seconds: float, sent_at: float, *, is_turn: bool = False
    ) -> None:
        self.reply = reply
        self.parsed = parsed
        """Its value, where answers must have a form."""
        self.is_turn = is_turn
        """Whether it calls functions of the program: the row's answer is still to come."""
        self.attempt_id = attempt_id
        self.latency_seconds = latency_seconds
        self.sent_at = sent_at
        self.echo = False
        """Whether another row of the same request tells what it says of the endpoint."""


class Rejected:
    """No good answer: what to do, and the text that came, if any (a refusal's text is kept)."""

    __slots__ = ("attempt_id", "decision", "echo", "fault", "latency_seconds", "reply", "sent_at")

    def __init__(
        self, decision: Decision, *, fault: Fault | None, reply: Reply | None, attempt_id: int, latency_seconds: float, sent_at: float
    ) -> None:
        self.decision = decision
        self.fault = fault
        self.reply = reply
        self.attempt_id = attempt_id
        self.latency_seconds = latency_seconds
        self.sent_at = sent_at
        self.echo = False
        """Whether another row of the same request tells what it says of the endpoint."""


class Settles(Protocol):
    """What ends a row's reservation: a lease, or its part of one."""

    def end(
        self,
        *,
        used: dict[str, float] | None,
        cost_pico: int | None,
        maybe: bool,
        tokens: int | None = None,
        worst_pico: int | None = None,
        worst_tokens: int | None = None,
    ) -> None: ...


async def send_one(run: Context, lane: Lane, work: Work, prepared: Prepared) -> Accepted | Rejected:
    """Sends one request for a row. Raises Closed when the run takes no more; the row then stays pending. Raises Unwritten, unsent."""
    if lane.packer is not None and prepared.request.endpoint == "embeddings":
        seat = lane.packer.seat(work, prepared)
        if seat is not None:
            return await lane.packer.ride(run, lane, seat)
    lease, attempt_id = await _journalled(run, lane, work, prepared)
    while lease.lapsed:
        # Midnight came between the door and the disk: the new day's budget has not been asked.
        run.unsend(attempt_id)
        lease.end(used=NOTHING, cost_pico=None, maybe=False, tokens=0)
        lease, attempt_id = await _journalled(run, lane, work, prepared)
    clock = run.clock
    utc = lease.sent_utc
    request = prepared.request
    shown: Sequence[tuple[bytes, bytes]] = ()
    try:
        if attachments(request.messages):
            request, shown = await _with_files(run, request)
        tag = f"{run.job_id}.{work.row_key}.{work.attempts + 1}"
        codec = lane.codec(request.endpoint)
        call = codec.encode(request, client_request_id=tag, stream=lane.streams)
    except BaseException as error:
        # Nothing has left, so there was no attempt.
        run.unsend(attempt_id)
        lease.end(used=NOTHING, cost_pico=None, maybe=False, tokens=0)
        if isinstance(error, TypeError | ValueError):
            raise Unwritten(unwritten(error)) from error
        raise
    work.attempts += 1
    sent_at = clock.now()
    run.sent()
    if len(codec.warnings) > lane.warned:
        run.warn(lane, codec)
    try:
        got = await exchange(run, lane, codec, call)
    except asyncio.CancelledError:
        run.writer.end(cancelled(attempt_id, clock.utc()), None)
        lease.end(used=None, cost_pico=None, maybe=True, worst_pico=prepared.reserve_pico, worst_tokens=prepared.reserve_tokens)
        raise
    if lane.reads_hints and isinstance(got.came, HttpReply):
        hints = codec.hints(got.came.headers)
        if hints:
            run.weather.hinted(lane, hints)
    request_body = without_content(call.body, shown)
    return conclude(run, lane, work, prepared, lease, attempt_id, got, request_body, sent_at=sent_at, sent_utc=utc)


def conclude(
    run: Context,
    lane: Lane,
    work: Work,
    prepared: Prepared,
    lease: Settles,
    attempt_id: int,
    got: Exchange,
    request_body: bytes | None,
    *,
    sent_at: float,
    sent_utc: float,
) -> Accepted | Rejected:
    """Judges, prices and settles what came for a row. `request_body`: for the store; None: bodies of this attempt aren't kept."""
    clock = run.clock
    latency = clock.now() - sent_at
    body = None
    came, outcome = got.came, got.outcome
    first = got.first_token_at - sent_at if got.first_token_at is not None else None
    if isinstance(outcome, Fault):
        # Its words go to the store, to notes and into the run's message; those of the transport name the host, which a variable may have filled in.
        outcome = run.without_secrets(outcome)
    verdict = judge(outcome, on_length=run.on_length) if isinstance(outcome, Reply) else outcome
    parsed: Parsed | None = None
    is_turn = verdict is None and run.tools is not None and isinstance(outcome, Reply) and run.tools.goes_on(outcome, prepared.request)
    if is_turn:
        assert run.tools is not None
        work.turns += 1
        verdict = run.tools.problem(work.turns)
    elif verdict is None and run.answers.checks and isinstance(outcome, Reply):
        read = run.answers.read(outcome, work.fields, offered="tools" in prepared.request.params or "tools" in prepared.request.body)
        if isinstance(read, RowError):
            verdict = read
        else:
            parsed = read
    if run.keeps_body(failed=verdict is not None) and request_body is not None:
        body = Body(attempt_id, work.row_key, work.attempts, run.scrubbed(request_body), None if got.body is None else run.scrubbed(got.body))
    reply = outcome if isinstance(outcome, Reply) else None
    if verdict is None and reply is not None:
        # What failed before an answer is no sign of a permanent error: a row may have several answers to come, or turns.
        work.last_words, work.identical = (), 0
        settle(
            run,
            lane,
            work,
            prepared,
            lease,
            attempt_id,
            reply,
            None,
            200,
            body,
            outcome="ok",
            sent_utc=sent_utc,
            now_utc=clock.utc(),
            first_token_seconds=first,
        )
        return Accepted(reply, parsed, attempt_id, latency, sent_at, is_turn=is_turn)
    decision = _decided(run, lane, work, verdict, prepared)
    fault = verdict if isinstance(verdict, Fault) else None
    status = came.status if isinstance(came, HttpReply) else None
    assert verdict is not None
    code = verdict.code if isinstance(verdict, RowError) else row_error(verdict).code
    settle(
        run,
        lane,
        work,
        prepared,
        lease,
        attempt_id,
        reply,
        fault,
        status,
        body,
        outcome=str(code),
        sent_utc=sent_utc,
        now_utc=clock.utc(),
        decision=decision,
        words=verdict.message,
        first_token_seconds=first,
    )
    return Rejected(decision, fault=fault, reply=reply, attempt_id=attempt_id, latency_seconds=latency, sent_at=sent_at)


async def _with_files(run: Context, request: Request) -> tuple[Request, Sequence[tuple[bytes, bytes]]]:
    """The request with its files' content, and what a kept body shows of them. Read at the last moment: only what is in flight is in memory."""
    if run.inline:
        messages, shown = loaded(request.messages)
    else:
        messages, shown = await anyio.to_thread.run_sync(loaded, request.messages)
    return replace(request, messages=messages), shown


async def _journalled(run: Context, lane: Lane, work: Work, prepared: Prepared) -> tuple[Lease, int]:
    """Admitted and on disk: from here on, the request may leave. The moment of admission is what the store calls the time of sending."""
    lease = await _admitted(run, lane, work, prepared)
    if lane.out is not None:
        # It went out while this row waited at the door.
        lease.end(used=NOTHING, cost_pico=None, maybe=False, tokens=0)
        raise LaneOut
    if lane.unbounded(prepared):
        # A cap was set while this row waited at the door, and nobody knows the most that it can cost.
        lease.end(used=NOTHING, cost_pico=None, maybe=False, tokens=0)
        raise Unbounded
    attempt_id = run.next_attempt_id()
    journalled = run.writer.journal(started(run, lane, work, prepared, attempt_id, lease.sent_utc))
    try:
        await journalled
        if run.stopper.stop is not None:
            raise Closed  # noqa: TRY301 - the same way out as a cancellation: nothing was sent
    except BaseException:
        # Nothing has left, so there was no attempt. (If the journal's commit failed, the store is gone and this fails with it.)
        run.unsend(attempt_id)
        lease.end(used=NOTHING, cost_pico=None, maybe=False, tokens=0)
        raise
    return lease, attempt_id


def started(run: Context, lane: Lane, work: Work, prepared: Prepared, attempt_id: int, sent_utc: float, *, pack: int | None = None) -> AttemptStart:
    """The journal's entry of an attempt that is about to leave."""
    prices = lane.prices(sent_utc, prepared.tier)
    return AttemptStart(
        attempt_id,
        work.row_key,
        work.attempts + 1,
        work.kind,
        lane.deployment_id,
        int(lane.simulated),
        sent_utc,
        prepared.reserve_pico,
        prices.version if prices is not None else None,
        run.number,
        prepared.reserve_tokens,
        work.route,
        pack,
        work.trimmed or None,
        lane.key_env,
    )


async def _admitted(run: Context, lane: Lane, work: Work, prepared: Prepared) -> Lease:
    held, tokens = prepared.held
    while True:
        try:
            return await run.admission.reserve(
                lane.queue, prepared.amounts, held, tokens=tokens, ticket=work.ticket, fresh=lambda: lane.amounts(prepared)
            )
        except Evicted:
            if run.leaves(lane, work, prepared.amounts):
                raise LaneOut from None


class Unbounded(Exception):  # noqa: N818 - a state, not a fault
    """Under a cap, a request whose most is not known isn't sent."""


class Unwritten(Exception):  # noqa: N818 - a state, not a fault
    """A request that its wire can't carry; `args[0]` is the row's error there."""


def unwritten(error: Exception) -> RowError:
    """Of what encoding raised: JSON can't carry it (a lone surrogate, an integer beyond 64 bits), this wire can't (audio, say), or its file is gone."""
    if isinstance(error, BadFile):
        return RowError(code=Code.BAD_ROW, message=str(error))
    return RowError(code=Code.REJECTED, message=f"the request can't be written: {error}")


class LaneOut(Exception):  # noqa: N818 - a state, not a fault
    """The model went out, or down with `on_outage: fallback`, while the row waited for it."""


def _decided(run: Context, lane: Lane, work: Work, verdict: RowError | Fault | None, prepared: Prepared) -> Decision:
    if isinstance(verdict, RowError):
        return _judged(run, lane, work, verdict)
    assert verdict is not None
    if verdict.kind is Kind.RATE and (limit := lane.larger_than(prepared)) is not None:
        # Not every provider says so, and a request that can never pass would be refused for ever.
        verdict = replace(verdict, kind=Kind.OVERSIZE, message=f"the request is larger than the whole limit ({limit}): {verdict.message}")
    if run.weather.excuses(lane, work, verdict):
        # Another row is the next probe: this one may hang by itself, and would keep the endpoint down for ever.
        work.ticket = run.admission.ticket()
        return Down(wait_seconds=verdict.wait_seconds, excused=verdict.kind is not Kind.BAD_GATEWAY)
    if run.weather.blames(lane, work, verdict):
        verdict = replace(verdict, kind=Kind.SERVER)
    error = row_error(verdict)
    words = (lane.name, verdict.http_status, verdict.message)
    # `unavailable` is also what costs nothing to repeat; only a gateway's timeout may have been paid for. (`load_histories` tells them apart likewise.)
    alike = "gateway_timeout" if verdict.kind is Kind.GATEWAY_TIMEOUT else str(error.code)
    work.identical = work.identical + 1 if words == work.last_words else 1
    work.last_words = words
    tally = Tally(
        failures=work.failures.get(lane.name, 0) + 1,
        same_kind=work.by_outcome.get((lane.name, alike), 0) + 1,
        identical=work.identical,
    )
    decision = decide(verdict, tally, run.policy, run.rng)
    if isinstance(decision, Again | Fail):
        work.failures[lane.name] = tally.failures
        work.by_outcome[lane.name, alike] = tally.same_kind
    return decision


def _judged(run: Context, lane: Lane, work: Work, error: RowError) -> Decision:
    """An answer came and isn't good enough."""
    work.failures[lane.name] = failures = work.failures.get(lane.name, 0) + 1
    work.invalid += error.code is Code.INVALID_OUTPUT
    return improve(error, invalid=work.invalid, failures=failures, policy=run.answers.policy, max_attempts=run.policy.max_attempts)


def settle(
    run: Context,
    lane: Lane,
    work: Work,
    prepared: Prepared,
    lease: Settles,
    attempt_id: int,
    reply: Reply | None,
    fault: Fault | None,
    status: int | None,
    body: Body | None,
    *,
    outcome: str,
    sent_utc: float,
    now_utc: float,
    decision: Decision | None = None,
    words: str | None = None,
    first_token_seconds: float | None = None,
) -> None:
    """Books what the attempt cost and gives back what it didn't use. In memory after the queue: commits keep that order."""
    usage = reply.usage if reply is not None else fault.usage if fault is not None else None
    billed = ("yes" if usage is not None else "maybe") if reply is not None else fault.billed if fault is not None else "maybe"
    cost: int | None = None
    if usage is not None:
        # Prices are those of the sending time.
        tier = (reply.service_tier if reply is not None else None) or prepared.tier
        prices = lane.prices_of_answer(reply.provider_model if reply is not None else None, sent_utc, tier)
        cost = prices.price(usage) if prices is not None else None
        if cost is None and prepared.reserve_pico is not None:
            # Billed at a price that nobody knows (a service tier of the provider's choice): what was reserved for it is the best guess, and never nothing.
            billed = "maybe"
        elif billed == "maybe":
            billed = "yes"
    elif billed == "no":
        cost = 0
    elif prepared.reserve_pico == 0:
        # Free is free, whatever the provider did with it.
        billed, cost = "yes", 0
    else:
        billed = "maybe"
    maybe = billed == "maybe"
    request_id = reply.request_id if reply is not None else fault.request_id if fault is not None else None
    work.spent(cost)
    run.writer.end(
        AttemptEnd(
            now_utc,
            status,
            outcome,
            int(isinstance(decision, Again | Fail | Improve)),
            int(isinstance(decision, Refused) or (isinstance(decision, Down) and status is not None)),
            billed,
            cost,
            reply.provider_cost_usd if reply is not None else None,
            usage.input_tokens if usage is not None else None,
            usage.output_tokens if usage is not None else None,
            usage.cached_input_tokens if usage is not None else None,
            usage.cache_write_tokens if usage is not None else None,
            usage.reasoning_tokens if usage is not None else None,
            # Some servers take it from a header of the request's.
            run.scrubber.text(request_id) if request_id is not None else None,
            run.scrubber.text(words[:_MESSAGE_CHARACTERS]) if words is not None else None,
            first_token_seconds,
            attempt_id,
        ),
        body,
    )
    lease.end(
        used=_used(lane.charging, usage, fault, decision),
        cost_pico=cost,
        maybe=maybe,
        tokens=_used_tokens(usage, billed, prepared),
        worst_pico=prepared.reserve_pico,
        worst_tokens=prepared.reserve_tokens,
    )
    if usage is not None:
        lane.learn(prepared.estimate, usage)
        run.used_tokens(usage.input_tokens + usage.output_tokens)
    for cap in lane.caps:
        if cap.purse.overdrawn:
            run.overdrawn(cap)


def _used_tokens(usage: Usage | None, billed: str, prepared: Prepared) -> int | None:
    """What budgets of tokens are charged; None: nobody knows, so the reservation stays. The store counts alike (`store.windows`)."""
    if usage is not None:
        return usage.input_tokens + usage.output_tokens
    if billed == "no":
        return 0
    return prepared.reserve_tokens or 0 if billed == "yes" else None


def _used(charging: Charging, usage: Usage | None, fault: Fault | None, decision: Decision | None) -> dict[str, float] | None:
    """What the provider's limits really charged; None: as reserved."""
    if usage is not None and usage.input_tokens + usage.output_tokens:
        return charging.used(usage)
    if fault is not None and not fault.counts:
        return NOTHING
    if isinstance(decision, Refused):
        return charging.refused()
    return None


def cancelled(attempt_id: int, now_utc: float) -> AttemptEnd:
    """The end of an attempt that was broken off by us: it may have been billed."""
    return AttemptEnd(now_utc, None, "cancelled", 0, 0, "maybe", None, None, None, None, None, None, None, None, None, None, attempt_id)


__all__ = [
    "Accepted",
    "LaneOut",
    "ModelOut",
    "Rejected",
    "RetryPolicy",
    "Settles",
    "Unbounded",
    "Unwritten",
    "cancelled",
    "conclude",
    "send_one",
    "settle",
    "started",
    "unwritten",
]
