"""One row of a job, asked by the real engine in a store that is thrown away: what would be sent, where to, for how much, and what comes back.

Because it is the engine itself, the request, the route, the bound, the validation and the price are those of a run. The trap: a try must not become a night. It
ends with the first reply that is no answer, whatever a run would do about it, and the job's own store is never opened.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Draft, Fault, Result, Row, RowError
from batchllm.core.secret import Scrubber
from batchllm.core.wire import HttpCall, HttpReply, StreamReader, Transport
from batchllm.engine.deps import Deps, RunOptions
from batchllm.engine.run import run_job
from batchllm.engine.source import Planned, Source
from batchllm.providers.deltas import Deltas
from batchllm.store.read import StoreReader

if TYPE_CHECKING:
    from batchllm.engine.control import Control
    from batchllm.engine.lane import Lane
    from batchllm.engine.summary import Summary
    from batchllm.spec import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The row, and where it goes."""

    row: Row
    draft: Draft
    chain: tuple[str, ...]
    rule: int | None
    """Index of the route's rule; None when the row, or a flag, names its model."""
    by_flag: bool = False
    """Whether a flag names the model: then what the row says of it doesn't count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request on its way, without secrets."""

    name: str
    """Under `models`."""
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    counter: str
    input_tokens: int | None
    """By the counter; None for a request that is not the row's first one (a repair, an escalation)."""
    bound_pico: int | None
    """The most that it can cost; None where no price or no bound is known."""
    streamed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """How it ended."""

    chosen: Chosen
    asked: tuple[Asked, ...]
    result: Result | None
    """None when no answer came that a run would have kept."""
    trouble: Fault | None
    """The reply that ended the try."""
    summary: Summary
    first_seconds: float | None
    """From the last request to the first part of its streamed answer."""


class Watcher(Protocol):
    """Who looks on."""

    def chosen(self, chosen: Chosen) -> None:
        """The row was found."""

    def asked(self, asked: Asked) -> None:
        """A request is about to leave."""

    def piece(self, text: str) -> None:
        """The next part of a streamed answer."""


def find_row(source: Source, wanted: str | None) -> Row:
    """The row with this id, else the one at this place (from 0); the first one for None. Raises SpecError when there is none."""
    place = int(wanted) if wanted is not None and wanted.isdecimal() else None
    there: Row | None = None
    count = 0
    for chunk in source.chunks():
        for row in chunk:
            if wanted is None or row.custom_id == wanted:
                return row
            if row.position == place:
                there = row
            count += 1
    if there is not None:
        return there
    if wanted is None:
        raise SpecError(Problem(path="input", message="the input has no row"))
    raise SpecError(Problem(file="--row", message=f"no row has the id {wanted!r}, and rows are counted from 0 to {count - 1:,}"))


def changes_for_a_try(folder: Path) -> dict[str, Any]:
    """What a try changes in a spec; the request stays as it is."""
    return {
        "store": str(folder / "try.db").replace("$", "$$"),
        "results": "none",
        "keep_bodies": "none",
        "durability": "normal",
        "deadline": None,
        "cache": False,
        "max_failed": None,
        "concurrency": 1,
        "retry.max_attempts": 1,
        "retry.initial_seconds": 0.1,
        "retry.outage_seconds": 1,
    }


def choose(spec: JobSpec, environ: Mapping[str, str], wanted: str | None, model: str | None) -> Chosen | RowError:
    """The row and its models; RowError when a run would fail the row before sending anything. Raises SpecError."""
    source = Source(spec, RunOptions(), environ)
    source.check()
    row = find_row(source, wanted)
    planned = source.plan(row, model)
    if not isinstance(planned, Planned):
        return planned
    return Chosen(row=row, draft=planned.draft, chain=planned.chain, rule=planned.rule if model is None else None, by_flag=model is not None)


async def try_row(spec: JobSpec, deps: Deps, chosen: Chosen, watcher: Watcher) -> Tried:
    """Sends the row, once, to the first model of its chain. `spec`: with `changes_for_a_try`. Raises SpecError."""
    watcher.chosen(chosen)
    spec = spec.model_copy(update={"routes": tuple(route.model_copy(update={"use": chosen.chain[:1], "when": None}) for route in spec.routes[:1])})
    state = _State(watcher, chosen, deps)

    async def start(control: Control) -> None:
        state.control = control

    results: list[Result] = []
    watched = replace(deps, around=state.around, on_start=start, on_result=results.extend)
    fields = dict(chosen.row.fields)
    if chosen.by_flag:
        fields = _unpinned(spec, fields)
    # An iterator: what one row lacks is its own affair, and no mistake of the spec.
    summary = await run_job(spec, watched, RunOptions(records=iter([fields])))
    result = results[-1] if results else None
    if result is None:
        with StoreReader(Path(summary.store)) as reader:
            result = next(iter(reader.results()), None)
    if result is not None:
        result = replace(result, row=chosen.row.position, custom_id=chosen.row.custom_id)
    return Tried(chosen=chosen, asked=tuple(state.asked), result=result, trouble=state.trouble, summary=summary, first_seconds=state.first_seconds)


