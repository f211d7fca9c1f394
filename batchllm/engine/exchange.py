"""One request goes out and its answer comes back, whole or streamed, without secrets in it.

A provider that echoes a key must not bring it into an answer, an error or the store. The trap: in a stream a secret may be cut over several pieces, so the answer
put together is looked through, not its pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from batchllm.core.clock import Clock
from batchllm.core.nouns import Fault, Reply
from batchllm.core.secret import Scrubber
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.providers.codec import Codec, PackingCodec, StreamDecoder

if TYPE_CHECKING:
    from batchllm.engine.context import Context
    from batchllm.engine.lane import Lane


class Exchange:
    """What one request brought."""

    __slots__ = ("body", "came", "first_token_at", "outcome")

    def __init__(self, came: HttpReply | Fault, outcome: Reply | Fault, body: bytes | None, first_token_at: float | None) -> None:
        self.came = came
        self.outcome = outcome
        self.body = body
        """What the provider sent, for the store; None when nothing came."""
        self.first_token_at = first_token_at
        """Loop time of the first part of a streamed answer."""


class Timed:
    """Hands a stream on to its decoder, keeps its bytes if they are wanted, and notes when the first part of the answer came."""

    __slots__ = ("_clock", "_decoder", "_on_first", "first_at", "parts")

    def __init__(self, decoder: StreamDecoder, clock: Clock, *, keep: bool, on_first: Callable[[], None] | None = None) -> None:
        self._decoder = decoder
        self._clock = clock
        self._on_first = on_first
        self.first_at: float | None = None
        self.parts: list[bytes] | None = [] if keep else None

    def feed(self, chunk: bytes) -> bool:
        """Takes the next bytes."""
        if self.parts is not None:
            self.parts.append(chunk)
        progress = self._decoder.feed(chunk)
        if progress and self.first_at is None:
            self.first_at = self._clock.now()
            if self._on_first is not None:
                self._on_first()
        return progress


async def exchange(run: Context, lane: Lane, codec: Codec, call: HttpCall) -> Exchange:
    """Sends a call and decodes what comes. Cancellation passes."""
    if lane.streams:
        return await _streamed(run, lane, codec, call)
    came = await lane.transport.send(call, timeout_seconds=run.timeout_seconds)
    if not isinstance(came, HttpReply):
        return Exchange(came, came, None, None)
    came = _clean(run, came)
    return Exchange(came, codec.decode(came), came.body, None)


async def exchange_many(
    run: Context, lane: Lane, codec: PackingCodec, call: HttpCall, sizes: Sequence[int]
) -> tuple[HttpReply | Fault, list[Reply | Fault] | Fault, bytes | None]:
    """Sends a call for several inputs and decodes what comes: (reply, one outcome for each input or a fault for all, the body). Cancellation passes."""
    came = await lane.transport.send(call, timeout_seconds=run.timeout_seconds)
    if not isinstance(came, HttpReply):
        return came, came, None
    came = _clean(run, came)
    return came, codec.decode_many(came, len(sizes), sizes), came.body


async def _streamed(run: Context, lane: Lane, codec: Codec, call: HttpCall) -> Exchange:
    decoder = codec.decoder()
    timed = Timed(decoder, run.clock, keep=run.keeps_bodies, on_first=lane.prompt_cache.began if lane.prompt_cache is not None else None)
    came = await lane.transport.stream(call, timed, timeout_seconds=run.timeout_seconds, stall_seconds=run.spec.retry.stall_seconds)
    if isinstance(came, HttpReply) and came.body:
        came = _clean(run, came)
    outcome = decoder.end(came)
    if isinstance(outcome, Reply):
        outcome = _without_secrets(run.scrubber, outcome)
    body = b"".join(timed.parts) if timed.parts else came.body if isinstance(came, HttpReply) else None
    return Exchange(came, outcome, body or None, timed.first_at)


def _clean(run: Context, came: HttpReply) -> HttpReply:
    clean = run.scrubber.reply(came.body)
    return came if clean is came.body else HttpReply(status=came.status, body=clean, headers=came.headers)


def _without_secrets(scrubber: Scrubber, reply: Reply) -> Reply:
    """The answer without secrets, the same object when there were none."""
    text, refusal = _text(scrubber, reply.text), _text(scrubber, reply.refusal)
    calls = [
        {**call, "function": {**function, "arguments": _text(scrubber, arguments)}}
        if isinstance(function := call.get("function"), dict) and isinstance(arguments := function.get("arguments"), str)
        else call
        for call in reply.tool_calls
    ]
    if text == reply.text and refusal == reply.refusal and calls == list(reply.tool_calls):
        return reply
    return replace(reply, text=text, refusal=refusal, tool_calls=tuple(calls))


def _text(scrubber: Scrubber, text: str | None) -> str | None:
    if text is None:
        return None
    data = text.encode(errors="surrogatepass")
    clean = scrubber.reply(data)
    return text if clean is data else clean.decode(errors="replace")
