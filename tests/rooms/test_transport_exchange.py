"""One exchange over a real socket: what goes out, what replies may look like, and when a connection serves another row."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from batchllm.core.nouns import Fault, Kind
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.transport.http import HttpTransport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Reads whole requests and answers each with the next of `replies` (the last one again and again); None ends the connection."""

    def __init__(self, *replies: bytes | None, act: Act | None = None) -> None:
        self.replies = list(replies)
        self.act = act
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self.act is not None:
                await self.act(reader, writer)
                return
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
                self.requests.append(head + await reader.readexactly(size))
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                if reply is None:
                    return
                writer.write(reply)
                if b"Content-Length" not in reply and b"chunked" not in reply:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def play(server: Server, *calls: HttpCall | None, timeout: float = 5.0) -> list[HttpReply | Fault]:
    """Sends one call after the other (None: a POST of "{}") on one transport; {url} stands for the server's address."""

    async def main() -> list[HttpReply | Fault]:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        transport = HttpTransport()
        try:
            came = []
            for call in calls:
                sent = call or HttpCall(url="/v1", body=b"{}")
                sent = HttpCall(url=server.url + sent.url, body=sent.body, headers=sent.headers, method=sent.method)
                came.append(await transport.send(sent, timeout_seconds=timeout))
                await asyncio.sleep(0)
            return came
        finally:
            await transport.close()
            await asyncio.sleep(0.01)  # the server sees that we are gone
            listening.close()

    return asyncio.run(main())


def test_the_request_as_it_goes_out() -> None:
    server = Server(OK)
    headers = {"Content-Type": "application/json", "Authorization": Secret("Bearer k"), "accept": "text/event-stream"}
    play(server, HttpCall(url="/v1/chat?a=b%20c", body='{"ä":1}'.encode(), headers=headers), HttpCall(url="/v1/models", body=b"", method="GET"))
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /v1/chat?a=b%20c HTTP/1.1"
    assert body == '{"ä":1}'.encode()
    told = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert len(told) == len(lines), "no header twice"
    assert told.pop("accept-encoding").startswith("gzip")
    assert told == {
        "host": server.url.removeprefix("http://"), "user-agent": "batchllm", "content-type": "application/json",
        "authorization": "Bearer k", "accept": "text/event-stream", "content-length": "8",
    }  # fmt: skip
    assert server.requests[1].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"content-length" not in server.requests[1].lower()


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b"])
def test_a_header_is_one_line(value: str) -> None:
    server = Server(OK)
    with pytest.raises(ValueError, match="line break"):
        play(server, HttpCall(url="/v1", body=b"{}", headers={"X-Note": value}))
    assert server.connections == 0


PACKED = gzip.compress(b"ok", mtime=0)


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        (OK, 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(PACKED), PACKED), 200, b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nok", 200, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, b""),
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", 302, b""),
        (b"HTTP/1.1 200 OK\r\nX-Policy: " + b"p" * 60_000 + b"\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
    ],
    ids=["plain", "chunked", "gzip", "until the end", "100 first", "103 first", "no content", "redirect", "long header"],
)
def test_replies_of_all_kinds(reply: bytes, status: int, body: bytes) -> None:
    for came in play(Server(reply), None, None):
        assert isinstance(came, HttpReply)
        assert (came.status, came.body) == (status, body)


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (None, Kind.NETWORK, "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Kind.TIMEOUT, "no complete answer"),
        (b"SSH-2.0-OpenSSH\r\n", Kind.PROTOCOL, "not understood as HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", Kind.PROTOCOL, "larger than"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope", Kind.NETWORK, "cut short"),
    ],
)
def test_what_is_no_reply_is_a_fault(reply: bytes | None, kind: Kind, words: str) -> None:
    (came,) = play(Server(reply), None, timeout=0.3)
    assert isinstance(came, Fault)
    assert (came.kind, came.billed) == (kind, "maybe")
    assert words in came.message


def test_a_connection_serves_many_rows_until_the_server_says_otherwise() -> None:
    server = Server(OK)
    play(server, None, None, None)
    assert server.connections == 1
    closing = Server(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    play(closing, None, None, None)
    assert closing.connections == 3


def test_what_lies_unread_on_a_connection_is_nobody_elses_answer() -> None:
    """A server that answers twice: the second answer comes while the connection rests."""

    async def main() -> list[Any]:
        rests, written = asyncio.Event(), asyncio.Event()

        async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.readuntil(b"{}"):
                    writer.write(OK)
                    await rests.wait()
                    rests.clear()
                    writer.write(OK.replace(b"ok", b"no"))
                    written.set()
            except (ConnectionError, asyncio.IncompleteReadError):
                writer.close()

        server = await asyncio.start_server(twice, "127.0.0.1", 0)
        transport = HttpTransport()
        call = HttpCall(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", body=b"{}")
        try:
            came = []
            for _ in range(3):
                came.append(await transport.send(call, timeout_seconds=5))
                rests.set()
                await written.wait()
                written.clear()
                await asyncio.sleep(0.01)  # it is in the socket: one turn of the loop reads it
            return came
        finally:
            await transport.close()
            await asyncio.sleep(0.01)
            server.close()

    assert [reply.body for reply in asyncio.run(main())] == [b"ok", b"ok", b"ok"]


def test_an_answer_that_came_while_the_process_was_stopped_is_read() -> None:
    """Ctrl-Z for longer than the timeout: what is paid for waits in the socket."""

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(OK)
        time.sleep(1.4)  # noqa: ASYNC251 - the whole process stands still, as after SIGSTOP

    (came,) = play(Server(act=answers), None, timeout=0.2)
    assert isinstance(came, HttpReply)
    assert came.body == b"ok"


def test_a_body_that_the_server_does_not_read_ends_with_its_timeout() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        await asyncio.sleep(0.3)

    (came,) = play(Server(act=deaf), HttpCall(url="/v1", body=b"x" * 2**25), timeout=0.2)
    assert isinstance(came, Fault)
    assert (came.kind, came.billed) == (Kind.TIMEOUT, "maybe")


def test_an_answer_before_the_whole_request_was_read_is_heard() -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)

    (came,) = play(Server(act=early), HttpCall(url="/v1", body=b"x" * 2**24))
    assert isinstance(came, HttpReply)
    assert came.status == 413