def _unpinned(spec: JobSpec, fields: dict[str, Any]) -> dict[str, Any]:
    """A record that names no model of its own."""
    column = spec.overrides.model or ("model" if spec.prompt is None else None)
    body = fields.get("body")
    if spec.prompt is None and isinstance(body, dict):
        fields["body"] = {key: value for key, value in body.items() if key != "model"}
    return {key: value for key, value in fields.items() if key != column}


def folder_for_a_try() -> tempfile.TemporaryDirectory[str]:
    """Where the store lives that is thrown away."""
    return tempfile.TemporaryDirectory(prefix="batchllm-try-")


class _State:
    """What was seen so far."""

    def __init__(self, watcher: Watcher, chosen: Chosen, deps: Deps) -> None:
        self.watcher = watcher
        self.draft = chosen.draft
        self.clock = deps.clock
        self.control: Control | None = None
        self.asked: list[Asked] = []
        self.trouble: Fault | None = None
        self.sent_at = 0.0
        self.first_seconds: float | None = None

    def around(self, lane: Lane, scrubber: Scrubber) -> Transport:
        return _Watched(self, lane, scrubber)

    def sends(self, lane: Lane, scrubber: Scrubber, call: HttpCall, *, streamed: bool) -> None:
        first = not self.asked
        prepared = lane.prepare(lane.request(self.draft), self.clock.utc()) if first else None
        asked = Asked(
            name=lane.name,
            method=call.method,
            url=scrubber.text(call.url),
            headers={name: scrubber.text(str(value)) for name, value in call.headers.items()},
            body=scrubber.bytes(call.body),
            counter=lane.counter.name,
            input_tokens=prepared.estimate if prepared is not None else None,
            bound_pico=prepared.reserve_pico if prepared is not None else None,
            streamed=streamed,
        )
        self.asked.append(asked)
        self.sent_at, self.first_seconds = self.clock.now(), None
        self.watcher.asked(asked)

    def came(self, lane: Lane, scrubber: Scrubber, came: HttpReply | Fault) -> None:
        """A reply that is no answer ends the try: a run would wait, or try again."""
        outcome = came if isinstance(came, Fault) else lane.codec(self.draft.endpoint).decode(came)
        if isinstance(outcome, Fault):
            code = outcome.provider_code
            self.trouble = replace(outcome, message=scrubber.text(outcome.message), provider_code=None if code is None else scrubber.text(code))
            if self.control is not None:
                self.control.stop(message="a try ends with the first reply that is no answer", stopped_by="try")

    def piece(self, text: str) -> None:
        if self.first_seconds is None:
            self.first_seconds = self.clock.now() - self.sent_at
        self.watcher.piece(text)


class _Watched:
    """A transport that tells what passes through it. Its inner one is closed by the run."""

    def __init__(self, state: _State, lane: Lane, scrubber: Scrubber) -> None:
        self._state = state
        self._lane = lane
        self._scrubber = scrubber
        self._inner = lane.transport

    async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply | Fault:
        self._state.sends(self._lane, self._scrubber, call, streamed=False)
        came = await self._inner.send(call, timeout_seconds=timeout_seconds)
        self._state.came(self._lane, self._scrubber, came)
        return came

    async def stream(self, call: HttpCall, reader: StreamReader, *, timeout_seconds: float, stall_seconds: float) -> HttpReply | Fault:
        self._state.sends(self._lane, self._scrubber, call, streamed=True)
        watched = _Reader(self._state, self._scrubber, reader)
        came = await self._inner.stream(call, watched, timeout_seconds=timeout_seconds, stall_seconds=stall_seconds)
        if isinstance(came, Fault) or came.body:
            self._state.came(self._lane, self._scrubber, came)
        return came

    async def close(self) -> None:
        """The run closes the inner one."""


class _Reader:
    """Shows a stream's text on its way to the decoder."""

    def __init__(self, state: _State, scrubber: Scrubber, inner: StreamReader) -> None:
        self._state = state
        self._scrubber = scrubber
        self._inner = inner
        self._deltas = Deltas()

    def feed(self, chunk: bytes) -> bool:
        text = self._deltas.feed(chunk)
        if text:
            self._state.piece(self._scrubber.text(text))
        return self._inner.feed(chunk)
