"""What the endpoints of OpenAI's wire have in common: URL, headers, the parameters as a host takes them, and what its headers say of limits.

The trap: every compatible server leaves something out or calls it by another name (`spec/hosts.py`), and what is constant for a model must not be worked out once
per row. Sources: protocols A.1, A.2, E.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from batchllm.core.json import dumps
from batchllm.core.nouns import LimitHint
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpCall
from batchllm.providers.bodies import headers_over, plain
from batchllm.providers.capabilities import adapt
from batchllm.providers.hints import limit_hints
from batchllm.spec.hosts import CompatibleHost

_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses")
_NOT_SENT = ("model", "messages", "stream", "stream_options", "n")
"""The lane's own model and the filled messages are sent; streams and several choices would neither be understood nor fit what was reserved."""
_LONGEST_CLIENT_ID = 512
"""Characters; OpenAI answers 400 to a longer one (protocols A.1)."""

OPENAI = CompatibleHost(name="openai", output_cap="max_completion_tokens", rules="openai")
"""OpenAI's own models read the new name of the output cap only."""
SIMULATED = CompatibleHost(name="simulated", output_cap=None)


def endpoint_url(base_url: str, path: str = _PATHS[0], *, deployment: str | None = None, query: Mapping[str, str] | None = None) -> str:
    """The URL that requests go to. The base may end in `/`, already name an endpoint, or carry a query; `deployment` names the model in the path (Azure)."""
    parts = urlsplit(base_url.strip())
    base = parts.path.rstrip("/")
    for known in _PATHS:
        if base.endswith(known):
            base = base.removesuffix(known)
            break
    if deployment is not None and "/deployments/" not in base:
        base = f"{base.removesuffix('/openai')}/openai/deployments/{quote(deployment, safe='')}"
    named = {**(query or {}), **dict(parse_qsl(parts.query))} if query else {}
    return urlunsplit(parts._replace(path=base + path, query=urlencode(named) if named else parts.query, fragment=""))


class OpenAIWire:
    """One endpoint for one model at one host. `path` is the endpoint's, `caps` its names of the output cap: the one it takes, and others that mean the same."""

    path = ""
    not_sent: tuple[str, ...] = _NOT_SENT

    def __init__(
        self, *, base_url: str, model: str, api_key: Secret | None, headers: Mapping[str, Secret | str], host: CompatibleHost = OPENAI
    ) -> None:
        self.url = endpoint_url(base_url, self.path, deployment=model if host.deployments else None, query=host.query)
        self.model = model
        self.host = host
        self.warnings: list[str] = []
        """What this model or host can't take and was changed or left out, each once, in sentences for the user."""
        ours: dict[str, str | Secret] = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key is not None:
            # A key read from a file or a shell often ends in a newline, which no header may carry.
            key = api_key.reveal().strip()
            ours[host.key_header] = Secret(f"Bearer {key}" if host.key_header == "Authorization" else key)
        self._headers = headers_over(ours, headers)
        self._tags = not any(name.lower() == "x-client-request-id" for name in self._headers)
        """Sent to every host of this wire: who doesn't know the name ignores it, and gateways and the simulator log it. A header of the user's own stays."""
        self._asked: Mapping[str, Any] | None = None
        self._wire_fields: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r})"

    def output_cap(self) -> str | None:
        """The only name of the output cap that this endpoint reads there; None: any."""
        return self.host.output_cap

    def fields(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters as this endpoint takes them; made once for those that a model's rows have in common, as they are the same object. Don't change it."""
        if params is not self._asked:
            made = {name: value for name, value in params.items() if name not in self.not_sent}
            if self.host.rules is not None:
                adapted, warnings = adapt(self.host.rules, self.model, made)
                made = dict(adapted)
                for warning in warnings:
                    self.warn(warning)
            self.shape(made)
            self._asked, self._wire_fields = params, made
        return self._wire_fields

    def shape(self, fields: dict[str, Any]) -> None:
        """Changes parameters with chat's names into this endpoint's, in place."""
        cap = self.output_cap()
        if cap is not None:
            for other in ("max_tokens", "max_completion_tokens"):
                if other != cap:
                    rename_cap(fields, other, cap)
        for name, theirs in self.host.rename.items():
            if name in fields:
                fields.setdefault(theirs, fields.pop(name))
        for name in self.host.drop:
            if name in fields:
                del fields[name]
                self.warn(f"{self.host.name} takes no `{name}`: it is left out")

    def warn(self, sentence: str) -> None:
        """For the user, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def call(self, body: dict[str, Any], raw: Mapping[str, Any], client_request_id: str | None) -> HttpCall:
        """The HTTP call; `raw` is merged last. TypeError for what JSON can't carry (lone surrogates, huge ints)."""
        if raw:
            body.update(raw)
        headers = self._headers
        if self._tags and client_request_id is not None and len(client_request_id) <= _LONGEST_CLIENT_ID and client_request_id.isascii():
            headers = {**headers, "X-Client-Request-Id": client_request_id}
        return HttpCall(url=self.url, body=dumps(body, default=plain), headers=headers)

    def ask_for_stream(self, body: dict[str, Any]) -> None:
        """Chat's and completions' way of asking for a stream whose last chunk has the usage."""
        body["stream"] = True
        if self.host.name == "openai":
            # Padding against eavesdroppers who count bytes; it doubles the traffic of short chunks.
            body["stream_options"] = {"include_usage": True, "include_obfuscation": False}
        elif self.host.stream_usage:
            body["stream_options"] = {"include_usage": True}

    def hints(self, headers: Mapping[str, str]) -> tuple[LimitHint, ...]:
        """What the reply's headers say of the limits."""
        hints = limit_hints(headers)
        window = self.host.requests_per
        if window is None or not hints:
            return hints
        # Groq counts requests per day and tokens per minute under names that don't tell (protocols E).
        return tuple(replace(hint, window=window if hint.dimension == "requests" else "minute") for hint in hints)


def rename_cap(fields: dict[str, Any], other: str, name: str) -> None:
    """One spelling of the output cap; when the request has both, the smaller one, as money was reserved for one of them."""
    if other in fields:
        cap = fields.pop(other)
        own = fields.get(name)
        fields[name] = min(own, cap) if isinstance(own, int) and isinstance(cap, int) else cap if own is None else own
