"""What every codec of a wire can do. Codecs are sans-IO: values in, bytes out, and back.

One codec object serves one model at one host for a whole run, so all that is constant is made once. The trap: `decode` and `StreamDecoder` meet whatever a
server sends and never raise; an answer that was paid for is not lost to a pedantic parser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from batchllm.core.nouns import Fault, LimitHint, Reply, Request
from batchllm.core.wire import HttpCall, HttpReply


class StreamDecoder(Protocol):
    """Reads one streamed answer; a `StreamReader` whose end gives the outcome."""

    def feed(self, chunk: bytes) -> bool:
        """Takes the next bytes, split anywhere; says whether they brought progress (content, tool calls, thinking; not comments, pings or blank lines)."""

    def end(self, came: HttpReply | Fault) -> Reply | Fault:
        """The outcome. `came`: the transport's reply (empty body after a stream that ended by itself; a whole body that was no stream is decoded as usual), or its fault.

        A stream without a finish reason is a fault of kind CUT, whatever text came; a fault carries the usage that was seen, and is billed `yes` once content came,
        else `maybe`.
        """


@runtime_checkable
class PackingCodec(Protocol):
    """A codec whose wire takes several inputs in one request: those of embeddings."""

    def encode_many(self, requests: Sequence[Request], *, client_request_id: str | None) -> HttpCall:
        """One HTTP call for several inputs that differ in nothing else. TypeError or ValueError for what can't be written."""

    def decode_many(self, reply: HttpReply, count: int, sizes: Sequence[int] | None = None) -> list[Reply | Fault] | Fault:
        """The answers in the order of the inputs, or the fault that all share. `sizes`: by which the usage is shared out, exactly. Never raises."""


class Codec(Protocol):
    """One wire, for one model at one host."""

    model: str
    warnings: list[str]
    """What this codec renamed or left out because the model doesn't take it: sentences for the user, each once; it only grows."""

    def encode(self, request: Request, *, client_request_id: str | None, stream: bool = False) -> HttpCall:
        """The HTTP call. TypeError or ValueError for what JSON can't carry; nothing is sent then."""

    def decode(self, reply: HttpReply) -> Reply | Fault:
        """What the server said. Never raises, whatever the bytes."""

    def decoder(self) -> StreamDecoder:
        """A fresh reader for one streamed answer."""

    def hints(self, headers: Mapping[str, str]) -> tuple[LimitHint, ...]:
        """What the reply's headers say of the limits; at most one hint per dimension."""
