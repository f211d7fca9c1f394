"""Streams over real sockets: what is progress, what is a stall, and what a cut leaves behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from batchllm.core.nouns import Fault, Kind
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.transport.http import HttpTransport

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\nx-request-id: q1\r\n\r\n"
WHOLE = b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"


class Reader:
    """Comments bring no progress; everything else does."""

    def __init__(self) -> None:
        self.body = b""

    def feed(self, chunk: bytes) -> bool:
        self.body += chunk
        return not chunk.startswith(b":")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Stopped(float):
    """Seconds for which the whole process stands still, as after SIGSTOP."""


def ask(*acts: bytes | float | None, timeout: float = 5.0, stall: float = 5.0) -> tuple[HttpReply | Fault, bytes]:
    """One streamed request to a server that acts: bytes are written, a number is a pause, None ends the connection in the middle."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            for act in acts:
                if act is None:
                    return
                if isinstance(act, Stopped):
                    time.sleep(act)  # noqa: ASYNC251 - that is what it is
                elif isinstance(act, float):
                    await asyncio.sleep(act)
                else:
                    writer.write(act)
                    await writer.drain()
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    async def main() -> tuple[HttpReply | Fault, bytes]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        transport = HttpTransport()
        reader = Reader()
        try:
            call = HttpCall(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", body=b"{}")
            return await transport.stream(call, reader, timeout_seconds=timeout, stall_seconds=stall), reader.body
        finally:
            await transport.close()
            await asyncio.sleep(0.02)  # the server sees that we are gone
            server.close()

    return asyncio.run(main())


def test_a_stream_goes_to_the_reader_and_its_reply_has_the_head() -> None:
    came, body = ask(HEAD, chunk(b"one "), 0.02, chunk(b"two"), b"0\r\n\r\n")
    assert isinstance(came, HttpReply)
    assert (came.status, came.body, came.headers["x-request-id"], body) == (200, b"", "q1", b"one two")


@pytest.mark.parametrize(
    ("status", "kind", "text"), [(429, b"text/event-stream", b"{}"), (200, b"application/json", b'{"a":1}'), (529, b"application/json", b"over")]
)
def test_what_is_no_stream_comes_whole(status: int, kind: bytes, text: bytes) -> None:
    came, body = ask(WHOLE % (status, kind, len(text), text))
    assert isinstance(came, HttpReply)
    assert (came.status, came.body, body) == (status, text, b"")


def test_a_long_answer_is_no_fault_as_long_as_it_goes_on() -> None:
    came, body = ask(HEAD, *[part for _ in range(8) for part in (chunk(b"x"), 0.05)], b"0\r\n\r\n", timeout=0.2, stall=0.2)
    assert isinstance(came, HttpReply)
    assert body == b"x" * 8


def test_a_stream_that_came_while_the_process_was_stopped_is_read() -> None:
    came, body = ask(HEAD, chunk(b"one"), 0.02, chunk(b"two") + b"0\r\n\r\n", Stopped(1.4), timeout=0.2, stall=0.2)
    assert isinstance(came, HttpReply)
    assert body == b"onetwo"


@pytest.mark.parametrize(
    ("acts", "words", "left"),
    [
        ((3.0,), "no answer began within 0.3 s", b""),
        ((HEAD, *[part for _ in range(20) for part in (chunk(b": ping"), 0.05)]), "no answer began within 0.3 s", None),
        ((HEAD, chunk(b"x"), *[part for _ in range(20) for part in (chunk(b": ping"), 0.05)]), "stalled: nothing new for 0.2 s", None),
    ],
)
def test_silence_and_comments_are_a_stall(acts: tuple[Any, ...], words: str, left: bytes | None) -> None:
    came, body = ask(*acts, timeout=0.3, stall=0.2)
    assert isinstance(came, Fault)
    assert (came.kind, came.billed) == (Kind.TIMEOUT, "maybe")
    assert words in came.message
    assert left is None or body == left


def test_a_cut_in_the_middle_is_a_network_fault_and_the_reader_keeps_what_came() -> None:
    came, body = ask(HEAD, chunk(b"half"), 0.05, None)
    assert isinstance(came, Fault)
    assert (came.kind, came.billed, body) == (Kind.NETWORK, "maybe", b"half")


def test_cancellation_passes() -> None:
    async def main() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.transport.abort()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        transport = HttpTransport()
        call = HttpCall(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", body=b"{}")
        make: Callable[[], Coroutine[Any, Any, Any]] = lambda: transport.stream(call, Reader(), timeout_seconds=5, stall_seconds=5)  # noqa: E731 - a type for it
        task = asyncio.create_task(make())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await transport.close()
        await asyncio.sleep(0.02)
        server.close()

    asyncio.run(main())
