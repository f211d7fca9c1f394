"""One run of a job, from spec to exit code. The order is the promise:

check (nothing opened, nothing sent) -> open the store (lock) -> compare what changed -> send -> drain -> commit the last -> write the results -> close.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
from collections.abc import Awaitable
from typing import Any

import anyio
import anyio.to_thread
from aiolimiter import AsyncLimiter

from batchllm.admit import Admission
from batchllm.core import json
from batchllm.core.errors import SpecError, StoreBusy, StoreError
from batchllm.core.events import Note
from batchllm.core.money import text_usd
from batchllm.core.secret import Scrubber
from batchllm.engine.alerts import Alerts, Tellers
from batchllm.engine.answers import Answers
from batchllm.engine.budgets import amount_words, caps_json, used_up_words
from batchllm.engine.caching import Caching
from batchllm.engine.changes import changes_of
from batchllm.engine.compare import Judge
from batchllm.engine.context import Context
from batchllm.engine.control import Control
from batchllm.engine.deps import Deps, RunOptions
from batchllm.engine.ending import summary_of, write_all
from batchllm.engine.feeder import Feeder
from batchllm.engine.fit import check_context
from batchllm.engine.journey import journey
from batchllm.engine.lane import Lane
from batchllm.engine.outcomes import Outcomes
from batchllm.engine.pool import Pool
from batchllm.engine.prompt_cache import NOTHING_TO_KEEP, prompt_cache_of
from batchllm.engine.setup import Lanes, cap_of, check_access, check_money, reachable, scrubber
from batchllm.engine.sharing import Sharing
from batchllm.engine.socket import serve
from batchllm.engine.source import Source
from batchllm.engine.steer import Steering
from batchllm.engine.stop import Stop, Stopper
from batchllm.engine.summary import Summary
from batchllm.engine.tool_loop import ToolLoop, check_same_tools, tool_names
from batchllm.engine.view import View
from batchllm.engine.weather import Weather
from batchllm.engine.work import Work
from batchllm.spec import JobSpec, deadline_utc, expand
from batchllm.store import Store
from batchllm.store.cache import AnswerCache, CacheProblem, cache_path
from batchllm.store.learnt import save_learnt
from batchllm.store.records import Committed
from batchllm.store.store import keys_where, reopen
from batchllm.store.writer import explain

_TICK_SECONDS = 0.5
_HEARTBEAT_SECONDS = 5.0
_LOCK_SECONDS = 0.5
_CACHE_SECONDS = 1.0


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
        self.interrupts = 0
        self.steering: Steering | None = None
        self.failure: StoreError | None = None
        self.sharing: Sharing | None = None
        self.caching: Caching | None = None

    def say(self, level: Any, text: str) -> None:
        self.deps.listener(Note(level=level, text=text))

    async def go(self) -> Summary:
        spec, environ = self.spec, self.deps.environ
        self.access = check_access(spec, environ, reachable(spec))
        check_money(spec, self.access, self.began_utc)
        check_context(spec, self.access)
        self.answers = Answers(spec)
        self.source = Source(spec, self.options, environ)
        self.source.check()
        self._say_about_routes()
        self.deadline = deadline_utc(spec.deadline, now_utc=self.began_utc) if spec.deadline is not None else None
        self.source.prepare_sample()
        self.results_path = spec.results_path(environ)
        hook = spec.budget.alert_webhook
        self.webhook = None if hook is None else expand(hook, environ, key="budget.alert_webhook")
        from batchllm import __version__

        self.version = __version__
        store = await self._open()
        self.store = store
        try:
            return await self._with_store()
        except sqlite3.Error as error:
            raise explain(error, str(store.path)) from error
        finally:
            store.close()

    async def _open(self) -> Store:
        """The store, as soon as this run may have it."""
        spec = self.spec
        asking = AsyncLimiter(1, _LOCK_SECONDS)
        while True:
            # Asked for again and again instead of waiting in the kernel: so Ctrl-C is heard.
            await asking.acquire()
            try:
                return Store.open(
                    spec.store_path(self.deps.environ),
                    name=spec.name,
                    spec_text=spec.text,
                    spec_path=str(spec.path) if spec.path is not None else None,
                    folder=str(spec.folder),
                    version=self.version,
                    now_utc=self.began_utc,
                    durability=spec.durability,
                )
            except StoreBusy:
                if self.options.if_running != "wait":
                    raise

    async def _with_store(self) -> Summary:
        spec, store = self.spec, self.store
        if self.options.retry_failed is not None:
            self._put_back(self.options.retry_failed)
        self._add_pinned()
        check_same_tools(store.connection, spec)
        self.changes = await changes_of(spec, self.source, store, self.answers, self.deps)
        form = self.answers.form
        store.show_answers(form.columns if form is not None else None, whole=form is not None and form.whole)
        store.begin_run(
            now_utc=self.began_utc,
            version=self.version,
            options=json.text({**self.options.as_json(), **tool_names(spec)}),
            cap_pico=cap_of(spec),
            caps=caps_json(spec),
        )
        admission = Admission(self.clock, on_broke=self._broke)
        self.admission = admission
        lanes = Lanes(spec, clock=self.clock, store=store, cap_pico=cap_of(spec), wanted=self.answers.wanted)
        self.lanes = lanes
        if lanes.unpriced and spec.budget.usd is not None:
            self.say("warning", f"{lanes.unpriced:,} earlier requests of this store were sent when no price was known: the budget can't count them")
        answered = store.answered()
        for name, access in self.access.items():
            lanes.add(name, access, admission, transport=self.deps.transports(name, spec.models[name]), answered=answered)
        caps = lanes.budgets.all(simulated=lanes.simulated_only)
        self.alerts = Alerts(spec.budget.alerts, caps, self.deps.listener, job=spec.name)
        self.tellers = self._tellers()
        self._say_about_budgets()
        self.stopper.on_stop(self._stopping)
        has_answers = store.has_answers()
        self.judge = Judge(spec, self.source, store.deployments(), self.answers.wanted) if self.source.is_stream and not self.changes.fresh else None
        first_attempt = store.next_attempt_id()
        writer = store.start(inline=self.deps.inline, on_commit=self._committed, on_failure=self._store_failed, make=self.deps.writer)
        scrub = scrubber(self.access, spec, self.deps.environ)
        if self.deps.around is not None:
            for lane in lanes.by_key:
                lane.transport = self.deps.around(lane, scrub)
        self.context = Context(
            spec=spec,
            number=store.run,
            job_id=store.job_id,
            clock=self.clock,
            rng=self.deps.rng,
            admission=admission,
            writer=writer,
            stopper=self.stopper,
            scrubber=scrub,
            weather=Weather(
                clock=self.clock,
                rng=self.deps.rng,
                retry=spec.retry,
                stopper=self.stopper,
                listener=self.deps.listener,
                pump=admission.pump,
                evict=admission.evict,
            ),
            outcomes=Outcomes(
                writer=writer,
                clock=self.clock,
                stopper=self.stopper,
                scrubber=scrub,
                run=store.run,
                has_answers=has_answers,
                max_failed=spec.max_failed,
                wants_results=self.deps.on_result is not None,
                sampling=self.answers.sampling,
            ),
            answers=self.answers,
            tools=self._tool_loop(scrub),
            ladder=tuple(lanes.by_name[name] for name in self.answers.ladder),
            listener=self.deps.listener,
            first_attempt_id=first_attempt,
            inline=self.deps.inline,
        )
        self.view = View(self.context, lanes, self.began)
        for lane in lanes.by_key:
            lane.prompt_cache = prompt_cache_of(spec, lane.spec, counter=lane.counter, job_id=store.job_id, clock=self.clock, stopper=self.stopper)
        if spec.prompt_cache in {"5m", "1h"} and all(lane.prompt_cache is None for lane in lanes.by_name.values()):
            self.say("warning", f"`prompt_cache: {spec.prompt_cache}` has nothing to keep: {NOTHING_TO_KEEP}")
        self._join()
        self.caching = self.context.outcomes.caching = self._caching()
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

    async def _wind_up(self) -> None:
        self.tellers.tell(self.alerts.look())
        with anyio.CancelScope(shield=True):
            await self.tellers.finish()
            await self._keep_learnt()
            for transport in self.lanes.transports:
                await transport.close()

    def _tool_loop(self, scrub: Scrubber) -> ToolLoop | None:
        kit = self.spec.toolkit
        if kit is None:
            return None
        return ToolLoop(kit, scrubber=scrub, stopper=self.stopper, listener=self.deps.listener, inline=self.deps.inline)

    def _join(self) -> None:
        """Takes a place among the runs of this machine, before the first request."""
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

    def _add_pinned(self) -> None:
        """Models that no route uses, but that rows were sent to by `retry --model`."""
        spec = self.spec
        pinned = check_access(spec, self.deps.environ, [name for name in self.store.pins() if name in spec.models and name not in self.access])
        check_money(spec, pinned, self.began_utc)
        self.access |= pinned

    def _tellers(self) -> Tellers:
        spec, environ = self.spec, self.deps.environ
        names = [name for model in spec.models.values() for name in model.key_envs()]
        return Tellers(
            command=spec.budget.alert_command,
            webhook=self.webhook,
            environ=environ,
            secrets=names,
            transport=self.lanes.http,
            listener=self.deps.listener,
        )

    def _say_about_routes(self) -> None:
        routes = self.spec.routes
        everything = next((number for number, route in enumerate(routes) if route.when is None), len(routes))
        if everything < len(routes) - 1:
            self.say("warning", f"routes.{everything} has no `when`, so it takes every row, and no rule after it is ever looked at")

    def _say_about_budgets(self) -> None:
        lanes, spec = self.lanes, self.spec
        if lanes.budgets.unbounded:
            words = f"{lanes.budgets.unbounded:,} earlier requests of this store may have used nobody knows how many tokens: no budget of tokens can count them"
            self.say("warning", words)
        if spec.budget.reserve == "learned" and any(cap.purse.cap_pico is not None for cap in lanes.budgets.all(simulated=lanes.simulated_only)):
            slack = lanes.most_slack_pico(self.clock.utc())
            self.say(
                "warning",
                "budget.reserve is `learned`: money is reserved for what nearly all answers stay within, so the budget may be overshot "
                f"by at most {text_usd(slack)} (every request in flight at its output cap)",
            )

    def _put_back(self, codes: frozenset[str]) -> None:
        now = self.clock.utc()

        def work(connection: sqlite3.Connection) -> None:
            marks = ", ".join("?" * len(codes))
            where = f"status = 'failed' AND error_code IN ({marks})" if codes else "status = 'failed'"
            reopen(connection, keys_where(connection, where, sorted(codes)), reason="retry", now_utc=now, changed=False)

        self.store.transaction(work)

    async def _work(self) -> None:
        context, changes = self.context, self.changes
        async with anyio.create_task_group() as side:
            side.start_soon(self._tick)
            if self.caching is not None:
                side.start_soon(self._keep_cached, self.caching)
            if self.sharing is not None:
                side.start_soon(self.sharing.run)
            if self.deps.signals:
                side.start_soon(self._listen, side.cancel_scope)
            try:
                async with anyio.create_task_group() as tasks:
                    pool = Pool(tasks, lambda work: journey(context, work))
                    context.spawn, context.start = pool.spawn, tasks.start_soon
                    feeder = Feeder(
                        context,
                        self.source,
                        self.lanes.by_name,
                        changes=changes,
                        inline=self.deps.inline,
                        put=self._put,
                        control=self._control(),
                        on_known=self.deps.on_known,
                        on_met=self.deps.on_met,
                        judge=self.judge,
                    )
                    self.view.feeder = feeder
                    self.pool = pool
                    steering = self.steering = self._steering(feeder)
                    feeder.control.answer = steering.answer
                    if not self.deps.inline:
                        side.start_soon(self._hear, steering)
                    tasks.start_soon(self._feed, feeder, pool)
                await self._once_more(feeder, steering)
            except* StoreError as group:
                self._store_failed(_first(group))
            side.cancel_scope.cancel()

    def _put(self, lane: Lane, work: Work) -> Awaitable[None]:
        """Hands a row to a lane of the present round."""
        return self.pool.put(lane, work)

    async def _once_more(self, feeder: Feeder, steering: Steering) -> None:
        """The rows that a second terminal put back, in rounds of their own."""
        while await steering.rows_left():
            async with anyio.create_task_group() as tasks:
                self.pool = Pool(tasks, lambda work: journey(self.context, work))
                self.context.spawn, self.context.start = self.pool.spawn, tasks.start_soon
                for lane in self.lanes.by_name.values():
                    lane.reopen()
                tasks.start_soon(self._feed, feeder, self.pool, True)

    async def _hear(self, steering: Steering) -> None:
        try:
            await serve(self.store.path, steering.answer)
        except OSError as error:
            self.say("warning", f"a second terminal can't steer this run: {error}")

    def _steering(self, feeder: Feeder) -> Steering:
        return Steering(
            context=self.context,
            lanes=self.lanes,
            access=self.access,
            control=feeder.control,
            feeder=feeder,
            deadline=self.deadline,
            files=not self.source.is_stream,
            show=lambda: self.deps.listener(self.view.progress()),
        )

    async def _feed(self, feeder: Feeder, pool: Pool, again: bool = False) -> None:
        try:
            if again:
                await feeder.feed_again()
                return
            if self.deps.on_start is not None:
                await self.deps.on_start(feeder.control)
            if self.stopper.stop is None:
                await feeder.feed()
        finally:
            for lane in self.lanes.by_name.values():
                pool.close(lane)

    def _control(self) -> Control:
        source, comparison, rerun = self.source, self.changes.comparison, self.changes.rerun

        def stands(*, row_key: int, position: int, identity: str) -> bool:
            if not source.covers(position, identity):
                return False
            if comparison is None:
                return True
            gone = row_key in comparison.changed_failed or row_key in comparison.removed
            return not gone and not (rerun and row_key in comparison.changed_ok)

        return Control(
            store=self.store.path,
            fresh=self.changes.fresh,
            clock=self.clock,
            stopper=self.stopper,
            admission=self.admission,
            everything=self.lanes.everything,
            outcomes=self.context.outcomes,
            stands=stands,
        )

    async def _keep_learnt(self) -> None:
        """What was learnt of the models is there for the next run; a store that has failed can't take it, and needn't."""
        learnt = [(lane.deployment_id, lane.learnt()) for lane in self.lanes.by_name.values() if lane.lengths.seen]
        utc = self.clock.utc()
        if learnt and self.failure is None:
            with contextlib.suppress(StoreError):
                await self.context.writer.call(lambda connection: save_learnt(connection, learnt, now_utc=utc))

    def _caching(self) -> Caching | None:
        """The answers of other jobs, where the job wants them. A cache that can't be opened is told of, and the run goes on without it."""
        given = self.spec.cache
        if given is False:
            return None
        path = cache_path(given, self.deps.environ, self.spec.folder)
        try:
            if path is None:
                raise CacheProblem("there is no home folder to keep it in; name a file: cache: answers.db")  # noqa: TRY301 - one way out for all problems
            cache = AnswerCache(path)
        except CacheProblem as problem:
            self.say("warning", f"this run has no cache: {problem}")
            return None
        return Caching(
            cache,
            self.spec,
            job_id=self.store.job_id,
            bases={name: access.base_url for name, access in self.access.items()},
            answers=self.answers,
            listener=self.deps.listener,
            inline=self.deps.inline,
        )

    async def _keep_cached(self, caching: Caching) -> None:
        """What came is kept for other jobs every second, so that a run that dies has given most of it."""
        while True:
            await asyncio.sleep(_CACHE_SECONDS)
            await caching.flush()

    async def _close_writer(self) -> None:
        self.context.outcomes.release()
        try:
            writer = self.store.writer
            assert writer is not None
            await writer.close()
        except StoreError as error:
            self._store_failed(error)

    # What stops a run.

    def _stopping(self, stop: Stop) -> None:
        self.admission.close()
        for lane in self.lanes.by_name.values():
            self.pool.drop(lane)
        in_flight = self.lanes.everything.in_flight
        if stop.stopped_by in {"interrupt", "stop"} and in_flight:
            again = "; press Ctrl-C again to stop at once" if stop.stopped_by == "interrupt" else ""
            self.say(
                "warning", f"{stop.message.partition(';')[0]}: finishing {in_flight:,} {'request' if in_flight == 1 else 'requests'} in flight{again}"
            )

    def _broke(self) -> None:
        blocked = [lane.queue for lane in self.lanes.by_key if lane.queue.blocked_by == "budget" and lane.queue.waiters]
        cap = next((queue.broke for queue in blocked if queue.broke is not None), None)
        if cap is None:
            return
        needs = min(cap.amount(queue.waiters[0].pico, queue.waiters[0].tokens) for queue in blocked if queue.broke is cap)
        message = used_up_words(cap, needs, now_utc=self.clock.utc()) + self._aside_words()
        self.stopper.set(Stop(exit_code=3, stopped_by="budget", message=message))

    def _aside_words(self) -> str:
        """Rows that were set aside because they would cost more than was left."""
        aside = self.context.cheapest_aside
        if aside is None:
            return ""
        position, dear = aside
        others = f" and {self.context.set_aside - 1:,} more" if self.context.set_aside > 1 else ""
        verb = "use" if dear.cap.of_tokens else "cost"
        return f"; row {position} (which may {verb} {amount_words(dear.cap, dear.amount)}){others} had no room in it and stay{'' if others else 's'} pending"

    def _store_failed(self, error: StoreError) -> None:
        self.failure = self.failure or error
        self.stopper.set(Stop(exit_code=5, stopped_by="store", message=str(error)))

    def _committed(self, notes: list[Committed]) -> None:
        if self.deps.on_result is not None:
            self.deps.on_result([note.result for note in notes])

    async def _listen(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                self.interrupts += 1
                if self.interrupts == 1:
                    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
                    self.stopper.set(Stop(exit_code=130, stopped_by="interrupt", message=f"interrupted by {name}; run again to continue"))
                else:
                    scope.cancel()
                    return

    # Once in a while.

    async def _tick(self) -> None:
        beat = self.clock.now()
        while True:
            self._look()
            now = self.clock.now()
            if now - beat >= _HEARTBEAT_SECONDS and self.failure is None:
                beat = now
                limited, utc = self.view.limited_by(), self.clock.utc()
                with contextlib.suppress(StoreError):
                    await self.context.writer.call(
                        lambda connection, utc=utc, limited=limited: connection.execute(  # type: ignore[misc]  # bound now, not when it runs
                            "UPDATE runs SET seen_at = ?, limited_by = ? WHERE run = ?", (utc, limited, self.store.run)
                        )
                    )
            await asyncio.sleep(_TICK_SECONDS)

    def _look(self) -> None:
        self.context.mark()
        steering = self.steering
        deadline, words = (self.deadline, self.spec.deadline) if steering is None else (steering.deadline, steering.deadline_words)
        if deadline is not None and self.clock.utc() >= deadline:
            self.stopper.set(Stop(exit_code=3, stopped_by="deadline", message=f"the deadline ({words}) has come; run again to continue"))
        for lane in self.lanes.by_key:
            if not self.view.paused:
                self.context.weather.check(lane)
        self.tellers.tell(self.alerts.look())
        utc = self.clock.utc()
        groups = {id(group): group for lane in self.lanes.by_key for group in lane.groups}
        # Loop time stands still while a laptop sleeps: new days are looked for here, not by a timer.
        fresh = [group.look(utc) for group in groups.values()] + [lane.queue.roll(utc) for lane in self.lanes.by_key]
        if any(fresh):
            self.admission.pump()
        self.deps.listener(self.view.progress())

    # The end.

    async def _finish(self) -> Summary:
        stop = self.stopper.stop
        tally = self.context.outcomes.tally
        if stop is None:
            allowed = self.context.outcomes.allowed_failures(tally.total) or 0
            exit_code, stopped_by, message = (0 if tally.failed <= allowed else 1), None, None
        else:
            exit_code, stopped_by, message = stop.exit_code, stop.stopped_by, stop.message
        if stop is None and self.context.cheapest_aside is not None:
            _, dear = self.context.cheapest_aside
            exit_code, stopped_by, message = 3, "budget", used_up_words(dear.cap, dear.amount, now_utc=self.clock.utc()) + self._aside_words()
        if self.failure is None:
            try:
                if self.steering is not None and self.steering.settled:
                    self.store.transaction(self.steering.sum_anew)
                self.store.end_run(now_utc=self.clock.utc(), exit_code=exit_code, stopped_by=stopped_by, message=message)
            except StoreError as error:
                self.failure = error
        if self.failure is not None:
            raise self.failure
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
        elif self.results_path is not None and (self.interrupts > 1 or exit_code == SpecError.exit_code):
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

    def _writes_results(self, exit_code: int) -> bool:
        """Always at the end of a finished job; after a stop only when there is something new; never when told to end at once."""
        return self.interrupts < 2 and (exit_code in {0, 1} or (exit_code != 2 and self.context.outcomes.committed > 0))

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
