"""One HTTP exchange on aiohttp's connections, without its client session.

The connector opens, secures, keeps and closes connections, and aiohttp's parser reads replies; only the bytes of the request are written here. A session makes a request
object, a response object and a writer's task for each call besides, which is three quarters of what a call costs, and a batch has no use for them: no cookies,
no redirects, no uploads in pieces.

The trap is a connection on which something still lies unread (an answer that came too late, a "408" into the silence): the next row would get it for its own.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from batchllm.core.secret import Secret
from batchllm.core.wire import HttpCall

CONNECT_SECONDS = 10.0
_LINE_BYTES = 64 * 1024
"""The longest header that is read: gateways put whole policies into one."""
_JOINED_BYTES = 64 * 1024
"""A body up to here goes out in one piece with its headers; a copy of a larger one would cost more than a second write."""
_SWITCHING = 101
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)


class _Origin:
    """What all calls of one URL have in common."""

    __slots__ = ("_lines", "_target", "request")

    def __init__(self, url: URL) -> None:
        # GET, for one with a body would bring headers of its own. It is never sent: the connector reads from it where to connect to.
        self.request = aiohttp.ClientRequest("GET", url, loop=asyncio.get_running_loop(), headers={"User-Agent": "batchllm"})
        self._target = url.raw_path_qs
        self._lines = {name.lower(): f"{name}: {value}" for name, value in self.request.headers.items()}

    def head(self, call: HttpCall) -> bytes:
        """The request up to its body. Raises ValueError for a header that would be two."""
        lines = [f"{call.method} {self._target} HTTP/1.1"]
        own = {name.lower() for name in call.headers}
        lines += [line for name, line in self._lines.items() if name not in own]
        for name, value in call.headers.items():
            lines.append(f"{name}: {value.reveal() if isinstance(value, Secret) else value}")
        if call.body or call.method != "GET":
            lines.append(f"Content-Length: {len(call.body)}")
        text = "\r\n".join(lines)
        if text.count("\r") != len(lines) - 1 or text.count("\n") != len(lines) - 1 or "\0" in text:
            raise ValueError("a header holds a line break")
        return f"{text}\r\n\r\n".encode()


class Connections:
    """The connections of a run. Create it inside the loop."""

    def __init__(self) -> None:
        # limit=0: the gate alone decides how much is in flight, and nobody waits for a pool slot inside a timeout.
        # keepalive below the 5 s after which common servers close: a POST on a dead connection is an ambiguous outcome.
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4, ttl_dns_cache=60)
        self._origins: dict[str, _Origin] = {}

    def exchange(self, call: HttpCall) -> Exchange:
        """An asynchronous context: entered, the request is out and the head of its reply is there."""
        return Exchange(self, call)

    def origin(self, url: str) -> _Origin:
        """Raises aiohttp.InvalidURL."""
        origin = self._origins.get(url)
        if origin is None:
            origin = self._origins[url] = _Origin(URL(url))
        return origin

    async def connect(self, origin: _Origin) -> aiohttp.connector.Connection:
        """A connection on which nothing lies."""
        while True:
            connection = await self._connector.connect(origin.request, [], _TIMEOUT)
            assert connection.protocol is not None
            if not connection.protocol.should_close:
                return connection
            connection.close()

    async def close(self) -> None:
        """Ends open connections."""
        await self._connector.close()


class Exchange:
    """One request and its reply. What its end leaves unread, or an exception inside it, costs the connection."""

    __slots__ = ("_call", "_connection", "_connections", "content", "headers", "status")

    status: int
    headers: CIMultiDictProxy[str]
    content: aiohttp.StreamReader
    """The body, unpacked."""

    def __init__(self, connections: Connections, call: HttpCall) -> None:
        self._connections = connections
        self._call = call

    async def __aenter__(self) -> Self:
        origin = self._connections.origin(self._call.url)
        head, body = origin.head(self._call), self._call.body
        self._connection = await self._connections.connect(origin)
        try:
            protocol = self._connection.protocol
            assert protocol is not None
            assert protocol.transport is not None
            protocol.set_response_params(read_until_eof=True, max_line_size=_LINE_BYTES, max_field_size=_LINE_BYTES)
            if len(body) <= _JOINED_BYTES:
                protocol.transport.write(head + body)
            else:
                protocol.transport.write(head)
                protocol.transport.write(body)
            message, self.content = await protocol.read()
            while 100 <= message.code < 200 and message.code != _SWITCHING:
                message, self.content = await protocol.read()
        except BaseException:
            self._abort()
            raise
        self.status, self.headers = message.code, message.headers
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._connection.release()
        else:
            self._abort()

    def _abort(self) -> None:
        # Closed politely, it would first write what the server doesn't read.
        if self._connection.transport is not None:
            self._connection.transport.abort()
        self._connection.close()
