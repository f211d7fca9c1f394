"""The way from a process to the provider: where requests and replies are seen, and where a process may die on either side of one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, NoReturn

from batchllm.core.nouns import Fault
from batchllm.core.wire import HttpCall, HttpReply, StreamReader
from batchllm.simulator import SimulatedTransport, Simulator
from batchllm.verify.process import Process, Wall
from batchllm.verify.watch import Watch


class Wire:
    """One per process and model. `silent`: replies say nothing of limits, as those of many gateways do."""

    def __init__(self, simulator: Simulator, model: str, process: Process, watch: Watch, clock: Wall, *, silent: bool) -> None:
        self._process = process
        self._watch = watch
        self._model = model
        self._clock = clock
        self._silent = silent
        self._real = SimulatedTransport(simulator, clock)

    async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply | Fault:
        return await self._asked(call, lambda: self._real.send(call, timeout_seconds=timeout_seconds))

    async def stream(self, call: HttpCall, reader: StreamReader, *, timeout_seconds: float, stall_seconds: float) -> HttpReply | Fault:
        return await self._asked(call, lambda: self._real.stream(call, reader, timeout_seconds=timeout_seconds, stall_seconds=stall_seconds))

    async def _asked(self, call: HttpCall, ask: Callable[[], Coroutine[Any, Any, HttpReply | Fault]]) -> HttpReply | Fault:
        process, watch, model = self._process, self._watch, self._model
        if process.event():
            await _for_ever()
        watch.arrival(model, call, self._clock.now())
        try:
            # In a task of its own, which ends when the provider hears of it: see `hang_up`.
            process.asked.append(asyncio.ensure_future(ask()))
            reply = await asyncio.shield(process.asked[-1])
        finally:
            watch.left(model)
        if self._silent and isinstance(reply, HttpReply):
            reply = replace(reply, headers={name: value for name, value in reply.headers.items() if "ratelimit" not in name.lower()})
        if process.event():
            await _for_ever()
        watch.reply(model, reply, self._clock.now())
        return reply

    async def close(self) -> None:
        await self._real.close()


async def _for_ever() -> NoReturn:
    """Until it is cancelled."""
    while True:
        await asyncio.Event().wait()
