"""A transport to the simulator without sockets: acts its scripts out on the injected clock, and so runs in virtual time.

It maps what happens to faults as the socket transport does, so that the engine can't tell them apart. The trap: a request that is cancelled was received all the
same, so it is booked as not delivered before the cancellation passes on.
"""

from __future__ import annotations

import gzip

from batchllm.core.clock import Clock
from batchllm.core.nouns import Fault, Kind
from batchllm.core.wire import HttpCall, HttpReply, StreamReader
from batchllm.simulator.provider import Simulator
from batchllm.simulator.script import FOREVER_SECONDS, Chunk, Script

_STALLS = frozenset({"stall_before", "stall_mid"})
_KEEP_ALIVES = 10_000
_STREAM_TYPES = ("text/event-stream", "application/x-ndjson")
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

    async def stream(self, call: HttpCall, reader: StreamReader, *, timeout_seconds: float, stall_seconds: float) -> HttpReply | Fault:
        """The chunks of a streamed answer as they would have come, each at its time; any other reply whole."""
        clock = self._clock
        script = self.simulator.receive(call, now=clock.now(), utc=clock.utc())
        delivered = False
        try:
            played = _Play(clock, reader, timeout_seconds, stall_seconds)
            reply = await (played.stream(script) if _is_stream(script) else played.whole(script))
            delivered = isinstance(reply, HttpReply)
            return reply
        finally:
            self.simulator.finish(script, now=clock.now(), utc=clock.utc(), delivered=delivered)

    async def close(self) -> None:
        """Nothing is open."""


class _Play:
    """Acts one script out for a reader, and ends when nothing new has come for too long."""

    def __init__(self, clock: Clock, reader: StreamReader, timeout_seconds: float, stall_seconds: float) -> None:
        self._clock = clock
        self._reader = reader
        self._end = clock.now() + timeout_seconds
        self._stall_seconds = stall_seconds
        self._words = f"no answer began within {timeout_seconds:g} s"

    async def whole(self, script: Script) -> HttpReply | Fault:
        """A reply that is no stream."""
        seconds = FOREVER_SECONDS if script.ending in _STALLS else script.seconds
        return _outcome(script) if await self._passes(seconds) else self._late()

    async def stream(self, script: Script) -> HttpReply | Fault:
        """Chunk by chunk; only what the reader calls progress moves the end."""
        if not await self._passes(script.delay_seconds):
            return self._late()
        for chunk in script.chunks:
            if chunk.delay_seconds and not await self._passes(chunk.delay_seconds):
                return self._late()
            if self._reader.feed(chunk.data):
                self._end = self._clock.now() + self._stall_seconds
                self._words = f"the answer stalled: nothing new for {self._stall_seconds:g} s"
        if script.ending in _STALLS:
            await self._stall(script.keep_alive)
            return self._late()
        if script.ending in _BREAKS:
            return Fault(kind=Kind.NETWORK, message=_BREAKS[script.ending], billed="maybe")
        return HttpReply(status=script.status, body=b"", headers=script.headers)

    async def _stall(self, keep_alive: Chunk | None) -> None:
        """Nothing of an answer any more, until the end."""
        # Bounded, so that a reader which takes comments for progress fails in virtual time instead of running for ever.
        for _ in range(_KEEP_ALIVES):
            if keep_alive is None:
                break
            if not await self._passes(keep_alive.delay_seconds):
                return
            if self._reader.feed(keep_alive.data):
                self._end = self._clock.now() + self._stall_seconds
        await self._passes(FOREVER_SECONDS)

    async def _passes(self, seconds: float) -> bool:
        """Lets time pass; False when the end came before."""
        left = self._end - self._clock.now()
        await self._clock.sleep(max(min(seconds, left), 0.0))
        return seconds < left

    def _late(self) -> Fault:
        return Fault(kind=Kind.TIMEOUT, message=self._words, billed="maybe")


def _is_stream(script: Script) -> bool:
    return script.ending != "stall_before" and 200 <= script.status < 300 and script.headers.get("content-type", "").startswith(_STREAM_TYPES)


def _outcome(script: Script) -> HttpReply | Fault:
    if script.ending == "refuse":
        return Fault(kind=Kind.UNREACHABLE, message="connection refused", billed="no", counts=False)
    if script.ending in _BREAKS:
        return Fault(kind=Kind.NETWORK, message=_BREAKS[script.ending], billed="maybe")
    body = script.chunks[0].data if len(script.chunks) == 1 else script.body
    if script.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return HttpReply(status=script.status, body=body, headers=script.headers)
