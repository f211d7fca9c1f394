"""A simulator on a port of its own, for tests in which an official SDK talks to it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

from batchllm.server.simulator import serving
from batchllm.simulator import Settings, Simulator


@contextlib.contextmanager
def served(**settings):
    """A simulator on a port of its own, in a thread with its own loop; gives the base URL and the simulator."""
    simulator = Simulator(Settings(**settings), price=lambda _, usage: usage.input_tokens + usage.output_tokens)
    ready = threading.Event()
    state: dict[str, Any] = {}

    async def main():
        state["stop"] = asyncio.Event()
        state["loop"] = asyncio.get_running_loop()
        async with serving(simulator) as url:
            state["url"] = url
            ready.set()
            await state["stop"].wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield state["url"], simulator
    finally:
        state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join(10)


def booked(simulator, count, *, within=5.0):
    """Waits until the server's loop has booked this many requests (a client sees its reply a moment earlier)."""
    end = time.monotonic() + within
    while simulator.audit.requests < count and time.monotonic() < end:
        threading.Event().wait(0.005)
    assert simulator.audit.requests == count
