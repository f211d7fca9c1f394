"""Asking servers for their models, and Ollama for its: lists in pages, show, pull and create with progress.

The trap: an address may hold what a variable filled in, and a server that says no may echo the key: a failure's words pass `Server.failed`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchllm.core import json
from batchllm.core.errors import BatchLLMError
from batchllm.core.nouns import Fault
from batchllm.core.secret import Scrubber
from batchllm.core.wire import HttpCall, HttpReply, Transport
from batchllm.engine.access import Access
from batchllm.providers.catalog import MOST_PAGES, OLLAMA_BASE, Served, list_call, ollama_call, read_list
from batchllm.providers.classify import classify
from batchllm.providers.pulling import Pulling, Step
from batchllm.spec import ModelSpec

_CALL_SECONDS = 30.0
_PULL_STALL_SECONDS = 300.0
"""A large layer is verified in silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server to ask, and what may be told of it."""

    model: ModelSpec
    access: Access
    scrub: Scrubber

    @property
    def provider(self) -> str:
        """Whose wire it speaks."""
        return self.model.provider

    @property
    def shown(self) -> str:
        """Its address as written: what a variable filled in may be secret."""
        return self.model.base_url or self.access.base_url or OLLAMA_BASE

    def failed(self, why: str | Fault) -> BatchLLMError:
        """To be raised."""
        if isinstance(why, Fault):
            status = f"{why.http_status} " if why.http_status is not None else ""
            # What follows the semicolon is advice for jobs.
            why = f"{status}{why.message.partition('; is base_url')[0]}"
        return BatchLLMError(f"{self.shown}: {self.scrub.text(why)}")


async def served(server: Server, transport: Transport) -> list[Served]:
    """Every model that a server lists. Raises BatchLLMError when it gives no list."""
    access, provider = server.access, server.provider
    base = access.base_url or OLLAMA_BASE
    found: list[Served] = []
    after: str | None = None
    for _ in range(MOST_PAGES):
        came = await transport.send(
            list_call(provider, base, access.key, access.headers, host=server.model.quirks, after=after), timeout_seconds=_CALL_SECONDS
        )
        page = came if isinstance(came, Fault) else read_list(provider, came)
        if isinstance(page, Fault):
            raise server.failed(page)
        found += page.models
        after = page.after
        if after is None:
            break
    return found


async def show(name: str, server: Server, transport: Transport) -> Mapping[str, Any]:
    """What Ollama knows of a model. Raises BatchLLMError."""
    came = await transport.send(_call(server.access, "show", {"model": name}), timeout_seconds=_CALL_SECONDS)
    if isinstance(came, Fault):
        raise server.failed(came)
    if came.status != 200:
        raise server.failed(classify(came.status, came.headers, came.body))
    try:
        data = json.loads(came.body)
    except json.JSONDecodeError:
        data = None
    if not isinstance(data, dict):
        raise server.failed("is no Ollama: it answered no JSON object")
    return data


async def pull(name: str, server: Server, transport: Transport, tell: Callable[[Step], None]) -> None:
    """Has Ollama fetch a model. Raises BatchLLMError unless it says `success`."""
    await _work(server, _call(server.access, "pull", {"model": name, "stream": True}), transport, tell)


async def create(
    name: str, server: Server, transport: Transport, tell: Callable[[Step], None], *, base: str, system: str | None, parameters: Mapping[str, Any]
) -> None:
    """Has Ollama make a model of another one, with a system prompt and parameters of its own. Raises BatchLLMError unless it says `success`."""
    body: dict[str, Any] = {"model": name, "from": base, "stream": True}
    if system is not None:
        body["system"] = system
    if parameters:
        body["parameters"] = dict(parameters)
    await _work(server, _call(server.access, "create", body), transport, tell)


def _call(access: Access, action: str, body: Mapping[str, Any]) -> HttpCall:
    return ollama_call(access.base_url, action, json.dumps(body), access.key, access.headers)


async def _work(server: Server, call: HttpCall, transport: Transport, tell: Callable[[Step], None]) -> None:
    reader = Pulling(tell)
    came = await transport.stream(call, reader, timeout_seconds=_PULL_STALL_SECONDS, stall_seconds=_PULL_STALL_SECONDS)
    if isinstance(came, HttpReply) and 200 <= came.status < 300:
        # A body that came whole is read alike.
        reader.feed(came.body)
    reader.end()
    if isinstance(came, Fault):
        raise server.failed(came)
    if came.status >= 300:
        raise server.failed(classify(came.status, came.headers, came.body))
    if reader.error is not None:
        raise server.failed(reader.error)
    if not reader.done:
        raise server.failed("the work ended without `success`; the same command goes on")
