"""The walk of one row, from its chain of models to exactly one result. Readable from top to bottom; everything it calls does one thing."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from batchllm.admit import Closed
from batchllm.core.nouns import Code, Reply, RowError
from batchllm.engine.attempt import Accepted, LaneOut, Rejected, Unbounded, send_one
from batchllm.engine.work import Work
from batchllm.retry.decide import Again, Down, Fail, ModelOut, Refused
from batchllm.rows.request import fingerprint

if TYPE_CHECKING:
    from batchllm.engine.context import Context
    from batchllm.engine.lane import Lane, Prepared


_UNBOUNDED = RowError(
    code=Code.BAD_ROW,
    message="the most that this row can cost is not known (audio, files, images at another host, or tools of the provider), so it can't be sent under a USD cap; "
    "run it in a job without one",
)


async def journey(run: Context, work: Work) -> None:
    """Brings one row to its result, or leaves it pending when the run stops."""
    lost: tuple[Lane, Prepared, RowError, Rejected | None] | None = None
    skipped: list[Lane] = []
    unasked = False
    work.ticket = run.admission.ticket()
    try:
        for nth, lane in enumerate(chain(work.chain, skipped)):
            # A model that was only down is asked once more, patiently, when no other one had an answer.
            work.patient = nth >= len(work.chain)
            if lane.out is not None:
                unasked = True
                continue
            if lane.outage.down and run.falls_back(lane, work) and not lane.wants_probe(run.clock.now()):
                skipped.append(lane)
                work.kind = "fallback"
                continue
            assert work.draft is not None
            prepared = lane.prepare(lane.request(work.draft), run.clock.utc())
            if prepared.reserve_pico is None and lane.purse.cap_pico is not None:
                lost = (lane, prepared, _UNBOUNDED, None)
                continue
            try:
                end = await _on_lane(run, lane, work, prepared)
            except Unbounded:
                lost = (lane, prepared, _UNBOUNDED, None)
                continue
            match end:
                case Accepted():
                    run.outcomes.answered(lane, work, fingerprint(prepared.request), end)
                    return
                case Rejected(decision=Fail(error=error)):
                    if lost is None or not work.patient:
                        lost = (lane, prepared, error, end)
                    work.kind = "fallback"
                case None:
                    if lane.out is None and not work.patient:
                        skipped.append(lane)
                    else:
                        unasked = True
                    work.kind = "fallback"
    except Closed:
        return
    if lost is None or unasked:
        # A model of the chain could not be asked: the row is not lost, it waits for a run that can.
        run.no_live_model(work)
        return
    lane, prepared, error, end = lost
    run.outcomes.failed(lane, work, error, fingerprint(prepared.request), end)


async def _on_lane(run: Context, lane: Lane, work: Work, prepared: Prepared) -> Accepted | Rejected | None:
    """Tries one model until it answers, or fails the row for good; None when the model itself is lost to this run."""
    while True:
        try:
            end = await send_one(run, lane, work, prepared)
        except LaneOut:
            return None
        if isinstance(end, Accepted):
            run.weather.came_through(lane, answered=True, sent_at=end.sent_at)
            return end
        match end.decision:
            case Refused():
                run.weather.refused(lane, end.decision, end)
            case Down(wait_seconds=wait):
                run.weather.down(lane, wait, end)
                if lane.outage.down and run.falls_back(lane, work):
                    return None
                if not lane.outage.down and wait is None:
                    await run.park(lane, run.weather.backoff(lane.outage.streak - 1))
            case Again(delay_seconds=delay):
                run.weather.shaky(lane, work, end)
                await run.park(lane, delay)
            case ModelOut():
                run.weather.model_out(lane, end.decision)
                return None
            case Fail():
                run.weather.came_through(lane, answered=isinstance(end.reply, Reply), sent_at=end.sent_at)
                return end
        if work.kind in {"first", "fallback"}:
            work.kind = "retry"
        # Prices move with the hour and estimates with what was learnt.
        prepared = lane.prepare(prepared.request, run.clock.utc())
