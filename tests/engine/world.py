"""A whole world for the engine: a folder with a job, providers that a test holds in its hands, and time that jumps.

`World.run` is one run on a virtual loop; the clock goes on from run to run, so a provider's buckets and audit outlive the run as a real provider's would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from batchllm.core.events import Note, Progress, RowsCompared
from batchllm.core.nouns import Fault, Kind, Usage
from batchllm.core.tools import Toolkit
from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.core.wire import HttpCall, HttpReply, StreamReader
from batchllm.cost import from_spec
from batchllm.engine import Deps, RunOptions, Summary, run_job
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.spec import build

PRICE = {"input": 1, "output": 2}
_PRICES = from_spec(**PRICE)
# No crash of the machine is played here, only of the process; fsync would cost most of the time.
_DEFAULTS: dict[str, Any] = {"name": "t", "prompt": "{{ text }}", "request": {"max_tokens": 20}, "durability": "normal"}


class WorldClock(VirtualClock):
    """Virtual time that goes on where the last run's loop ended."""

    def __init__(self, elapsed: float) -> None:
        super().__init__()
        self._elapsed = elapsed

    def now(self) -> float:
        return self._elapsed + super().now()

    def utc(self) -> float:
        return self._elapsed + super().utc()


class Scripted:
    """A provider that does what a function says: `answer(nth, text, now)` gives (seconds, HttpReply or Fault) for its nth request (from 0)."""

    def __init__(self, answer: Callable[[int, str, float], tuple[float, HttpReply | Fault]]) -> None:
        self._answer = answer
        self.clock: Any = None
        self.arrivals: list[tuple[float, str]] = []
        """(seconds, the last message) of each request."""
        self.in_flight = self.most_in_flight = 0

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.arrivals]

    async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply | Fault:
        text = json.loads(call.body)["messages"][-1]["content"]
        now = self.clock.now()
        seconds, reply = self._answer(len(self.arrivals), text, now)
        self.arrivals.append((now, text))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.in_flight -= 1
        return reply

    async def close(self) -> None:
        """Nothing is open."""


def good(text: str = "fine", usage: tuple[int, int] | None = (10, 5), **more: Any) -> HttpReply:
    """A 200 with an answer; `usage` is (input, output)."""
    body: dict[str, Any] = {
        "id": "x", "object": "chat.completion", "created": 1, "model": "sim",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        **more,
    }  # fmt: skip
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return HttpReply(status=200, body=json.dumps(body).encode(), headers={"content-type": "application/json"})


