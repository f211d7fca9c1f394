"""A transport to the simulator without sockets: acts its scripts out on the injected clock, and so runs in virtual time.

It maps what happens to faults as the socket transport does, so that the engine can't tell them apart. The trap: a request that is cancelled was received all the
same, so it is booked as not delivered before the cancellation passes on.
"""

from __future__ import annotations

import gzip

from batchllm.core.clock import Clock
from batchllm.core.nouns import Fault, Kind
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.simulator.provider import Simulator
from batchllm.simulator.script import FOREVER_SECONDS, Script

_STALLS = frozenset({"stall_before", "stall_mid"})
_BREAKS = {
    "reset_before": "connection reset by the provider before it answered",
    "reset_mid": "connection reset by the provider in the middle of its answer",
    "close_early": "connection closed before the whole answer had come",
}


class SimulatedTransport:
    """`core.wire.Transport` to a simulator in this process."""

    def __init__(self, simulator: Simulator, clock: Clock) -> None:
        self.simulator = simulator
        self._clock = clock

    async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply | Fault:
        """What a socket would have brought, after the time that it would have taken."""
        clock = self._clock
        script = self.simulator.receive(call, now=clock.now(), utc=clock.utc())
        delivered = False
        try:
            seconds = FOREVER_SECONDS if script.ending in _STALLS else script.seconds
            if seconds >= timeout_seconds:
                await clock.sleep(timeout_seconds)
                return Fault(kind=Kind.TIMEOUT, message=f"no complete answer within {timeout_seconds:g} s", billed="maybe")
            # Even an answer in no time lets the other tasks run.
            await clock.sleep(seconds)
            reply = _outcome(script)
            delivered = isinstance(reply, HttpReply)
            return reply
        finally:
            self.simulator.finish(script, now=clock.now(), utc=clock.utc(), delivered=delivered)

    async def close(self) -> None:
        """Nothing is open."""


def _outcome(script: Script) -> HttpReply | Fault:
    if script.ending == "refuse":
        return Fault(kind=Kind.UNREACHABLE, message="connection refused", billed="no", counts=False)
    if script.ending in _BREAKS:
        return Fault(kind=Kind.NETWORK, message=_BREAKS[script.ending], billed="maybe")
    body = script.chunks[0].data if len(script.chunks) == 1 else script.body
    if script.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return HttpReply(status=script.status, body=body, headers=script.headers)
