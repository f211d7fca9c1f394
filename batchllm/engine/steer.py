"""What a second terminal may ask of a run: pause, continue, stop, set, retry, settle - one at a time, each written down in the store's `changes`.

The order matters twice. A change is queued for the store before it takes effect, so it is on disk before anything that was sent under it; and a `set` of
several keys is checked as a whole before the first one is taken over. The spec in the file is not touched: a change holds for this run.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from batchllm.core import json
from batchllm.core.errors import BatchLLMError, SpecError
from batchllm.core.events import Note
from batchllm.core.money import text_usd
from batchllm.engine.access import Access
from batchllm.engine.budgets import amount_words, cap_of, caps_json, is_budget
from batchllm.engine.facts import check_money
from batchllm.engine.lanes import Lanes
from batchllm.engine.steer_keys import FIXED, changeable, shown, value_at
from batchllm.spec import JobSpec, deadline_utc, parse_set
from batchllm.store.intake import finished_among
from batchllm.store.settle import MOST_BILLED_PICO, Part, Settled, last_settlement, open_attempts, settle, sum_anew
from batchllm.store.store import reopen

if TYPE_CHECKING:
    from batchllm.engine.context import Context
    from batchllm.engine.control import Control
    from batchllm.engine.feeder import Feeder

T = TypeVar("T")
MOST_ROWS = 5000
"""Of one `retry` request: the writer must not be held up for long."""


class Steering:
    """One per run; belongs to the run's loop."""

    def __init__(
        self,
        *,
        context: Context,
        lanes: Lanes,
        access: Mapping[str, Access],
        control: Control,
        feeder: Feeder,
        deadline: float | None,
        files: bool,
        show: Callable[[], None],
    ) -> None:
        self.deadline = deadline
        """Seconds since 1970 UTC; None: there is none."""
        self.deadline_words = context.spec.deadline
        self._run = context
        self._lanes = lanes
        self._access = access
        self._control = control
        self._feeder = feeder
        self._files = files
        """Whether the rows can be read again."""
        self._show = show
        """Tells the listener where the run stands."""
        self._written = context.spec
        """The spec with all changes so far, as checked: its models are those of the file, also where this run simulates them."""
        self._over = False
        self._settled_after: int | None = None
        self._lock = asyncio.Lock()

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what is asked: `{"said": [...], ...}`, or `{"problem": text, "exit_code": n}` when nothing was done. Never raises."""
        async with self._lock:
            try:
                return await self._done(request)
            except BatchLLMError as error:
                return {"problem": str(error), "exit_code": error.exit_code}
            except Exception as error:  # noqa: BLE001 - whatever is asked for, it must not end the run
                return {"problem": f"the run can't do what this asks for: {error!r}", "exit_code": 2}

    async def _done(self, request: dict[str, Any]) -> dict[str, Any]:
        verb = request.get("do")
        if verb == "stop":
            return await self._stop()
        if self._over or self._run.stopper.stop is not None:
            raise SpecError(f"{self._ending()}; nothing was changed")
        match verb:
            case "pause":
                return await self._pause()
            case "continue":
                return await self._continue()
            case "set":
                return await self._set(request["changes"])
            case "retry":
                return await self._retry([int(key) for key in request["rows"]], request.get("model"))
            case "settle":
                return await self._settle(str(request["word"]), request.get("sum_pico"), simulated=bool(request.get("simulated")))
        raise SpecError("the run doesn't know what this asks for; is it an older version of batchllm?")

    async def rows_left(self) -> bool:
        """Whether rows that were put back wait for another reading. Once there are none, the run is over and takes no more requests."""
        async with self._lock:
            self._over = self._run.stopper.stop is not None or not self._feeder.put_back.count
            return not self._over

    @property
    def settled(self) -> bool:
        """Whether attempts were settled while rows were in progress."""
        return self._settled_after is not None

    def sum_anew(self, connection: sqlite3.Connection) -> None:
        """At the end, inside a transaction: rows that were in progress while attempts of theirs were settled get their whole cost."""
        if self._settled_after is not None:
            sum_anew(connection, after=self._settled_after)

    def _ending(self) -> str:
        stop = self._run.stopper.stop
        return f"the run is ending{f' ({stop.message})' if stop is not None else ''}"

    def _note(self, what: str, value: str | None, work: Callable[[sqlite3.Connection], T] | None = None) -> asyncio.Future[T | None]:
        """Queues the record of a change, before it takes effect, with `work` in the same transaction."""
        row = (self._run.clock.utc(), self._run.number, what, value)

        def record(connection: sqlite3.Connection) -> T | None:
            connection.execute("INSERT INTO changes (at, run, what, value) VALUES (?, ?, ?, ?)", row)
            return work(connection) if work is not None else None

        return self._run.writer.call(record)

    def _limited(self, limited_by: str | None) -> Callable[[sqlite3.Connection], Any]:
        number = self._run.number
        return lambda connection: connection.execute("UPDATE runs SET limited_by = ? WHERE run = ?", (limited_by, number))

    def _say(self, *words: str) -> None:
        self._show()
        self._run.listener(Note(level="info", text=f"from another terminal: {'; '.join(words)}"))

    def _flying(self) -> str:
        count = self._lanes.everything.in_flight
        return f"{count:,} request{'' if count == 1 else 's'} in flight finish{'es' if count == 1 else ''}" if count else "none is in flight"

    # The verbs.

    async def _pause(self) -> dict[str, Any]:
        if self._control.paused:
            return {"said": ["it is paused already"]}
        done = self._note("pause", None, self._limited("pause"))
        self._control.pause()
        words = f"paused: nothing new is sent, {self._flying()}"
        self._say(words)
        await done
        return {"said": [words]}

    async def _continue(self) -> dict[str, Any]:
        if not self._control.paused:
            return {"said": ["it is not paused"]}
        done = self._note("continue", None, self._limited(None))
        seconds = self._control.resume()
        for lane in self._lanes.by_key:
            # While nobody asks, nobody can say that an endpoint is down.
            lane.outage.first_at += seconds
        words = f"going on after {_span(seconds)}"
        self._say(words)
        await done
        return {"said": [words]}

    async def _stop(self) -> dict[str, Any]:
        if self._over or self._run.stopper.stop is not None:
            return {"said": [self._ending()]}
        done = self._note("stop", None)
        words = f"stopping: {self._flying()}; run again to continue"
        self._control.stop(message="stopped from another terminal; run again to continue")
        await done
        return {"said": [words]}

    async def _set(self, texts: list[str]) -> dict[str, Any]:
        given = _parsed(texts)
        written = self._checked(given)
        spec = self._taken_over(written)
        run, before = self._run, self._run.spec
        changed = {tuple(key.split(".")) for key in given}
        if any(map(is_budget, given)):
            check_money(spec, self._access, run.clock.utc())
            problem = self._lanes.budgets.refusal(spec, given)
            if problem is not None:
                raise SpecError(f"{problem}. Nothing was changed")
        deadline, details = self._new_deadline(spec, changed)
        said = [f"{key}: {shown(value_at(before, key))} -> {shown(value_at(spec, key))}" for key in given]
        cap = ("UPDATE runs SET cap_pico = ?, caps = ? WHERE run = ?", (cap_of(spec), caps_json(spec), run.number))
        notes = [
            self._note(key, json.text(value), (lambda connection: connection.execute(*cap)) if is_budget(key) else None)
            for key, value in given.items()
        ]
        # From here on nothing can fail.
        self._written = written
        run.spec = spec
        self.deadline, self.deadline_words = deadline, spec.deadline
        self._relimit(spec, changed)
        if any(map(is_budget, given)):
            details += self._recap(spec, changed)
        self._say(*said)
        if ("max_failed",) in changed:
            run.outcomes.allow(spec.max_failed)
        self._stop_overdrawn()
        run.admission.pump()
        await asyncio.gather(*notes)
        stop = run.stopper.stop
        return {"said": [*said, *details, *([f"this stops the run: {stop.message}"] if stop is not None else [])]}

    def _checked(self, given: Mapping[str, Any]) -> JobSpec:
        written = self._written
        problems = [problem for key in given if (problem := changeable(written, key)) not in {None, FIXED}]
        if problems:
            raise SpecError("\n".join(map(str, problems)))
        written = written.with_changes(**given)
        fixed = [key for key in given if changeable(written, key) == FIXED]
        if fixed:
            raise SpecError(
                f"{', '.join(fixed)} can't be changed while the job runs; stop it, then run it with "
                f"{' '.join(f'--set {key}={shown(given[key])}' for key in fixed)}. Nothing was changed"
            )
        return written

    def _taken_over(self, written: JobSpec) -> JobSpec:
        """This run's spec with what may change; its models stay simulated where they are."""
        spec = self._run.spec
        models = {}
        for name, model in spec.models.items():
            theirs = written.models[name]
            # A simulated model has no keys, but the limits of all those that it stands for.
            models[name] = model.model_copy(update={"limits": theirs.all_limits() if model.provider == "simulated" else theirs.limits})
        parts = {name: getattr(written, name) for name in ("budget", "concurrency", "limit_groups", "deadline", "max_failed")}
        return spec.model_copy(update={**parts, "models": models})

    def _new_deadline(self, spec: JobSpec, changed: Collection[tuple[str, ...]]) -> tuple[float | None, list[str]]:
        if ("deadline",) not in changed:
            return self.deadline, []
        if spec.deadline is None:
            return None, []
        # Whoever says `2h` or `07:00` now means from now on, not from the run's start.
        moment = deadline_utc(spec.deadline, now_utc=self._run.clock.utc())
        return moment, [f"that is {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(moment))}"]

    def _relimit(self, spec: JobSpec, changed: Collection[tuple[str, ...]]) -> None:
        if any(key[0] in {"concurrency", "models", "limit_groups"} for key in changed):
            self._lanes.relimit(spec, changed)
            for lane in self._lanes.by_name.values():
                self._run.spawn(lane)

    def _recap(self, spec: JobSpec, changed: Collection[tuple[str, ...]]) -> list[str]:
        budgets = self._lanes.budgets
        budgets.set_caps(spec)
        caps = budgets.all(simulated=self._lanes.simulated_only)
        shown_caps = [cap for cap in caps if tuple(cap.name.split(".")) in changed]
        verbs = {False: "spent", True: "used"}
        return [
            f"{'' if cap.name == 'budget.usd' else cap.name + ': '}{amount_words(cap, cap.purse.spent_pico)} {verbs[cap.of_tokens]}, "
            f"{amount_words(cap, cap.purse.reserved_pico)} reserved"
            for cap in shown_caps
        ]

    def _stop_overdrawn(self) -> None:
        for cap in {id(cap): cap for lane in self._lanes.by_key for cap in lane.caps}.values():
            if cap.purse.overdrawn:
                self._run.overdrawn(cap)

    async def _retry(self, keys: list[int], model: str | None) -> dict[str, Any]:
        if not self._files:
            raise SpecError("this run's rows come from a pipe or a program and can't be read again: retry when it has ended. Nothing was changed")
        if len(keys) > MOST_ROWS:
            raise SpecError(f"at most {MOST_ROWS} rows at once")
        if model is not None and model not in self._lanes.by_name:
            raise SpecError(f"this run doesn't use the model {model!r} (no route does): stop it, then retry and run again. Nothing was changed")
        now = self._run.clock.utc()

        def work(connection: sqlite3.Connection) -> list[tuple[int, int, int]]:
            found = finished_among(connection, keys)
            reopen(connection, [key for key, _, _ in found], reason="retry", now_utc=now, changed=False, pin=model)
            return found

        found = await self._note("retry", json.text({"rows": len(keys), "model": model}), work) or []
        for _, position, state in found:
            self._feeder.put_back.add(position, state)
        self._say(f"{len(found):,} row{'' if len(found) == 1 else 's'} put back to pending")
        return {"said": [], "rows": len(found)}

    async def _settle(self, word: str, sum_pico: int | None, *, simulated: bool) -> dict[str, Any]:
        if sum_pico is not None and (not isinstance(sum_pico, int) or not 0 <= sum_pico <= MOST_BILLED_PICO):
            raise SpecError("a sum can't be negative, nor above a million dollars")
        now = self._run.clock.utc()

        parts: list[Part] = []

        def work(connection: sqlite3.Connection) -> tuple[Settled, bool, int]:
            before = last_settlement(connection)
            # Where there is one kind only, nobody needs to name it.
            kind = simulated or set(open_attempts(connection, in_flight=False)) == {True}
            return settle(connection, simulated=kind, billed_pico=sum_pico, word=word, now_utc=now, in_flight=False, parts_into=parts), kind, before

        done = await self._note("settle", word, work)
        assert done is not None
        settled, kind, before = done
        if self._settled_after is None:
            self._settled_after = before
        self._lanes.budgets.settle(parts, simulated=kind)
        if settled.attempts:
            self._say(f"settled {settled.attempts:,} possibly billed requests: {text_usd(settled.billed_pico)} booked")
        self._stop_overdrawn()
        self._run.admission.pump()
        return {"said": [], "settled": asdict(settled), "simulated": kind}


def _parsed(texts: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for text in texts:
        try:
            key, value = parse_set(str(text))
        except SpecError as error:
            # Its place is named for `run --set`; here there is no such flag.
            raise SpecError("\n".join(str(problem).removeprefix("--set: ") for problem in error.problems)) from None
        given[key] = value
    if not given:
        raise SpecError("say what to change, such as budget.usd=30")
    return given


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
