"""What a server serves: the free call that lists its models, on every wire. It also tells whether a key is let in.

The trap: a server may answer in pages (Anthropic, Gemini), without a list at all, or with every model that it could pull; absence from a list proves little.
Sources: protocols A.6, B.6, C.1, D.2, E.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from batchllm.core.nouns import Fault
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.providers.bodies import headers_over, no_answer, read_json, text_of, unreadable
from batchllm.spec.hosts import PLAIN, CompatibleHost, host_at

OLLAMA_BASE = "http://127.0.0.1:11434"
MOST_PAGES = 50
_PER_PAGE = 1000
_OPENAI_ENDPOINTS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/models")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One model of a server's list; None is what it doesn't tell."""

    id: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    shut_down: str | None = None
    """The day, as the server writes it."""
    note: str | None = None
    """Its size, owner or full name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a list; `after` asks for the next."""

    models: tuple[Served, ...]
    after: str | None = None


def list_call(
    provider: str,
    base_url: str,
    api_key: Secret | None,
    headers: Mapping[str, Secret | str],
    *,
    host: CompatibleHost | None = None,
    after: str | None = None,
) -> HttpCall:
    """The call that lists models. `base_url`: as in a job; `host`: what the job says of the server; `after`: what the last page said."""
    parts = urlsplit(base_url.strip())
    path = parts.path.rstrip("/")
    ours: dict[str, str | Secret] = {"Accept": "application/json"}
    key = api_key.reveal().strip() if api_key is not None else None
    query: dict[str, str | int] = {}
    if provider == "anthropic":
        path = f"{path.removesuffix('/messages').removesuffix('/v1')}/v1/models"
        ours["anthropic-version"] = "2023-06-01"
        query = {"limit": _PER_PAGE, **({"after_id": after} if after else {})}
        if key is not None and not _has(headers, "authorization"):
            ours["x-api-key"] = Secret(key)
    elif provider == "gemini":
        path = f"{path.removesuffix('/openai').removesuffix('/models') or '/v1beta'}/models"
        query = {"pageSize": _PER_PAGE, **({"pageToken": after} if after else {})}
        if key is not None and not _has(headers, "authorization", "x-goog-api-key"):
            ours["x-goog-api-key"] = Secret(key)
    elif provider == "ollama":
        path = f"{_ollama_root(path)}/api/tags"
        if key is not None:
            ours["Authorization"] = Secret(f"Bearer {key}")
    else:
        path = _without(path, _OPENAI_ENDPOINTS)
        host = host or host_at(base_url) or PLAIN
        query = dict(host.query)
        if key is not None:
            ours[host.key_header] = Secret(f"Bearer {key}" if host.key_header == "Authorization" else key)
        if host.deployments:
            # Azure's classic way: models are beside the deployments, not below them.
            path = f"{path.partition('/openai')[0]}/openai"
        path += "/models"
    address = urlunsplit(parts._replace(path=path, query=urlencode(query) if query else parts.query, fragment=""))
    return HttpCall(method="GET", url=address, body=b"", headers=headers_over(ours, headers))


def read_list(provider: str, reply: HttpReply) -> Page | Fault:
    """What came. A refused key, a server without a list and a body that is none are faults. Never raises."""
    if not 200 <= reply.status < 300:
        return _fault(provider, reply)
    data = read_json(reply.body)
    listed = data if isinstance(data, list) else _first_list(data) if isinstance(data, dict) else None
    if listed is None:
        return unreadable(reply) if not isinstance(data, dict) else no_answer(reply, f"{reply.status} without a list of models")
    reader = {"anthropic": _anthropic, "gemini": _gemini, "ollama": _ollama}.get(provider, _openai)
    models = [served for item in listed if isinstance(item, dict) and (served := reader(item)) is not None]
    return Page(models=tuple(models), after=_next(provider, data))


