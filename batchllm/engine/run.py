"""One run of a job, from spec to exit code. The order is the promise:

check (nothing opened, nothing sent) -> open the store (lock) -> compare what changed -> send -> drain -> commit the last -> write the results -> close.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import Literal

import anyio
import anyio.to_thread

from batchllm.admit import Admission
from batchllm.core import json
from batchllm.core.errors import SpecError, StoreError
from batchllm.core.events import Note
from batchllm.core.secret import Scrubber
from batchllm.engine import notices
from batchllm.engine.access import check_access, reachable, scrubber
from batchllm.engine.alerts import Alerts, Tellers
from batchllm.engine.answers import Answers
from batchllm.engine.budgets import cap_of, caps_json
from batchllm.engine.caching import Caching
from batchllm.engine.changes import changes_of
from batchllm.engine.compare import Judge
from batchllm.engine.context import Context
from batchllm.engine.deps import Deps, RunOptions
from batchllm.engine.ending import summary_of, write_all
from batchllm.engine.facts import check_money
from batchllm.engine.fit import check_context
from batchllm.engine.lanes import Lanes
from batchllm.engine.opening import open_cache, open_store, put_back
from batchllm.engine.outcomes import Outcomes
from batchllm.engine.prompt_cache import prompt_cache_of
from batchllm.engine.pulse import Pulse
from batchllm.engine.rounds import Rounds
from batchllm.engine.sharing import Sharing
from batchllm.engine.signals import Signals
from batchllm.engine.socket import serve
from batchllm.engine.source import Source
from batchllm.engine.stop import Stop, Stopper
from batchllm.engine.summary import Summary
from batchllm.engine.tool_loop import ToolLoop, check_same_tools, tool_names
from batchllm.engine.used_up import rows_aside, used_up
from batchllm.engine.view import View
from batchllm.engine.weather import Weather
from batchllm.spec import JobSpec, deadline_utc, expand
from batchllm.store.learnt import save_learnt
from batchllm.store.records import Committed
from batchllm.store.writer import explain


async def run_job(spec: JobSpec, deps: Deps, options: RunOptions) -> Summary:
    """Runs or resumes a job. Raises SpecError (nothing was sent) and StoreError (the store can't be used)."""
    try:
        return await _Run(spec, deps, options).go()
    except SpecError as error:
        raise SpecError([spec.placed(problem) for problem in error.problems]) from error.__cause__


class _Run:
    """One run, from its checks to its summary."""

    def __init__(self, spec: JobSpec, deps: Deps, options: RunOptions) -> None:
        self.spec = spec
        self.deps = deps
        self.options = options
        self.clock = deps.clock
        self.began = deps.clock.now()
        self.began_utc = deps.clock.utc()
        self.stopper = Stopper()
        self.signals = Signals(self.stopper)
        self.sharing: Sharing | None = None
        self.caching: Caching | None = None

    def say(self, level: Literal["info", "warning"], text: str) -> None:
        self.deps.listener(Note(level=level, text=text))

    async def go(self) -> Summary:
        spec, environ = self.spec, self.deps.environ
        self.access = check_access(spec, environ, reachable(spec))
        check_money(spec, self.access, self.began_utc)
        check_context(spec, self.access)
        self.answers = Answers(spec)
        self.source = Source(spec, self.options, environ)
        self.source.check()
        for words in notices.of_routes(spec):
            self.say("warning", words)
        self.deadline = deadline_utc(spec.deadline, now_utc=self.began_utc) if spec.deadline is not None else None
        self.source.prepare_sample()
        self.results_path = spec.results_path(environ)
        hook = spec.budget.alert_webhook
        self.webhook = None if hook is None else expand(hook, environ, key="budget.alert_webhook")
        from batchllm import __version__

        self.version = __version__
        path, waits = spec.store_path(environ), self.options.if_running == "wait"
        store = self.store = await open_store(spec, path, version=self.version, now_utc=self.began_utc, waits=waits)
        try:
            return await self._with_store()
        except sqlite3.Error as error:
            raise explain(error, str(store.path)) from error
        finally:
            store.close()

    async def _with_store(self) -> Summary:
        spec, store = self.spec, self.store
        self._add_pinned()
        check_same_tools(store.connection, spec)
        self.changes = await changes_of(spec, self.source, store, self.answers, self.deps)
        if self.options.retry_failed is not None:
            put_back(store, self.options.retry_failed, self.source, now_utc=self.clock.utc())
        form = self.answers.form
        store.show_answers(form.columns if form is not None else None, whole=form is not None and form.whole)
        store.begin_run(
            now_utc=self.began_utc,
            version=self.version,
            options=json.text({**self.options.as_json(), **tool_names(spec)}),
            cap_pico=cap_of(spec),
            caps=caps_json(spec),
        )
        self._set_up()
        self._join()
        self.caching = self.context.outcomes.caching = open_cache(spec, self.deps, self.access, self.answers, job_id=store.job_id)
        try:
            await self._work()
        finally:
            # A task that is cancelled again and again gets through any shield; whatever that cuts short, the writer's thread must be at its end before the store is closed.
            try:
                await self._wind_up()
            finally:
                if self.sharing is not None:
                    self.sharing.leave()
                with anyio.CancelScope(shield=True):
                    await self._close_writer()
                    if self.caching is not None:
                        await self.caching.close()
        return await self._finish()

    # Before the first request.

    def _add_pinned(self) -> None:
        """Models that no route uses, but that rows were sent to by `retry --model`."""
        spec = self.spec
        pinned = check_access(spec, self.deps.environ, [name for name in self.store.pins() if name in spec.models and name not in self.access])
        check_money(spec, pinned, self.began_utc)
        self.access |= pinned

    def _set_up(self) -> None:
        """All that the journeys need."""
        spec, store, deps = self.spec, self.store, self.deps
        self.admission = Admission(self.clock, on_broke=self._broke)
        lanes = self.lanes = Lanes(spec, clock=self.clock, store=store, wanted=self.answers.wanted)
        answered = store.answered()
        for name, access in self.access.items():
            lanes.add(name, access, self.admission, transport=deps.transports(name, spec.models[name]), answered=answered)
        self.alerts = Alerts(spec.budget.alerts, lanes.budgets.all(simulated=lanes.simulated_only), deps.listener, job=spec.name)
        self.tellers = Tellers(
            command=spec.budget.alert_command,
            webhook=self.webhook,
            environ=deps.environ,
            secrets=[name for model in spec.models.values() for name in model.key_envs()],
            transport=lanes.http,
            listener=deps.listener,
        )
        self.stopper.on_stop(self._stopping)
        judge = Judge(spec, self.source, store.deployments(), self.answers.wanted) if self.source.is_stream and not self.changes.fresh else None
        scrub = scrubber(self.access, spec, deps.environ)
        self.context = self._context(scrub)
        for lane in lanes.by_key:
            if deps.around is not None:
                lane.transport = deps.around(lane, scrub)
            lane.prompt_cache = prompt_cache_of(spec, lane.spec, counter=lane.counter, job_id=store.job_id, clock=self.clock, stopper=self.stopper)
        for words in notices.of_lanes(spec, lanes):
            self.say("warning", words)
        self.view = View(self.context, lanes, self.began)
        self.rounds = Rounds(
            self.context,
            deps,
            source=self.source,
            lanes=lanes,
            changes=self.changes,
            judge=judge,
            view=self.view,
            access=self.access,
            deadline=self.deadline,
        )

    def _context(self, scrub: Scrubber) -> Context:
        spec, store, deps = self.spec, self.store, self.deps
        kit = spec.toolkit
        has_answers, first_attempt = store.has_answers(), store.next_attempt_id()
        # From here on the store's connection is the writer's.
        writer = store.start(inline=deps.inline, on_commit=self._committed, on_failure=self.stopper.fail, make=deps.writer)
        return Context(
            spec=spec,
            number=store.run,
            job_id=store.job_id,
            clock=self.clock,
            rng=deps.rng,
            admission=self.admission,
            writer=writer,
            stopper=self.stopper,
            scrubber=scrub,
            weather=Weather(
                clock=self.clock,
                rng=deps.rng,
                retry=spec.retry,
                stopper=self.stopper,
                listener=deps.listener,
                pump=self.admission.pump,
                evict=self.admission.evict,
            ),
            outcomes=Outcomes(
                writer=writer,
                clock=self.clock,
                stopper=self.stopper,
                scrubber=scrub,
                run=store.run,
                has_answers=has_answers,
                max_failed=spec.max_failed,
                wants_results=deps.on_result is not None,
                sampling=self.answers.sampling,
            ),
            answers=self.answers,
            tools=None if kit is None else ToolLoop(kit, scrubber=scrub, stopper=self.stopper, listener=deps.listener, inline=deps.inline),
            ladder=tuple(self.lanes.by_name[name] for name in self.answers.ladder),
            listener=deps.listener,
            first_attempt_id=first_attempt,
            inline=deps.inline,
        )

    def _join(self) -> None:
        """Takes a place among the runs of this machine."""
        if self.deps.state is None:
            return
        self.sharing = Sharing(
            folder=self.deps.state,
            context=self.context,
            lanes=self.lanes,
            access=self.access,
            store=self.store.path,
            pid=os.getpid(),
            since_utc=self.began_utc,
        )
        self.sharing.state = self.view.seen
        self.sharing.join()

    # The rows walk, and others work beside them.

    async def _work(self) -> None:
        pulse = Pulse(self.context, lanes=self.lanes, view=self.view, alerts=self.alerts, tellers=self.tellers, steering=self.rounds.steering)
        async with anyio.create_task_group() as side:
            side.start_soon(pulse.run)
            if self.caching is not None:
                side.start_soon(self.caching.run)
            if self.sharing is not None:
                side.start_soon(self.sharing.run)
            if self.deps.signals:
                side.start_soon(self.signals.listen, side.cancel_scope)
            if not self.deps.inline:
                side.start_soon(self._hear)
            try:
                await self.rounds.walk()
            except* StoreError as group:
                self.stopper.fail(_first(group))
            side.cancel_scope.cancel()

    async def _hear(self) -> None:
        try:
            await serve(self.store.path, self.rounds.steering.answer)
        except OSError as error:
            self.say("warning", f"a second terminal can't steer this run: {error}")

    def _committed(self, notes: list[Committed]) -> None:
        if self.deps.on_result is not None:
            self.deps.on_result([note.result for note in notes])

    def _broke(self) -> None:
        stop = used_up(self.context, self.lanes)
        if stop is not None:
            self.stopper.set(stop)

    def _stopping(self, stop: Stop) -> None:
        self.admission.close()
        self.rounds.drop()
        in_flight = self.lanes.everything.in_flight
        if stop.stopped_by in {"interrupt", "stop"} and in_flight:
            again = "; press Ctrl-C again to stop at once" if stop.stopped_by == "interrupt" else ""
            self.say(
                "warning", f"{stop.message.partition(';')[0]}: finishing {in_flight:,} {'request' if in_flight == 1 else 'requests'} in flight{again}"
            )

    # The end.

    async def _wind_up(self) -> None:
        self.tellers.tell(self.alerts.look())
        with anyio.CancelScope(shield=True):
            await self.tellers.finish()
            await self._keep_learnt()
            for transport in self.lanes.transports:
                await transport.close()

    async def _keep_learnt(self) -> None:
        """What was learnt of the models is there for the next run; a store that has failed can't take it, and needn't."""
        learnt = [(lane.deployment_id, lane.learnt()) for lane in self.lanes.by_name.values() if lane.lengths.seen]
        utc = self.clock.utc()
        if learnt and self.stopper.failure is None:
            with contextlib.suppress(StoreError):
                await self.context.writer.call(lambda connection: save_learnt(connection, learnt, now_utc=utc))

    async def _close_writer(self) -> None:
        self.context.outcomes.release()
        try:
            await self.context.writer.close()
        except StoreError as error:
            self.stopper.fail(error)

    async def _finish(self) -> Summary:
        stop = self.stopper.stop or rows_aside(self.context)
        tally = self.context.outcomes.tally
        if stop is None:
            allowed = self.context.outcomes.allowed_failures(tally.total) or 0
            exit_code, stopped_by, message = (0 if tally.failed <= allowed else 1), None, None
        else:
            exit_code, stopped_by, message = stop.exit_code, stop.stopped_by, stop.message
        self._end_run(exit_code, stopped_by, message)
        if self.context.fit is not None and self.context.fit.cut:
            self.say("info", f"{self.context.fit.cut:,} prompts lost turns to fit (`context`); the attempts say how many messages")
        self.deps.listener(self.view.progress())
        if self._writes_results(exit_code):
            unwritten = await self._write_results()
            if unwritten is not None:
                # Only now is it known that the answers don't fit the file's form. They are paid for and in the store, so this is no refused spec.
                exit_code = exit_code or 1
                words = f"the results file was not written: {unwritten} (the answers are in the store: `batchllm export --format jsonl` writes them)"
                message = f"{message}; {words}" if message else words
        elif self.results_path is not None and (self.signals.at_once or exit_code == SpecError.exit_code):
            message = f"{message}; the results file was not written: `batchllm export` writes it"
        return summary_of(
            self.spec,
            self.options,
            self.source,
            self.store,
            self.context.outcomes,
            self.results_path,
            seconds=self.clock.now() - self.began,
            exit_code=exit_code,
            stopped_by=stopped_by,
            message=message,
        )

    def _end_run(self, exit_code: int, stopped_by: str | None, message: str | None) -> None:
        """Notes the end in the store. Raises what the store failed with."""
        if self.stopper.failure is not None:
            raise self.stopper.failure
        steering = self.rounds.steering
        if steering.settled:
            self.store.transaction(steering.sum_anew)
        self.store.end_run(now_utc=self.clock.utc(), exit_code=exit_code, stopped_by=stopped_by, message=message)

    def _writes_results(self, exit_code: int) -> bool:
        """Always at the end of a finished job; after a stop only when there is something new; never when told to end at once."""
        return not self.signals.at_once and (exit_code in {0, 1} or (exit_code != 2 and self.context.outcomes.committed > 0))

    async def _write_results(self) -> SpecError | None:
        """Returns why they can't be written in this form."""
        path = self.results_path
        if path is None:
            return None
        if self.deps.inline:
            return write_all(self.store.path, path, self.spec)
        return await anyio.to_thread.run_sync(write_all, self.store.path, path, self.spec)


def _first(group: BaseExceptionGroup[StoreError]) -> StoreError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, StoreError)
    return error
