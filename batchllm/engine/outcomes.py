"""Results on their way to the store - and the failures that are held back because they may be everybody's.

Twenty equal failures before any success, or two hundred in a row later, are not about rows: the run stops and those rows stay pending. So equal failures
are kept in hand (at most that many) until something else happens; then they are committed as what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from batchllm.core import json
from batchllm.core.clock import Clock
from batchllm.core.money import usd_from_pico
from batchllm.core.nouns import Code, Result, RowError, Usage
from batchllm.core.secret import Scrubber
from batchllm.engine.sampling import Sample, Sampling, of_samples
from batchllm.engine.stop import Stop, Stopper
from batchllm.engine.twins import ALIKE, Shared, Twins
from batchllm.engine.work import Work
from batchllm.store.records import Answer, Committed
from batchllm.store.samples import keep_sample
from batchllm.store.vectors import blob_of, output_of
from batchllm.store.writer import Writer

if TYPE_CHECKING:
    from batchllm.engine.attempt import Accepted, Rejected
    from batchllm.engine.caching import Caching
    from batchllm.engine.lane import Lane
    from batchllm.spec import MaxFailed
    from batchllm.store.cache import CachedAnswer

AT_THE_START = 20
LATER = 200
_PERSONAL = frozenset({Code.TOO_LONG, Code.REFUSED, Code.BAD_ROW, Code.DUPLICATE_ID, Code.TEMPLATE, Code.NO_ROUTE})
"""Failures that say something about their row only."""
_SURE_ROWS = 200
"""Finished rows after which a percentage of failures means something."""
_CLEARLY = 2.0
"""A percentage is clearly passed at so many times of it."""


class Tally:
    """Rows in this run's scope, for the display and the exit code."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.seen = 0
        self.ok = 0
        self.failed = 0

    @property
    def pending(self) -> int | None:
        """None until the input's end is known."""
        return None if self.total is None else self.total - self.ok - self.failed


