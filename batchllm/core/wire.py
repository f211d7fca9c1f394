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


class Transport(Protocol):
    """Sends one call and returns its complete reply, or the fault that kept it from coming."""

    async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply | Fault:
        """Never raises for what the network or the server did; cancellation passes through."""

    async def close(self) -> None:
        """Ends open connections."""
