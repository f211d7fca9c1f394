"""What the server is going to do for one request, as a value: so that sockets and the in-process transport act out the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from batchllm.core.nouns import Usage
from batchllm.simulator.bucket import NOTHING, Charge

Ending = Literal[
    "complete",  # the answer is sent in full
    "complete_close",  # in full, then the connection is closed without a word (keep-alive closed between requests)
    "refuse",  # the connection is not accepted; over sockets: aborted before a byte is answered, which is as near as a listening server gets
    "reset_before",  # RST before the headers
    "reset_mid",  # RST after the chunks
    "close_early",  # FIN after the chunks, though more was promised
    "stall_before",  # silence for ever instead of headers
    "stall_mid",  # silence for ever after the chunks
]

FOREVER_SECONDS = 1_000_000.0
"""How long a stall lasts: longer than any client waits, and finite so that a virtual clock can jump over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Bytes that are written at once, after a pause."""

    data: bytes
    delay_seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Ticket:
    """What the simulator has to remember until the request's end. Mutable on purpose: it is settled exactly once."""

    time: float
    now: float
    request_id: str
    client_request_id: str | None = None
    model: str | None = None
    fault: str | None = None
    executed: bool = False
    billed: bool = False
    usage: Usage | None = None
    digest: str | None = None
    charged: Charge = NOTHING
    settled: Charge = NOTHING
    """What the token buckets are charged in the end."""
    account: str | None = None
    """Whose request it is, where there are several keys: each is an account of its own, with its own limits."""
    bucket: str = ""
    """Whose buckets those are."""
    logged: bool = True
    """False for requests that generate nothing (`/v1/models`)."""
    finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The whole reply, with its pauses and its ending."""

    ticket: Ticket
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    """Lower-case names; no content-length."""
    delay_seconds: float = 0.0
    """Before the headers."""
    chunks: tuple[Chunk, ...] = ()
    ending: Ending = "complete"
    keep_alive: Chunk | None = None
    """Said again and again while a `stall_mid` lasts; None: silence."""
    content_length: int | None = None
    """What is promised; None means a body of unknown length (chunked)."""

    @property
    def body(self) -> bytes:
        """Everything that is sent."""
        return b"".join([chunk.data for chunk in self.chunks])

    @property
    def seconds(self) -> float:
        """From the request's arrival to the last byte."""
        if len(self.chunks) == 1:
            return self.delay_seconds + self.chunks[0].delay_seconds
        return self.delay_seconds + sum(chunk.delay_seconds for chunk in self.chunks)
