"""One GET, for the commands that fetch something because they were asked to."""

from __future__ import annotations

import asyncio

from batchllm.core.errors import BatchLLMError

SECONDS = 120.0


def fetch(url: str) -> bytes:
    """The body behind a URL. BatchLLMError (exit 1) says what kept it from coming."""
    with asyncio.Runner() as runner:
        return runner.run(_get(url))


async def _get(url: str) -> bytes:
    from batchllm.core.nouns import Fault
    from batchllm.core.wire import HttpCall
    from batchllm.transport.http import HttpTransport

    transport = HttpTransport()
    try:
        came = await transport.send(HttpCall(method="GET", url=url, body=b""), timeout_seconds=SECONDS)
    finally:
        await transport.close()
    if isinstance(came, Fault):
        # What follows the semicolon is advice for jobs.
        raise BatchLLMError(f"{url}: {came.message.partition(';')[0]}")
    if came.status != 200:
        raise BatchLLMError(f"{url}: the server answered {came.status}")
    return came.body