class Outcomes:
    """Where rows end. One per run."""

    def __init__(
        self,
        *,
        writer: Writer,
        clock: Clock,
        stopper: Stopper,
        scrubber: Scrubber,
        run: int,
        has_answers: bool,
        max_failed: MaxFailed | None,
        wants_results: bool,
        sampling: Sampling | None = None,
    ) -> None:
        self.tally = Tally()
        self.twins = Twins(stopper)
        self._writer = writer
        self._clock = clock
        self._stopper = stopper
        self._scrubber = scrubber
        self._run = run
        self._any_answer = has_answers
        self._max_failed = max_failed
        self._wants_results = wants_results
        self.sampling = sampling
        self.caching: Caching | None = None
        """What keeps answers for other jobs, where that is wanted."""
        self.on_row: Callable[[], None] | None = None
        """Called with every outcome on its way to the store."""
        self._held: list[tuple[Work, Lane, Answer, RowError]] = []
        self._signature: tuple[object, ...] = ()
        self.committed = 0
        """Results handed to the store by this run."""

    def answered(self, lane: Lane, work: Work, fingerprint: str, end: Accepted) -> None:
        """The row has its answer."""
        self._any_answer = True
        self.release()
        reply = end.reply
        usage = reply.usage
        answer = Answer(
            work.row_key,
            "ok",
            blob_of(reply.vector) if reply.vector is not None else reply.text,
            json.text(end.parsed.value) if end.parsed is not None else None,
            lane.deployment_id,
            reply.provider_model,
            reply.finish_raw,
            json.text(reply.tool_calls) if reply.tool_calls else None,
            usage.input_tokens if usage is not None else None,
            usage.output_tokens if usage is not None else None,
            usage.cached_input_tokens if usage is not None else None,
            usage.cache_write_tokens if usage is not None else None,
            usage.reasoning_tokens if usage is not None else None,
            work.cost_pico,
            work.attempts,
            round(end.latency_seconds, 6),
            None,
            None,
            None,
            None,
            None,
            None,
            fingerprint,
            self._run,
            self._clock.utc(),
            work.kept,
            end.attempt_id,
            work.twin,
        )
        if self.caching is not None:
            self.caching.keep(lane, work, answer, reply.finish)
        if self.sampling is None:
            self._commit(work, lane.name, answer, None)
        else:
            self._sampled(self.sampling, work, Sample(answer, lane.name))

    def _sampled(self, sampling: Sampling, work: Work, sample: Sample) -> None:
        """One of several answers: kept at once; the last one makes the row's result."""
        nth = sampling.missing(work)
        assert nth is not None
        work.samples[nth] = sample
        kept = self._writer.call(lambda connection: keep_sample(connection, nth, sample.answer))
        # Nobody waits for it; if the store has failed, the run hears of it elsewhere.
        kept.add_done_callback(lambda future: future.cancelled() or future.exception())
        if sampling.missing(work) is None:
            self.sampled(work)

    def sampled(self, work: Work) -> None:
        """All answers of the row are there."""
        assert self.sampling is not None
        answer, model = self.sampling.result(work)
        # Of an answer that an earlier run kept, what the row has in common with others isn't known.
        answer = answer._replace(row_key=work.row_key, run=self._run, finished_at=self._clock.utc(), input=work.kept, twin=work.twin)
        self._commit(work, model, answer, None)

    def failed(self, lane: Lane, work: Work, error: RowError, fingerprint: str, end: Rejected | None) -> None:
        """The row is lost on all its models. The text of a refusal or a cut answer is kept."""
        if self.sampling is not None:
            fingerprint = of_samples(fingerprint, self.sampling.count)
        answer = self._failure(work, error, lane=lane, fingerprint=fingerprint, end=end)
        if error.code in _PERSONAL:
            self._commit(work, lane.name, answer, error)
            return
        signature = (lane.name, error.code, error.http_status, error.provider_code)
        if signature != self._signature:
            self.release()
            self._signature = signature
        if error.code in ALIKE:
            self.twins.hold(work)
        self._held.append((work, lane, answer, error))
        if len(self._held) >= (LATER if self._any_answer else AT_THE_START):
            self._stopper.set(
                Stop(
                    exit_code=4,
                    stopped_by="provider",
                    message=f"{len(self._held)} rows in a row failed alike on {lane.name} ({error.code}: {error.message}), so this is not about the rows. "
                    "They stay pending: mend the cause (the model's name, a parameter, the endpoint), then run again",
                )
            )

    def unfit(self, work: Work, error: RowError, raw_fingerprint: str | None) -> None:
        """The row itself is wrong; nothing was sent for it."""
        self._commit(work, None, self._failure(work, error, lane=None, fingerprint=raw_fingerprint, end=None), error)

    def release(self) -> None:
        """Commits the failures in hand: they were about their rows after all."""
        if self._held and not self._is_systematic():
            for work, lane, answer, error in self._held:
                self._commit(work, lane.name, answer, error)
            self._held = []
            self._signature = ()

    def _is_systematic(self) -> bool:
        stop = self._stopper.stop
        return stop is not None and stop.stopped_by in {"provider", "outage"}

    def _failure(self, work: Work, error: RowError, *, lane: Lane | None, fingerprint: str | None, end: Rejected | None) -> Answer:
        reply = end.reply if end is not None else None
        usage = reply.usage if reply is not None else None
        return Answer(
            work.row_key,
            "failed",
            reply.text or reply.refusal if reply is not None else None,
            None,
            lane.deployment_id if lane is not None else None,
            reply.provider_model if reply is not None else None,
            reply.finish_raw if reply is not None else None,
            None,
            usage.input_tokens if usage is not None else None,
            usage.output_tokens if usage is not None else None,
            usage.cached_input_tokens if usage is not None else None,
            usage.cache_write_tokens if usage is not None else None,
            usage.reasoning_tokens if usage is not None else None,
            work.cost_pico,
            work.attempts,
            round(end.latency_seconds, 6) if end is not None and reply is not None else None,
            str(error.code),
            self._scrubber.text(error.message),
            error.http_status,
            self._scrubber.text(error.provider_code) if error.provider_code is not None else None,
            int(error.retryable),
            None,
            fingerprint,
            self._run,
            self._clock.utc(),
            work.kept,
            end.attempt_id if end is not None else None,
            work.twin if error.code in ALIKE else None,
        )

    def share(self, work: Work, shared: Shared) -> None:
        """The row has the outcome of one that asks the same."""
        answer = shared.answer._replace(
            row_key=work.row_key,
            # Nothing was sent for it, unless it was asked itself before.
            cost_pico=work.cost_pico if work.attempts else 0,
            attempts=work.attempts,
            shared_from=shared.source,
            run=self._run,
            finished_at=self._clock.utc(),
            input=work.kept,
        )
        self._commit(work, shared.model, answer, shared.error)

    def reuse(self, work: Work, lane: Lane, fingerprint: str, cached: CachedAnswer, parsed: str | None, source: str) -> None:
        """The row has the answer that another job had."""
        answer = Answer(
            work.row_key,
            "ok",
            cached.output,
            parsed,
            lane.deployment_id,
            cached.provider_model,
            cached.finish_reason,
            cached.tool_calls,
            cached.input_tokens,
            cached.output_tokens,
            cached.cached_input_tokens,
            cached.cache_write_tokens,
            cached.reasoning_tokens,
            work.cost_pico if work.attempts else 0,
            work.attempts,
            cached.latency_seconds,
            None,
            None,
            None,
            None,
            None,
            source,
            fingerprint,
            self._run,
            self._clock.utc(),
            work.kept,
            None,
        )
        self._commit(work, lane.name, answer, None)

    def _commit(self, work: Work, model: str | None, answer: Answer, error: RowError | None) -> None:
        if answer.status == "ok":
            self.tally.ok += 1
        else:
            self.tally.failed += 1
        self._writer.answer(answer, Committed(work.row_key, self._result(work, model, answer, error)) if self._wants_results else None)
        self.committed += 1
        if self.on_row is not None:
            self.on_row()
        if answer.twin is not None and answer.shared_from is None:
            shared = Shared(answer, work.custom_id or str(work.position), model, error)
            for follower in self.twins.end(work, shared) or ():
                self.share(follower, shared)
        if error is not None:
            self._check_failed()

    def _result(self, work: Work, model: str | None, answer: Answer, error: RowError | None) -> Result:
        return Result(
            custom_id=work.custom_id,
            row=work.position,
            status="ok" if error is None else "failed",
            output=output_of(answer.output),
            parsed=json.loads(answer.parsed) if answer.parsed is not None else None,
            model=model,
            provider_model=answer.provider_model,
            finish_reason=answer.finish_reason,
            tool_calls=json.loads(answer.tool_calls) if answer.tool_calls is not None else None,
            usage=None
            if answer.input_tokens is None
            else Usage(
                input_tokens=answer.input_tokens,
                output_tokens=answer.output_tokens or 0,
                cached_input_tokens=answer.cached_input_tokens or 0,
                cache_write_tokens=answer.cache_write_tokens or 0,
                reasoning_tokens=answer.reasoning_tokens or 0,
            ),
            cost_usd=usd_from_pico(answer.cost_pico) if answer.cost_pico is not None else None,
            attempts=answer.attempts,
            latency_seconds=answer.latency_seconds,
            shared_from=answer.shared_from,
            samples=json.loads(answer.samples) if answer.samples is not None else None,
            agreement=answer.agreement,
            input=json.loads(answer.input) if answer.input is not None else None,
            error=error,
        )

    def allow(self, max_failed: MaxFailed | None) -> None:
        """Another `max_failed` from now on; the run stops if it is passed already."""
        self._max_failed = max_failed
        self._check_failed()

    def allowed_failures(self, total: int | None) -> int | None:
        """How many failed rows are within `max_failed`; None while that can't be said."""
        rule = self._max_failed
        if rule is None:
            return 0
        if rule.count is not None:
            return rule.count
        return None if total is None or rule.fraction is None else int(rule.fraction * total + 1e-9)

    def _check_failed(self) -> None:
        rule = self._max_failed
        if rule is None:
            return
        tally = self.tally
        allowed = self.allowed_failures(tally.total)
        passed = tally.failed > allowed if allowed is not None else False
        if allowed is None and rule.fraction is not None:
            done = tally.ok + tally.failed
            passed = done >= _SURE_ROWS and tally.failed > _CLEARLY * max(rule.fraction * done, 1.0)
        if passed:
            self._stopper.set(
                Stop(exit_code=1, stopped_by=None, message=f"{tally.failed} rows failed, more than max_failed allows; see `batchllm errors`")
            )
