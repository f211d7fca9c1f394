"""One attempt: admitted, journalled, sent, judged, priced, settled. The order of these lines is guarantee 2 and 3; think twice before moving one.

If the process dies
- before the journal's commit: nothing was sent, nothing is owed;
- between commit and settle: the next run finds the attempt in flight, lists it as possibly billed and keeps its reservation;
- after settle was queued: queue order is commit order, so no later reservation can reach the disk before the settlement that made room for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from batchllm.admit import Closed, Evicted
from batchllm.admit.admission import Lease
from batchllm.core.nouns import Fault, Kind, Reply, RowError
from batchllm.core.wire import HttpReply
from batchllm.engine.work import Work
from batchllm.retry.decide import Again, Decision, Down, Fail, ModelOut, Refused, RetryPolicy, Tally, decide, row_error
from batchllm.retry.judge import judge
from batchllm.store.records import AttemptEnd, AttemptStart, Body

if TYPE_CHECKING:
    from batchllm.engine.context import Context
    from batchllm.engine.lane import Lane, Prepared

_MESSAGE_CHARACTERS = 500
_NOTHING = {"rpm": 0.0, "tpm": 0.0}


class Accepted:
    """The answer is good; it is written down together with its attempt."""

    __slots__ = ("attempt_id", "latency_seconds", "reply", "sent_at")

    def __init__(self, reply: Reply, attempt_id: int, latency_seconds: float, sent_at: float) -> None:
        self.reply = reply
        self.attempt_id = attempt_id
        self.latency_seconds = latency_seconds
        self.sent_at = sent_at


class Rejected:
    """No good answer: what to do, and the text that came, if any (a refusal's text is kept)."""

    __slots__ = ("attempt_id", "decision", "fault", "latency_seconds", "reply", "sent_at")

    def __init__(
        self, decision: Decision, *, fault: Fault | None, reply: Reply | None, attempt_id: int, latency_seconds: float, sent_at: float
    ) -> None:
        self.decision = decision
        self.fault = fault
        self.reply = reply
        self.attempt_id = attempt_id
        self.latency_seconds = latency_seconds
        self.sent_at = sent_at


async def send_one(run: Context, lane: Lane, work: Work, prepared: Prepared) -> Accepted | Rejected:
    """Sends one request for a row. Raises Closed when the run takes no more; the row then stays pending."""
    lease = await _admitted(run, lane, work, prepared)
    if lane.out is not None:
        # It went out while this row waited at the door.
        lease.end(used=_NOTHING, cost_pico=None, maybe=False)
        raise LaneOut
    if prepared.reserve_pico is None and lane.purse.cap_pico is not None:
        # A cap was set while this row waited at the door, and nobody knows the most that it can cost.
        lease.end(used=_NOTHING, cost_pico=None, maybe=False)
        raise Unbounded
    clock = run.clock
    attempt_id = run.next_attempt_id()
    utc = clock.utc()
    prices = lane.prices(utc, prepared.tier)
    start = AttemptStart(
        attempt_id,
        work.row_key,
        work.attempts + 1,
        work.kind,
        lane.deployment_id,
        int(lane.simulated),
        utc,
        prepared.reserve_pico,
        prices.version if prices is not None else None,
        run.number,
    )
    journalled = run.writer.journal(start)
    try:
        await journalled
        if run.stopper.stop is not None:
            raise Closed  # noqa: TRY301 - the same way out as a cancellation: nothing was sent
    except BaseException:
        # Nothing has left, so there was no attempt. (If the journal's commit failed, the store is gone and this fails with it.)
        run.unsend(attempt_id)
        lease.end(used=_NOTHING, cost_pico=None, maybe=False)
        raise
    work.attempts += 1
    sent_at = clock.now()
    run.sent()
    try:
        call = lane.codec.encode(prepared.request, client_request_id=f"{run.job_id}.{work.row_key}.{work.attempts}" if lane.tags else None)
        came = await lane.transport.send(call, timeout_seconds=run.timeout_seconds)
    except asyncio.CancelledError:
        run.writer.end(_end(attempt_id, clock.utc(), outcome="cancelled", billed="maybe"), None)
        lease.end(used=None, cost_pico=None, maybe=True)
        raise
    except (TypeError, ValueError) as error:
        # JSON can't carry it (a lone surrogate, an integer beyond 64 bits): nothing was sent.
        came = Fault(kind=Kind.BAD_REQUEST, message=f"the request can't be written as JSON: {error}", billed="no", counts=False)
        call = None
    ended_at = clock.now()
    latency = ended_at - sent_at
    body = None
    if isinstance(came, HttpReply):
        # Before anybody reads it: a provider that echoes a key must not bring it into an answer, an error or the store.
        clean = run.scrubber.reply(came.body)
        if clean is not came.body:
            came = HttpReply(status=came.status, body=clean, headers=came.headers)
        outcome: Reply | Fault = lane.codec.decode(came)
        if lane.reads_hints:
            hints = lane.codec.hints(came.headers)
            if hints:
                run.weather.hinted(lane, hints)
    else:
        outcome = came
    if isinstance(outcome, Fault):
        # Its words go to the store, to notes and into the run's message; those of the transport name the host, which a variable may have filled in.
        outcome = run.without_secrets(outcome)
    verdict = judge(outcome, on_length=run.on_length) if isinstance(outcome, Reply) else outcome
    if run.keeps_body(failed=verdict is not None) and call is not None:
        response = came.body if isinstance(came, HttpReply) else None
        body = Body(attempt_id, work.row_key, work.attempts, run.scrubbed(call.body), None if response is None else run.scrubbed(response))
    reply = outcome if isinstance(outcome, Reply) else None
    if verdict is None and reply is not None:
        _settle(run, lane, work, prepared, lease, attempt_id, reply, None, 200, body, outcome="ok", sent_utc=utc, now_utc=clock.utc())
        return Accepted(reply, attempt_id, latency, sent_at)
    decision = _decided(run, lane, work, verdict)
    fault = verdict if isinstance(verdict, Fault) else None
    status = came.status if isinstance(came, HttpReply) else None
    assert verdict is not None
    code = verdict.code if isinstance(verdict, RowError) else row_error(verdict).code
    _settle(
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
        sent_utc=utc,
        now_utc=clock.utc(),
        decision=decision,
    )
    return Rejected(decision, fault=fault, reply=reply, attempt_id=attempt_id, latency_seconds=latency, sent_at=sent_at)


async def _admitted(run: Context, lane: Lane, work: Work, prepared: Prepared) -> Lease:
    while True:
        try:
            return await run.admission.reserve(lane.queue, prepared.amounts, prepared.reserve_pico or 0, ticket=work.ticket)
        except Evicted:
            if run.falls_back(lane, work):
                raise LaneOut from None


class Unbounded(Exception):  # noqa: N818 - a state, not a fault
    """Under a cap, a request whose most is not known isn't sent."""


class LaneOut(Exception):  # noqa: N818 - a state, not a fault
    """The model went out, or down with `on_outage: fallback`, while the row waited for it."""


def _decided(run: Context, lane: Lane, work: Work, verdict: RowError | Fault | None) -> Decision:
    if isinstance(verdict, RowError):
        return Fail(error=verdict)
    assert verdict is not None
    if run.weather.excuses(lane, work, verdict):
        return Down(wait_seconds=verdict.wait_seconds)
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


def _settle(
    run: Context,
    lane: Lane,
    work: Work,
    prepared: Prepared,
    lease: Lease,
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
        if billed == "maybe":
            billed = "yes"
    elif billed == "no":
        cost = 0
    elif prepared.reserve_pico == 0:
        # Free is free, whatever the provider did with it.
        billed, cost = "yes", 0
    else:
        billed = "maybe"
    maybe = billed == "maybe"
    work.spent(cost)
    run.writer.end(
        AttemptEnd(
            now_utc,
            status,
            outcome,
            int(isinstance(decision, Again | Fail)),
            int(isinstance(decision, Refused) or (isinstance(decision, Down) and status is not None)),
            billed,
            cost,
            reply.provider_cost_usd if reply is not None else None,
            usage.input_tokens if usage is not None else None,
            usage.output_tokens if usage is not None else None,
            usage.cached_input_tokens if usage is not None else None,
            usage.cache_write_tokens if usage is not None else None,
            usage.reasoning_tokens if usage is not None else None,
            reply.request_id if reply is not None else fault.request_id if fault is not None else None,
            run.scrubber.text(fault.message[:_MESSAGE_CHARACTERS]) if fault is not None else None,
            attempt_id,
        ),
        body,
    )
    lease.end(
        used=_used((usage.input_tokens + usage.output_tokens) or None if usage is not None else None, fault, decision), cost_pico=cost, maybe=maybe
    )
    if usage is not None:
        lane.learn(prepared.estimate, usage.input_tokens, usage.output_tokens)
        run.used_tokens(usage.input_tokens + usage.output_tokens)
    if lane.purse.overdrawn:
        run.overdrawn(lane.purse)


def _used(tokens: int | None, fault: Fault | None, decision: Decision | None) -> dict[str, float] | None:
    """What the provider's limits really charged; None: as reserved."""
    if tokens is not None:
        return {"tpm": float(tokens)}
    if fault is not None and not fault.counts:
        return _NOTHING
    if isinstance(decision, Refused):
        # A refused request still counts as a request, but no tokens were worked on.
        return {"tpm": 0.0}
    return None


def _end(attempt_id: int, now_utc: float, *, outcome: str, billed: str, cost_pico: int | None = None) -> AttemptEnd:
    return AttemptEnd(now_utc, None, outcome, 0, 0, billed, cost_pico, None, None, None, None, None, None, None, None, attempt_id)


__all__ = ["Accepted", "LaneOut", "ModelOut", "Rejected", "RetryPolicy", "Unbounded", "send_one"]
