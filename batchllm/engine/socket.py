"""The local socket of a run: who sits at a second terminal of the same user asks for a change, one JSON object a line, and gets one line back each.

The trap is who may ask. The socket has mode 0600 before anybody can connect (a socket that isn't listened on yet refuses), and where the kernel tells who
is at the other end, somebody else is sent away, root included. What is asked for is looked up among the run's own verbs; nothing else is ever done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketListener, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from batchllm.core import json
from batchllm.store.address import addresses, is_same_user, make_folder, remove

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""What the run does with a request; it never raises."""
MOST_BYTES = 1 << 20
"""Of one request."""
_IDLE_SECONDS = 600.0
"""How long a terminal may think about a question before it asks for something."""
_AT_MOST_SECONDS = 30.0
"""For one answer: a store that hangs must not hold up the run's end."""


async def serve(store: Path, answer: Answer) -> None:
    """Listens until it is cancelled; a request that is being answered then still gets its answer. Raises OSError when no address can be used."""
    # A run may end while this begins: what was opened is closed again, whenever the cancellation comes.
    with anyio.CancelScope(shield=True):
        listener, address = await _listen(store)
    try:
        await listener.serve(lambda stream: _talk(stream, answer))
    finally:
        with anyio.CancelScope(shield=True):
            await listener.aclose()
        remove(address, store)


async def _listen(store: Path) -> tuple[SocketListener, Path]:
    failures: list[str] = []
    for address in addresses(store):
        try:
            make_folder(address, store)
            # What a killed run left is removed: this one holds the lock.
            return await anyio.create_unix_listener(address, mode=0o600, backlog=16), address
        except OSError as error:
            failures.append(f"{address}: {error.strerror or error}")
    raise OSError("; ".join(failures) or "every path is too long for a socket")


async def _talk(stream: SocketStream, answer: Answer) -> None:
    # Whatever the other end does, it must not end the run.
    with contextlib.suppress(Exception):
        await _questions(stream, answer)


async def _questions(stream: SocketStream, answer: Answer) -> None:
    async with stream:
        if not is_same_user(stream.extra(SocketAttribute.raw_socket)):  # noqa: S610 - anyio's attributes, not Django's SQL
            return
        lines = BufferedByteReceiveStream(stream)
        while True:
            with anyio.fail_after(_IDLE_SECONDS):
                line = await lines.receive_until(b"\n", MOST_BYTES)
            # The run may end by what it is asked for; the word must come through all the same.
            with anyio.move_on_after(_AT_MOST_SECONDS, shield=True):
                await stream.send(json.dumps(await _answered(line, answer)) + b"\n")


async def _answered(line: bytes, answer: Answer) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except json.JSONDecodeError:
        request = None
    return await answer(request if isinstance(request, dict) else {})
