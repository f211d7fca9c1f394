"""The walk of one row, from its chain of models to exactly one result. Readable from top to bottom; everything it calls does one thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchllm.admit import Closed, TooDear
from batchllm.core.nouns import Code, Reply, Request, RowError
from batchllm.engine.attempt import Accepted, LaneOut, Rejected, Unbounded, Unwritten, send_one
from batchllm.engine.path import Path
from batchllm.engine.sampling import Sampling, seeded
from batchllm.engine.work import Work
from batchllm.retry.decide import Again, Down, Fail, Improve, ModelOut, Refused

if TYPE_CHECKING:
    from batchllm.engine.context import Context
    from batchllm.engine.lane import Lane, Prepared


_UNBOUNDED = RowError(
    code=Code.BAD_ROW,
    message="the most that this row can cost or use is not known (audio, files, images at another host, or tools of the provider), so it can't be sent under a budget; "
    "run it in a job without one",
)


class _GivesWay(Exception):  # noqa: N818 - a state, not a fault
    """The row went back to those that wait; another one has its place."""

    def __init__(self, other: Work) -> None:
        self.other = other


async def journey(run: Context, work: Work) -> None:
    """Brings one row to its result, or leaves it pending when the run stops; then the next of those that waited for its answer, if it has none for them."""
    following: Work | None = work
    while following is not None:
        try:
            await (_walk(run, following) if run.outcomes.sampling is None else _walks(run, run.outcomes.sampling, following))
        except _GivesWay as way:
            following = way.other
        else:
            following = run.outcomes.twins.successor(following)


def _give_way(lane: Lane, work: Work) -> None:
    """An endpoint that seems to be down is probed by all rows in turn, not only by those that have a place: they may all hang by themselves. Raises _GivesWay, where
    the row is at the beginning of its way and another one waits.
    """
    if work.chain[0] is not lane or lane.backlog.empty():
        return
    other = lane.backlog.get_nowait()
    if other is None:
        lane.backlog.put_nowait(None)
        return
    work.ticket = 0
    lane.backlog.put_nowait(work)
    raise _GivesWay(other)


async def _walks(run: Context, sampling: Sampling, work: Work) -> None:
    """One walk for each answer that the row still lacks; the first that fails is the row's end."""
    nth = sampling.missing(work)
    if nth is None:
        # The last run ended just before it could say so.
        run.outcomes.sampled(work)
    while nth is not None:
        await _walk(run, work, nth)
        before, nth = nth, sampling.missing(work)
        if nth == before:
            return
        work.kind = "first"


async def _walk(run: Context, work: Work, nth: int = 0) -> None:
    lost: tuple[Lane, Request, RowError, Rejected | None] | None = None
    path = Path(work.chain, run.ladder)
    unasked = False
    # A row that is to have several answers keeps its place, so that rows are finished one after the other.
    work.ticket = work.ticket or run.admission.ticket()
    try:
        while (lane := path.next()) is not None:
            # A model that was only down is asked once more, patiently, when no other one had an answer.
            work.patient = path.patient
            work.ahead = path.ahead
            work.invalid = work.turns = 0
            if lane.is_out:
                unasked = True
                continue
            if lane.is_down and run.falls_back(lane, work) and not lane.wants_probe(run.clock.now()):
                path.down(lane)
                work.kind = path.kind
                continue
            assert work.draft is not None
            request = lane.request(work.draft)
            sent = request
            if run.fit is not None:
                fitted = run.fit.fitted(lane, request)
                if isinstance(fitted, RowError):
                    lost = (lane, request, fitted, None)
                    path.failed(lane, fitted.code)
                    work.kind = path.kind
                    continue
                sent, work.trimmed = fitted
            if lane.prompt_cache is not None:
                sent = lane.prompt_cache.marked(sent)
            prepared = lane.prepare(seeded(sent, nth), run.clock.utc())
            if lane.unbounded(prepared):
                lost = (lane, request, _UNBOUNDED, None)
                continue
            try:
                end = await _on_lane(run, lane, work, prepared)
            except Unbounded:
                lost = (lane, request, _UNBOUNDED, None)
                continue
            except Unwritten as problem:
                error = problem.args[0]
                lost = (lane, request, error, None)
                path.failed(lane, error.code)
                work.kind = path.kind
                continue
            match end:
                case Accepted(latency_seconds=seconds):
                    lane.took(seconds)
                    run.outcomes.answered(lane, work, work.fingerprint_of(lane, request), end)
                    return
                case Rejected(decision=Fail(error=error)):
                    if lost is None or not work.patient:
                        lost = (lane, request, error, end)
                    path.failed(lane, error.code)
                case None:
                    if not lane.is_out and not work.patient:
                        path.down(lane)
                    else:
                        unasked = True
            work.kind = path.kind
    except Closed:
        return
    except TooDear as dear:
        run.too_dear(work, dear)
        for follower in run.outcomes.twins.set_aside(work, dear):
            run.too_dear(follower, dear)
        return
    if lost is None or unasked:
        # A model of the chain could not be asked: the row is not lost, it waits for a run that can.
        run.no_live_model(work)
        return
    lane, request, error, end = lost
    run.outcomes.failed(lane, work, error, work.fingerprint_of(lane, request), end)