def _fault(provider: str, reply: HttpReply) -> Fault:
    from batchllm.providers.classify import classify
    from batchllm.providers.codecs import Unserved, codec_for

    if provider in ("anthropic", "gemini"):
        try:
            codec = codec_for(provider=provider, endpoint="chat", base_url="https://host.invalid", model="m", api_key=None, headers={})
        except Unserved:
            return classify(reply.status, reply.headers, reply.body)
        outcome = codec.decode(reply)
        if isinstance(outcome, Fault):
            return outcome
    return classify(reply.status, reply.headers, reply.body)


def _first_list(data: Mapping[str, Any]) -> list[Any] | None:
    for name in ("data", "models"):
        if isinstance(data.get(name), list):
            found: list[Any] = data[name]
            return found
    return None


def _next(provider: str, data: Any) -> str | None:
    if not isinstance(data, dict):
        return None
    if provider == "anthropic":
        return text_of(data.get("last_id")) if data.get("has_more") is True else None
    return text_of(data.get("nextPageToken")) if provider == "gemini" else None


def _openai(item: Mapping[str, Any]) -> Served | None:
    name = text_of(item.get("id")) or text_of(item.get("name"))
    if name is None:
        return None
    window = _number(item, "max_model_len", "context_length", "context_window", "max_context_length")
    return Served(id=name, context_window=window, shut_down=text_of(item.get("shutdown_date")), note=text_of(item.get("owned_by")))


def _anthropic(item: Mapping[str, Any]) -> Served | None:
    name = text_of(item.get("id"))
    if name is None:
        return None
    retires = text_of(item.get("retires_at"))
    return Served(
        id=name,
        context_window=_number(item, "max_input_tokens"),
        max_output_tokens=_number(item, "max_tokens"),
        shut_down=retires[:10] if retires else None,
        note=text_of(item.get("display_name")),
    )


def _gemini(item: Mapping[str, Any]) -> Served | None:
    name = text_of(item.get("name"))
    if name is None:
        return None
    return Served(
        id=name.removeprefix("models/"),
        context_window=_number(item, "inputTokenLimit"),
        max_output_tokens=_number(item, "outputTokenLimit"),
        note=text_of(item.get("displayName")),
    )


def _ollama(item: Mapping[str, Any]) -> Served | None:
    name = text_of(item.get("name")) or text_of(item.get("model"))
    if name is None:
        return None
    details = item.get("details")
    told = [text_of(details.get(key)) for key in ("parameter_size", "quantization_level")] if isinstance(details, dict) else []
    size = _number(item, "size")
    notes = [*(text for text in told if text), *([f"{size / 1e9:.1f} GB"] if size else [])]
    return Served(id=name, note=", ".join(notes) or None)


def _number(item: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = item.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _has(headers: Mapping[str, Any], *names: str) -> bool:
    return any(name.strip().lower() in names for name in headers)


def _without(path: str, ends: Iterable[str]) -> str:
    return next((path.removesuffix(end) for end in ends if path.endswith(end)), path)


def _ollama_root(path: str) -> str:
    return path.removesuffix("/api/chat").removesuffix("/api").removesuffix("/v1")


def ollama_call(base_url: str, action: str, body: bytes, api_key: Secret | None, headers: Mapping[str, Secret | str]) -> HttpCall:
    """A call of Ollama's own management: `show`, `pull`, `create` (protocols D.2)."""
    parts = urlsplit((base_url or OLLAMA_BASE).strip())
    path = f"{_ollama_root(parts.path.rstrip('/'))}/api/{quote(action)}"
    ours: dict[str, str | Secret] = {"Content-Type": "application/json", "Accept": "application/x-ndjson, application/json"}
    if api_key is not None:
        ours["Authorization"] = Secret(f"Bearer {api_key.reveal().strip()}")
    return HttpCall(url=urlunsplit(parts._replace(path=path, query="", fragment="")), body=body, headers=headers_over(ours, headers))
