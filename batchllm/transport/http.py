"""One HTTP transport (aiohttp). Foreign exceptions become a `Fault` here, once; what they mean for the bill is decided here too.

The line that matters: did any byte of the request leave? Before that nothing can have been billed; after it, a missing answer may have been worked for.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections import deque
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from batchllm.core.nouns import Fault, Kind
from batchllm.core.wire import HttpCall, HttpReply, StreamReader
from batchllm.transport.exchange import CONNECT_SECONDS, Connections, Exchange

_MAX_BODY_BYTES = 64 * 2**20
"""No answer is larger; a server that sends more (also as a gzip bomb, also without saying so beforehand) must not take the machine's memory or the store's."""
_STREAMS = frozenset({"text/event-stream", "application/x-ndjson", "application/stream+json"})
_AWAY_SECONDS = 1.0
"""A timer that comes so late was not late by itself: the process was stopped (Ctrl-Z, a frozen container), and answers that came meanwhile wait to be read."""
_RETURN_SECONDS = 2.0
"""For reading them, before anything counts as too late."""
_FOREIGN = (TimeoutError, aiohttp.ClientError, HttpProcessingError, OSError)
"""What aiohttp and the operating system raise for what the network did (TLS errors are OSErrors)."""


class _Deadline:
    """When one request must be over."""

    __slots__ = ("at", "excused", "over", "passed", "task")

    def __init__(self, at: float, task: asyncio.Task[Any]) -> None:
        self.at = at
        self.excused = False
        self.task = task
        self.over = False
        self.passed = False


class _Deadlines:
    """All requests of a run have the same timeout, so deadlines come in the order of their starts and one timer serves them all.

    (`asyncio.timeout` arms and disarms a timer for each request, which under load costs more than encoding it.)
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Deadline] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> _Deadline:
        """The running task's next request must be over in so many seconds, or its task is cancelled with `passed` set."""
        task = asyncio.current_task()
        assert task is not None
        deadline = _Deadline(self._loop.time() + seconds, task)
        queue = self._queue
        if queue and deadline.at < queue[-1].at:
            # Never in a run; a caller of its own with changing timeouts is served all the same.
            self._queue = deque(sorted([*queue, deadline], key=lambda one: one.at))
        else:
            queue.append(deadline)
        while self._queue[0].over:
            self._queue.popleft()
        if self._timer is None or self._queue[0] is deadline:
            self._arm()
        return deadline

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._queue[0].at, self._look) if self._queue else None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        if now - self._queue[0].at > _AWAY_SECONDS:
            for deadline in self._queue:
                if deadline.at < now + _RETURN_SECONDS and not deadline.excused:
                    deadline.at, deadline.excused = now + _RETURN_SECONDS, True
        while self._queue and (self._queue[0].over or self._queue[0].at <= now + 0.001):
            deadline = self._queue.popleft()
            if not deadline.over:
                deadline.passed = True
                deadline.task.cancel()
        self._arm()

    def close(self) -> None:
        """Disarms."""
        if self._timer is not None:
            self._timer.cancel()


class _Watch:
    """Looks after one streamed answer: progress moves its end further, without touching a timer each time."""

    __slots__ = ("_at", "_excused", "_loop", "_timer", "begun", "passed", "task")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.begun = False
        self.passed = False
        self._excused = False
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time() + seconds
        self._timer = self._loop.call_at(self._at, self._look)

    def progress(self, stall_seconds: float) -> None:
        """Something came; the next may take so long."""
        at = self._loop.time() + stall_seconds
        if at < self._at:
            # The first answer may take longer than a later pause.
            self._timer.cancel()
            self._timer = self._loop.call_at(at, self._look)
        self._at = at
        self.begun = True
        self._excused = False

    def _look(self) -> None:
        if self._loop.time() + 0.001 < self._at:
            self._timer = self._loop.call_at(self._at, self._look)
            return
        if not self._excused and self._loop.time() - self._at > _AWAY_SECONDS:
            self._excused = True
            self._at = self._loop.time() + _RETURN_SECONDS
            self._timer = self._loop.call_at(self._at, self._look)
            return
        self.passed = True
        self.task.cancel()

    def end(self) -> None:
        """It is over."""
        self._timer.cancel()