async def _sent(run: Context, lane: Lane, work: Work, prepared: Prepared) -> Accepted | Rejected:
    """One attempt. Where prompts begin alike, the first one goes alone, so that the others find what it has put into the provider's cache."""
    cache = lane.prompt_cache
    if cache is None:
        return await send_one(run, lane, work, prepared)
    warmed = await cache.enter()
    end: Accepted | Rejected | None = None
    try:
        if lane.has_better_key(prepared.amounts, run.clock.now()):
            # This one went out, down or to rest while the row waited here, where no eviction from the door's line reaches it.
            raise LaneOut
        end = await send_one(run, lane, work, prepared)
    finally:
        cache.leave(warmed=warmed, answered=isinstance(end, Accepted))
    return end


async def _on_lane(run: Context, lane: Lane, work: Work, prepared: Prepared) -> Accepted | Rejected | None:
    """Tries one model until it answers well, or fails the row for good; None when the model itself is lost to this run."""
    request = asked_first = prepared.request
    better: Rejected | None = None
    while True:
        key = lane.by_key(prepared.amounts, run.clock.now())
        try:
            end = await _sent(run, key, work, prepared)
        except LaneOut:
            if not lane.is_out and not (lane.is_down and run.falls_back(lane, work)):
                # To another key of the model; or the row only rode with others that were sent away.
                continue
            return None
        except Unwritten:
            if better is None:
                raise
            return better
        if isinstance(end, Accepted):
            run.weather.came_through(key, end, answered=True)
            if not end.is_turn:
                return end
            assert run.tools is not None
            request = await run.tools.next(run, lane, request, end.reply)
            work.kind = "turn"
            prepared = lane.prepare(request, run.clock.utc())
            continue
        match end.decision:
            case Refused():
                run.weather.refused(key, end.decision, end)
            case Down(wait_seconds=wait, excused=excused):
                run.weather.down(key, wait, end)
                if lane.is_down and run.falls_back(lane, work):
                    return None
                if not key.outage.down and wait is None:
                    await run.park(lane, run.weather.backoff(key.outage.streak - 1))
                elif excused and request is asked_first:
                    _give_way(lane, work)
            case Again(delay_seconds=delay):
                run.weather.shaky(key, work, end)
                await run.park(lane, delay)
            case ModelOut():
                run.weather.model_out(key, end.decision)
                if lane.is_out:
                    return None
            case Improve() as decision:
                assert end.reply is not None
                run.weather.came_through(key, end, answered=True)
                asked = lane.longer(request) if decision.how == "longer" else run.answers.repaired(request, end.reply, decision)
                better, end.decision = end, Fail(error=decision.error)
                if asked is None:
                    return end
                work.kind = "repair" if len(asked.messages) > len(request.messages) else "retry"
                request = asked
            case Fail(error=error):
                run.weather.came_through(key, end, answered=isinstance(end.reply, Reply))
                # With its own answer shown to it, or a larger cap, a request may be too much; the row isn't to blame for what was added.
                return better if better is not None and error.code in {Code.TOO_LONG, Code.REJECTED} else end
        if work.kind in {"first", "fallback", "escalation", "turn"}:
            work.kind = "retry"
        # Prices move with the hour and estimates with what was learnt.
        prepared = lane.prepare(request, run.clock.utc())
