"""What passes between a codec and a transport: one HTTP call and its reply, as plain values.

A transport is anything with `send`: sockets (`transport/`), or the simulator in this process. Foreign exceptions are mapped to `Fault` inside it, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from batchllm.core.nouns import Fault
from batchllm.core.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """One request to a provider."""

    url: str
    body: bytes
    headers: Mapping[str, str | Secret] = field(default_factory=dict)
    """Names as sent; secrets stay `Secret` until the socket."""
    method: str = "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """A complete reply, whatever its status."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Lower-case names."""


class StreamReader(Protocol):
    """Takes the body of a streamed answer as it comes, in any pieces."""

    def feed(self, chunk: bytes) -> bool:
        """Takes the next bytes; says whether they brought progress (part of an answer: comments, pings and blank lines are none). Never raises, whatever the bytes."""


class Transport(Protocol):
    """Sends one call and returns its complete reply, or the fault that kept it from coming."""

    async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply | Fault:
        """Never raises for what the network or the server did; cancellation passes through."""

    async def stream(self, call: HttpCall, reader: StreamReader, *, timeout_seconds: float, stall_seconds: float) -> HttpReply | Fault:
        """Like `send`, but a 2xx body that is a stream goes to `reader` piece by piece, and the reply then has an empty body.

        Any other reply (an error, a plain JSON answer) comes back whole. `timeout_seconds` bounds the wait for the first progress, `stall_seconds` every later wait for
        the next: a long answer is not a fault. A cut after the first bytes is a `Fault` of kind NETWORK, a stall one of kind TIMEOUT; the reader knows what came before.
        """

    async def close(self) -> None:
        """Ends open connections."""
