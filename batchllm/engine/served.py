"""Asking servers for their models, and Ollama for its: lists in pages, show, pull and create with progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from batchllm.core import json
from batchllm.core.errors import BatchLLMError
from batchllm.core.nouns import Fault
from batchllm.core.wire import HttpCall, HttpReply, Transport
from batchllm.engine.setup import Access
from batchllm.providers.catalog import MOST_PAGES, OLLAMA_BASE, Served, list_call, ollama_call, read_list
from batchllm.providers.classify import classify
from batchllm.providers.pulling import Pulling, Step

_CALL_SECONDS = 30.0
_PULL_STALL_SECONDS = 300.0
"""A large layer is verified in silence."""


async def served(provider: str, access: Access, transport: Transport) -> list[Served]:
    """Every model that a server lists. Raises BatchLLMError when it gives no list."""
    base = access.base_url or OLLAMA_BASE
    found: list[Served] = []
    after: str | None = None
    for _ in range(MOST_PAGES):
        came = await transport.send(list_call(provider, base, access.key, access.headers, after=after), timeout_seconds=_CALL_SECONDS)
        page = came if isinstance(came, Fault) else read_list(provider, came)
        if isinstance(page, Fault):
            raise BatchLLMError(_words(base, page))
        found += page.models
        after = page.after
        if after is None:
            break
    return found


async def show(name: str, access: Access, transport: Transport) -> Mapping[str, Any]:
    """What Ollama knows of a model. Raises BatchLLMError."""
    base = access.base_url or OLLAMA_BASE
    came = await transport.send(_call(access, "show", {"model": name}), timeout_seconds=_CALL_SECONDS)
    if isinstance(came, Fault):
        raise BatchLLMError(_words(base, came))
    if came.status != 200:
        raise BatchLLMError(_words(base, classify(came.status, came.headers, came.body)))
    try:
        data = json.loads(came.body)
    except json.JSONDecodeError:
        data = None
    if not isinstance(data, dict):
        raise BatchLLMError(f"{base}: is no Ollama: it answered no JSON object")
    return data


async def pull(name: str, access: Access, transport: Transport, tell: Callable[[Step], None]) -> None:
    """Has Ollama fetch a model. Raises BatchLLMError unless it says `success`."""
    await _work(access, _call(access, "pull", {"model": name, "stream": True}), transport, tell)


async def create(
    name: str, access: Access, transport: Transport, tell: Callable[[Step], None], *, base: str, system: str | None, parameters: Mapping[str, Any]
) -> None:
    """Has Ollama make a model of another one, with a system prompt and parameters of its own. Raises BatchLLMError unless it says `success`."""
    body: dict[str, Any] = {"model": name, "from": base, "stream": True}
    if system is not None:
        body["system"] = system
    if parameters:
        body["parameters"] = dict(parameters)
    await _work(access, _call(access, "create", body), transport, tell)


def _call(access: Access, action: str, body: Mapping[str, Any]) -> HttpCall:
    return ollama_call(access.base_url, action, json.dumps(body), access.key, access.headers)


async def _work(access: Access, call: HttpCall, transport: Transport, tell: Callable[[Step], None]) -> None:
    base = access.base_url or OLLAMA_BASE
    reader = Pulling(tell)
    came = await transport.stream(call, reader, timeout_seconds=_PULL_STALL_SECONDS, stall_seconds=_PULL_STALL_SECONDS)
    if isinstance(came, HttpReply) and 200 <= came.status < 300:
        # A body that came whole is read alike.
        reader.feed(came.body)
    reader.end()
    if isinstance(came, Fault):
        raise BatchLLMError(_words(base, came))
    if came.status >= 300:
        raise BatchLLMError(_words(base, classify(came.status, came.headers, came.body)))
    if reader.error is not None:
        raise BatchLLMError(f"{base}: {reader.error}")
    if not reader.done:
        raise BatchLLMError(f"{base}: the work ended without `success`; the same command goes on")


def _words(base: str, fault: Fault) -> str:
    status = f"{fault.http_status} " if fault.http_status is not None else ""
    # What follows the semicolon is advice for jobs.
    return f"{base}: {status}{fault.message.partition('; is base_url')[0]}"