def bad(status: int, code: str | None = None, message: str = "no", **headers: str) -> HttpReply:
    """An error reply in OpenAI's form; headers with underscores for dashes."""
    body = json.dumps({"error": {"message": message, "type": code, "code": code, "param": None}}).encode()
    return HttpReply(status=status, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def dead() -> Fault:
    """Nobody listens there."""
    return Fault(kind=Kind.UNREACHABLE, message="connection refused", billed="no", counts=False)


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    """Plain rows `r0`, `r1`, ..."""
    return [{"custom_id": f"r{i}", "text": f"row {i} says hello", **more} for i in range(count)]


class _Wire:
    """To a simulator, until the process is dead: a process that died between two commits sends nothing any more."""

    def __init__(self, transport: SimulatedTransport, world: World) -> None:
        self._transport = transport
        self._world = world

    async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply | Fault:
        if self._world.dead:
            await asyncio.sleep(1e6)
        return await self._transport.send(call, timeout_seconds=timeout_seconds)

    async def stream(self, call: HttpCall, reader: StreamReader, *, timeout_seconds: float, stall_seconds: float) -> HttpReply | Fault:
        if self._world.dead:
            await asyncio.sleep(1e6)
        return await self._transport.stream(call, reader, timeout_seconds=timeout_seconds, stall_seconds=stall_seconds)

    async def close(self) -> None:
        await self._transport.close()


class World:
    """One job in one folder. `sims` are settings per model name (default: one model `m`); `scripts` replace a model's simulator by a function."""

    def __init__(
        self,
        folder: Path,
        input_rows: int | list[Any],
        *,
        sims: dict[str, dict[str, Any]] | None = None,
        scripts: dict[str, Scripted] | None = None,
        models: dict[str, dict[str, Any]] | None = None,
        seed: int = 1,
        toolkit: Toolkit | None = None,
        **keys: Any,
    ) -> None:
        self.folder = folder
        self.toolkit = toolkit
        """Functions that models may call; `request.tools` declares them."""
        self.rng = random.Random(seed)
        self.elapsed = 0.0
        names = list(dict.fromkeys([*(models or {}), *(sims or {}), *(scripts or {})])) or ["m"]
        self.keys: dict[str, Any] = {
            **_DEFAULTS,
            "input": str(folder / "in.jsonl"),
            "models": {name: {"provider": "simulated", "model": name, "price": PRICE, **(models or {}).get(name, {})} for name in names},
            **keys,
        }
        self.scripts = dict(scripts or {})
        self.sims = {
            name: Simulator(Settings(**{"latency_ms": 100.0, "latency_sigma": 0.0, **(sims or {}).get(name, {})}), price=_price, started=0.0)
            for name in names
            if name not in self.scripts
        }
        self.notes: list[Note] = []
        self.compared: list[RowsCompared] = []
        self.progress: list[Progress] = []
        self.put(input_rows)

    def put(self, input_rows: int | list[Any]) -> None:
        """Writes the input; texts go in as they are."""
        listed = rows(input_rows) if isinstance(input_rows, int) else input_rows
        (self.folder / "in.jsonl").write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in listed))

    def run(self, options: RunOptions | None = None, *, ask: str | None = None, **keys: Any) -> Summary:
        """One run; `keys` replace keys of the spec for it."""
        return self.play(lambda: self.go(options, ask=ask, **keys))

    def play(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """A coroutine in this world's time."""

        async def timed() -> Any:
            try:
                return await main()
            finally:
                self.elapsed += asyncio.get_running_loop().time()

        return run_virtual(timed)

    async def go(
        self, options: RunOptions | None = None, *, ask: str | None = None, on_result: Any = None, on_start: Any = None, **keys: Any
    ) -> Summary:
        clock = WorldClock(self.elapsed)
        self.dead = False
        transports: dict[str, Any] = {name: _Wire(SimulatedTransport(simulator, clock), self) for name, simulator in self.sims.items()}
        for name, script in self.scripts.items():
            script.clock = clock
            transports[name] = script
        deps = Deps(
            clock=clock,
            environ={},
            rng=self.rng,
            inline=True,
            listener=self._hear,
            transports=lambda name, _: transports.get(name),
            ask_change=(lambda _: ask) if ask is not None else None,
            on_result=on_result,
            on_start=on_start,
        )
        return await run_job(build({**self.keys, **keys}, folder=self.folder, toolkit=self.toolkit), deps, options or RunOptions())

    def _hear(self, event: object) -> None:
        for kind, heard in ((Note, self.notes), (RowsCompared, self.compared), (Progress, self.progress)):
            if isinstance(event, kind):
                heard.append(event)  # type: ignore[attr-defined]  # each list holds its kind

    # What came of it.

    def results(self) -> list[dict[str, Any]]:
        """The results file."""
        return [json.loads(line) for line in (self.folder / "t.results.jsonl").read_text().splitlines()]

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """A question to the store."""
        with contextlib.closing(sqlite3.connect(self.folder / "t.db")) as connection:
            return connection.execute(query).fetchall()

    def records(self, name: str = "m") -> list[Any]:
        """The simulator's audit, in the order of arrival."""
        return sorted(self.sims[name].audit.records, key=lambda record: record.now)

    def image(self, to: Path) -> None:
        """The store as a kill at this moment would leave it, with its unfolded WAL, in another folder; the input stays where it is."""
        self.dead = True
        to.mkdir()
        for name in ("t.db", "t.db-wal"):
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, to / name)


def _price(_model: str, usage: Usage) -> int:
    return _PRICES.price(usage)