class HttpTransport:
    """The sockets of a run. Create it inside the loop."""

    def __init__(self) -> None:
        self._connections = Connections()
        self._deadlines = _Deadlines()

    async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply | Fault:
        """The complete reply, or the fault that kept it from coming. Never raises for what the network or the server did."""
        deadline = self._deadlines.start(timeout_seconds)
        try:
            async with self._connections.exchange(call) as exchange:
                return await _whole(exchange)
        except asyncio.CancelledError:
            if not deadline.passed:
                raise
            deadline.task.uncancel()
            return Fault(kind=Kind.TIMEOUT, message=f"no complete answer within {timeout_seconds:g} s", billed="maybe")
        except _FOREIGN as error:
            return _fault(error, URL(call.url), timeout_seconds)
        finally:
            deadline.over = True

    async def stream(self, call: HttpCall, reader: StreamReader, *, timeout_seconds: float, stall_seconds: float) -> HttpReply | Fault:
        """Like `send`, but a streamed body goes to `reader` as it comes."""
        watch = _Watch(timeout_seconds)
        try:
            async with self._connections.exchange(call) as exchange:
                if not (200 <= exchange.status < 300 and _media_type(exchange.headers) in _STREAMS):
                    return await _whole(exchange)
                size = 0
                async for part in exchange.content.iter_any():
                    size += len(part)
                    if size > _MAX_BODY_BYTES:
                        return _too_large(exchange.status)
                    if reader.feed(part):
                        watch.progress(stall_seconds)
                return HttpReply(status=exchange.status, body=b"", headers=exchange.headers)
        except asyncio.CancelledError:
            if not watch.passed:
                raise
            watch.task.uncancel()
            words = f"the answer stalled: nothing new for {stall_seconds:g} s" if watch.begun else f"no answer began within {timeout_seconds:g} s"
            return Fault(kind=Kind.TIMEOUT, message=words, billed="maybe")
        except _FOREIGN as error:
            return _fault(error, URL(call.url), timeout_seconds)
        finally:
            watch.end()

    async def close(self) -> None:
        """Ends open connections."""
        self._deadlines.close()
        await self._connections.close()


async def _whole(exchange: Exchange) -> HttpReply | Fault:
    body = await _body(exchange)
    if body is None:
        return _too_large(exchange.status)
    return HttpReply(status=exchange.status, body=body, headers=exchange.headers)


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _too_large(status: int) -> Fault:
    return Fault(kind=Kind.PROTOCOL, message=f"the answer is larger than {_MAX_BODY_BYTES >> 20} MiB", http_status=status, billed="maybe")


def _fault(error: Exception, url: URL, timeout_seconds: float) -> Fault:
    """What the network did, in our words. The order is that of the classes: the special before the general."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return _unreachable(f"no connection to {url.host} within {CONNECT_SECONDS:.0f} s")
        case TimeoutError():
            return Fault(kind=Kind.TIMEOUT, message=f"no complete answer within {timeout_seconds:g} s", billed="maybe")
        case aiohttp.ClientConnectorDNSError():
            return _unreachable(f"the name {url.host} can't be resolved; is base_url right, is the network up?")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return _unreachable(f"TLS to {url.host} failed: {_words(error)}")
        case aiohttp.ClientConnectorError():
            return _unreachable(f"can't connect to {url.host}:{url.port}: {_words(error)}")
        case aiohttp.ServerDisconnectedError():
            return Fault(kind=Kind.NETWORK, message="the server closed the connection without an answer", billed="maybe")
        case aiohttp.ClientPayloadError():
            return Fault(kind=Kind.NETWORK, message=f"the answer was cut short: {_words(error)}", billed="maybe")
        case HttpProcessingError():
            return Fault(kind=Kind.PROTOCOL, message=f"not understood as HTTP: {' '.join(error.message.split())}", billed="maybe")
        case _:
            return Fault(kind=Kind.NETWORK, message=f"the connection broke: {_words(error)}", billed="maybe")


async def _body(exchange: Exchange) -> bytes | None:
    """The whole body, unpacked; None when there is too much of it."""
    if exchange.content.is_eof():
        # It came with the head, as most do; aiohttp stops reading long before that is too much.
        return exchange.content.read_nowait()
    told = exchange.headers.get("Content-Length", "")
    if told.isdecimal() and int(told) > _MAX_BODY_BYTES:
        return None
    parts: list[bytes] = []
    size = 0
    async for part in exchange.content.iter_any():
        size += len(part)
        if size > _MAX_BODY_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _unreachable(message: str) -> Fault:
    return Fault(kind=Kind.UNREACHABLE, message=message, billed="no", counts=False)


def _words(error: BaseException) -> str:
    cause = getattr(error, "os_error", None) or error
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno is not None and cause.errno in errno.errorcode:
        # asyncio's own words for it are `Connect call failed ('127.0.0.1', 9)`.
        return os.strerror(cause.errno)
    return getattr(cause, "strerror", None) or " ".join(str(cause).split()) or type(cause).__name__
