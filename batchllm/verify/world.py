"""The world of one seed: a provider that lives on, and process after process that works on one job and dies in its own way.

All that outlives a process is its folder and the provider. So a death is an image of the folder at that instant - the store with its unfolded log - and the next life
starts from the image. What the dead process still does while it unwinds happens in the old folder and at a provider that no longer listens to it: nobody sees it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchllm.core.events import Progress
from batchllm.core.money import pico_from_usd
from batchllm.core.nouns import Result
from batchllm.core.virtual import run_virtual
from batchllm.engine import Deps, RunOptions, Summary, run_job
from batchllm.simulator import Settings, Simulator
from batchllm.spec import JobSpec, build
from batchllm.store import Store
from batchllm.store.settle import settle
from batchllm.verify.calm import price, reference
from batchllm.verify.disk import Disk, VirtualWriter, announced
from batchllm.verify.findings import Findings
from batchllm.verify.judge import Judge
from batchllm.verify.plan import CAP_ROOM_USD, Life, Plan
from batchllm.verify.process import EPOCH, Process, Wall
from batchllm.verify.watch import Watch
from batchllm.verify.wire import Wire

_LAST_LIVES = 12
_UNWIND_SECONDS = 10_000.0


class World:
    """One seed's world in an empty folder. `say` is told what happens."""

    def __init__(self, plan: Plan, root: Path, *, say: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.root = root
        self.say = say or (lambda _text: None)
        self.findings = Findings()
        self.shift_seconds = plan.start_seconds
        self.deaths = 0
        self.lives = 0
        self.seconds = 0.0
        self.sims = {name: Simulator(Settings(**settings), price=price, started=0.0) for name, settings in plan.sims.items()}
        self.input = root / "in.jsonl"
        self._edits = 0
        self._folders = 0
        self.folder = self.next_folder()
        self.judge = Judge(plan, self.findings, self.sims)

    def next_folder(self) -> Path:
        """An empty folder for the next life."""
        self._folders += 1
        folder = self.root / f"life-{self._folders}"
        folder.mkdir()
        return folder

    def play(self) -> Findings:
        """Everything, from the first life to the last check."""
        run_virtual(self._play)
        if not self.findings:
            self.judge.end(self.folder, self._reference)
        return self.findings

    async def _play(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._hear)
        self.put(self.plan.rows)
        for life in self.plan.lives:
            await asyncio.sleep(life.wait_seconds)
            if life.rows is not None:
                self.put(life.rows)
            if life.settle is not None:
                self._settle(life.settle == "truth")
            await self.live(life)
            if self.findings:
                return
        await self._last_lives()
        self.seconds = loop.time()

    async def _last_lives(self) -> None:
        """Nothing disturbs any more, and there is money: now the job must come to its end."""
        keys = {"budget": {"usd": CAP_ROOM_USD}} if any("budget" in life.keys for life in self.plan.lives) else {}
        for _ in range(_LAST_LIVES):
            summary = await self.live(Life(keys=keys))
            if self.findings or (summary is not None and summary.exit_code in (0, 1)):
                return
            await asyncio.sleep(120)
        self.findings.add(f"the job doesn't come to its end; the last run said: {summary.message if summary is not None else None}")

    def _hear(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # What a callback raised goes nowhere else. (Futures that nobody asked tell of it when they are collected: that is no fault.)
        if "handle" in context and not self._now_dead:
            self.findings.add(f"life {self.lives}: {context['message']}: {context.get('exception')!r}")

    _now_dead = False

    def put(self, rows: tuple[Any, ...]) -> None:
        """Writes the input."""
        self.input.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
        # In the world's own time: two edits within one tick of the real clock would look like none.
        self._edits += 1
        os.utime(self.input, ns=(self._edits, int(EPOCH * 1e9) + self._edits * 1_000_000_000))

    def _settle(self, truth: bool) -> None:
        path = self.folder / "t.db"
        if not path.exists():
            return
        try:
            store = Store.existing(path, durability="normal")
        except Exception as error:  # noqa: BLE001 - a first life that died before there was a job
            self.say(f"settle: {error}")
            return
        try:
            billed = self.judge.bill.of_open(store.connection) if truth else None
            done = store.transaction(lambda connection: settle(connection, simulated=True, billed_pico=billed, word="verify", now_utc=EPOCH))
            self.say(f"settled: {done}")
        finally:
            store.close()

    # One life.

    async def live(self, life: Life) -> Summary | None:
        """One process, from its start to its end; its summary, if it came to one."""
        self.lives += 1
        where = f"life {self.lives}"
        process = Process(self, life, self.folder, where)
        clock = Wall(self, process.event)
        rng = random.Random(f"{self.plan.seed}/{self.lives}")
        spec = build({**self.plan.keys, **life.keys, "input": str(self.input)}, folder=self.folder)
        watch = self._watch(spec, process, clock)
        disk = Disk(life, rng, process)
        self._lock(life.locked)
        deps = Deps(
            clock=clock,
            environ={},
            rng=rng,
            inline=True,
            writer=lambda connection, path, *, on_commit, on_failure: VirtualWriter(
                connection, path, on_commit=on_commit, on_failure=on_failure, disk=disk
            ),
            listener=lambda event: self._listen(process, watch, event),
            transports=lambda name, _model: Wire(self.sims[name], name, process, watch, clock, silent=self.plan.silent),
            on_result=lambda results: self._told(process, results),
            on_start=process.started,
        )
        options = RunOptions(retry_failed=frozenset() if life.retry_failed else None, limit=life.limit)
        self._now_dead = False
        self.judge.before()
        task = process.task = asyncio.ensure_future(run_job(spec, deps, options))
        timers = self._timers(process, watch, clock)
        done, _ = await asyncio.wait({task}, timeout=_UNWIND_SECONDS * 100)
        self._now_dead = True
        for timer in timers:
            timer.cancel()
        watch.close()
        if not done:
            self.findings.add(f"{where}: the run doesn't end")
            task.cancel()
            await asyncio.wait({task}, timeout=_UNWIND_SECONDS)
        await process.hang_up()
        summary = self._outcome(process, disk)
        self.judge.after(process, self.folder, spec, summary, disk_failed=disk.failed)
        return summary

    def _watch(self, spec: JobSpec, process: Process, clock: Wall) -> Watch:
        declared = {name: model.limits for name, model in spec.models.items()}
        most = {name: float(model.limits.concurrency or "inf") for name, model in spec.models.items()}
        together = min([float(spec.concurrency or "inf"), *(float(group.concurrency or "inf") for group in spec.limit_groups.values())])
        return Watch(
            self.findings,
            process.folder / "t.db",
            where=process.where,
            cap_pico=None if spec.budget.usd is None else pico_from_usd(spec.budget.usd),
            most=most,
            most_together=together,
            rpm={}
            if not process.life.calm
            else {name: (limits.rpm, limits.burst_seconds) for name, limits in declared.items() if limits.rpm is not None},
            by_day=any(cap is not None for cap in (spec.budget.usd_per_day, spec.budget.tokens_per_day)),
            hint_ceiling_seconds=spec.retry.max_seconds,
            wall=clock.look,
        )

    def _lock(self, locked: bool) -> None:
        for name, simulator in self.sims.items():
            simulator.settings = Settings(**{**self.plan.sims[name], "keys": frozenset({"another"}) if locked else None})

    def _timers(self, process: Process, watch: Watch, clock: Wall) -> list[asyncio.TimerHandle]:
        loop, life = asyncio.get_running_loop(), process.life
        task = process.task
        assert task is not None

        def interrupt() -> None:
            process.stop()
            if process.control is not None:
                watch.stopped_at = clock.look()

        def jump(seconds: float) -> None:
            self.shift_seconds += seconds

        timers = [loop.call_later(at, jump, seconds) for at, seconds in life.jumps]

        def cancel() -> None:
            # A second Ctrl-C. (Without the first, whoever unwinds lets others through the door, in the order of a set: no seed would replay exactly.)
            interrupt()
            task.cancel()

        acts: dict[str, Callable[[], object]] = {"kill_at": process.die, "cancel": cancel, "interrupt": interrupt}
        act = acts.get(life.end)
        if act is not None:
            timers.append(loop.call_later(life.at, act))
        return timers

    def _listen(self, process: Process, watch: Watch, event: object) -> None:
        process.event()
        if not process.dead and isinstance(event, Progress):
            watch.progress(event)

    def _told(self, process: Process, results: list[Result]) -> None:
        if not process.dead:
            for row in announced(results, process.told):
                self.findings.add(f"{process.where}: the result of row {row} was announced twice")
        process.event()

    def _outcome(self, process: Process, disk: Disk) -> Summary | None:
        task = process.task
        assert task is not None
        if process.dead:
            self.deaths += 1
            assert process.image is not None
            if not task.cancelled():
                task.exception()
            shutil.rmtree(self.folder)
            self.folder = process.image
            self.say(f"{process.where}: died")
            return None
        if task.cancelled():
            self.say(f"{process.where}: cancelled")
            self.findings.check(process.life.end == "cancel", f"{process.where}: cancelled by nobody")
            return None
        error = task.exception()
        if error is not None:
            self.say(f"{process.where}: {type(error).__name__}: {error}")
            self.judge.raised(process, error, disk_failed=disk.failed)
            return None
        summary = task.result()
        self.say(f"{process.where}: exit {summary.exit_code}, {summary.rows}, {summary.attempts} attempts, {summary.message}")
        return summary

    def _reference(self, use: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
        """What an uninterrupted run without faults gives; `use`: on these models."""
        return reference(self.plan, self.input, self.next_folder(), use)
