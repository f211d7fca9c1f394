"""The simulator's HTTP face: acts scripts out over real sockets.

The trap is "delivered": a reply counts only when its last byte was handed to a connection that still stood, so replies are written here and not left to
aiohttp, and a client that goes away in the middle cancels the handler (`handler_cancellation`), which books the request as not delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from batchllm.core import json
from batchllm.core.clock import LoopClock
from batchllm.core.wire import HttpCall
from batchllm.simulator.provider import Simulator
from batchllm.simulator.script import FOREVER_SECONDS, Script

_BODY_LIMIT = 256 * 1024 * 1024
_AUDIT_BATCH = 1000
_NO_LINGER = struct.pack("ii", 1, 0)


def make_app(simulator: Simulator) -> web.Application:
    """An aiohttp application: the provider's paths, `GET /_audit` (JSONL) and `GET /_audit/summary`. Run it with `handler_cancellation=True`."""
    app = web.Application(client_max_size=_BODY_LIMIT)
    face = _Face(simulator)
    app.router.add_get("/_audit", face.audit)
    app.router.add_get("/_audit/summary", face.summary)
    app.router.add_route("*", "/{path:.*}", face.provider)
    return app


class _Face:
    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._clock: LoopClock | None = None

    async def provider(self, request: web.Request) -> web.StreamResponse:
        """Everything that belongs to the provider."""
        clock = self._clock
        if clock is None:
            clock = self._clock = LoopClock()
        body = await request.read()
        call = HttpCall(method=request.method, url=request.path_qs, headers=request.headers, body=body)
        script = self._simulator.receive(call, now=clock.now(), utc=clock.utc())
        delivered = False
        try:
            response, delivered = await _act(request, script)
        except ConnectionResetError:  # the client went away while it was written to; there is nobody to answer
            return web.Response()
        else:
            return response
        finally:
            self._simulator.finish(script, now=clock.now(), utc=clock.utc(), delivered=delivered)

    async def audit(self, request: web.Request) -> web.StreamResponse:
        """The log, one JSON object a line."""
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        batch: list[bytes] = []
        for line in self._simulator.audit.lines():
            batch.append(line)
            if len(batch) == _AUDIT_BATCH:
                await response.write(b"".join(batch))
                batch.clear()
        if batch:
            await response.write(b"".join(batch))
        await response.write_eof()
        return response

    async def summary(self, request: web.Request) -> web.Response:
        """The log's totals."""
        del request
        return web.Response(body=json.dumps(self._simulator.summary()), content_type="application/json")


async def _act(request: web.Request, script: Script) -> tuple[web.StreamResponse, bool]:
    """Plays a script to its end; says whether the whole reply was handed over."""
    ending = script.ending
    if ending == "refuse":
        _reset(request)
        return web.Response(), False
    if script.delay_seconds > 0:
        await asyncio.sleep(script.delay_seconds)
    if ending == "stall_before":
        await asyncio.sleep(FOREVER_SECONDS)
    if ending == "reset_before":
        _reset(request)
        return web.Response(), False
    if (
        ending in ("complete", "complete_close")
        and len(script.chunks) == 1
        and script.content_length is not None
        and not script.chunks[0].delay_seconds
    ):
        # In one packet, headers and all.
        response: web.StreamResponse = web.Response(status=script.status, headers=script.headers, body=script.chunks[0].data)
        await response.prepare(request)
    else:
        response = web.StreamResponse(status=script.status, headers=script.headers)
        response.content_length = script.content_length
        await response.prepare(request)
        for chunk in script.chunks:
            if chunk.delay_seconds:
                await asyncio.sleep(chunk.delay_seconds)
            await response.write(chunk.data)
        if ending == "stall_mid":
            while script.keep_alive is not None:
                await asyncio.sleep(script.keep_alive.delay_seconds)
                await response.write(script.keep_alive.data)
            await asyncio.sleep(FOREVER_SECONDS)
        if ending == "reset_mid":
            _reset(request)
            return response, False
        if ending == "close_early":
            _close(request)
            return response, False
    await response.write_eof()
    delivered = _stands(request)
    if ending == "complete_close":
        _close(request)
    return response, delivered


def _stands(request: web.Request) -> bool:
    transport = request.transport
    return transport is not None and not transport.is_closing()


def _reset(request: web.Request) -> None:
    """RST, not FIN: what a crashed gateway does."""
    transport = request.transport
    if transport is None:
        return
    plug = transport.get_extra_info("socket")
    if plug is not None:
        with contextlib.suppress(OSError):
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def _close(request: web.Request) -> None:
    """FIN after what was written."""
    if request.transport is not None:
        request.transport.close()


@contextlib.asynccontextmanager
async def serving(simulator: Simulator, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serves within the block and yields the base URL, e.g. `http://127.0.0.1:8123/v1`; port 0 lets the operating system choose. Raises OSError when the port is taken."""
    runner = web.AppRunner(make_app(simulator), access_log=None, handler_cancellation=True, shutdown_timeout=1.0, keepalive_timeout=75.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
        bound = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound}/v1"
    finally:
        await runner.cleanup()


async def serve(simulator: Simulator, *, host: str = "127.0.0.1", port: int = 0, ready: Callable[[str], None] | None = None) -> None:
    """Serves until SIGINT or SIGTERM. `ready` is told the base URL once connections are taken; by default a line on stderr."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with serving(simulator, host=host, port=port) as url:
            (ready or (lambda place: _announce(place, simulator)))(url)
            await stop.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _announce(url: str, simulator: Simulator) -> None:
    settings = simulator.settings
    facts = [f"seed {settings.seed}", f"latency {settings.latency_ms:g} ms"]
    limits = {name: getattr(settings, name) for name in ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd")}
    facts += [f"{name} {value}" for name, value in limits.items() if value is not None]
    if any(limits[name] is not None for name in ("rpm", "tpm", "itpm", "otpm")):
        facts.append(f"burst {settings.burst_seconds:g} s")
    if settings.faults:
        facts.append(f"faults {settings.faults:g}")
    facts.append("any key" if settings.keys is None else f"{len(settings.keys)} key{'s'[: len(settings.keys) != 1]}")
    sys.stderr.write(f"simulator on {url} ({', '.join(facts)})\n")
    sys.stderr.flush()
