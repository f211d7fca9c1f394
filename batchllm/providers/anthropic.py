"""The codec of Anthropic's messages, for Anthropic itself and every server that speaks its wire.

The trap: `max_tokens` must be sent, so a request without one is sent the model's documented maximum, and money has to be reserved for that same number
(`capabilities.output_cap_default`). Version 2023-06-01 of the wire is spoken, as it still lets models that can take a `temperature` have one; the spec's
`headers: {anthropic-version: ...}` chooses another. Sources: protocols B.1-B.4, B.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from batchllm.core.json import dumps
from batchllm.core.nouns import Fault, LimitHint, Reply, Request
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.providers import anthropic_reply, anthropic_request
from batchllm.providers.anthropic_hints import anthropic_hints
from batchllm.providers.anthropic_stream import AnthropicStream
from batchllm.providers.bodies import headers_over, merge_into, plain
from batchllm.providers.capabilities import adapt, output_cap_default
from batchllm.providers.codec import StreamDecoder

VERSION = "2023-06-01"
_PATH = "/messages"


def endpoint_url(base_url: str) -> str:
    """The URL that requests go to. The base may end with or without `/v1`, or already name the endpoint."""
    parts = urlsplit(base_url.strip())
    path = parts.path.rstrip("/")
    if not path.endswith(_PATH):
        path = f"{path}{_PATH}" if path.endswith("/v1") else f"{path}/v1{_PATH}"
    return urlunsplit(parts._replace(path=path, fragment=""))


class AnthropicMessages:
    """Messages for one model at one endpoint."""

    def __init__(self, *, base_url: str, model: str, api_key: Secret | None, headers: Mapping[str, Secret | str]) -> None:
        self.url = endpoint_url(base_url)
        self.model = model
        self.warnings: list[str] = []
        """What this model can't take and was changed or left out, each once, in sentences for the user."""
        ours: dict[str, str | Secret] = {"Content-Type": "application/json", "Accept": "application/json", "anthropic-version": VERSION}
        if api_key is not None and not any(name.strip().lower() == "authorization" for name in headers):
            # Two kinds of credential at once are refused.
            ours["x-api-key"] = Secret(api_key.reveal().strip())
        self._headers = headers_over(ours, headers)
        version = next(value for name, value in self._headers.items() if name.lower() == "anthropic-version")
        self._version = version.reveal() if isinstance(version, Secret) else version
        self._cap = output_cap_default(model)
        self._asked: Mapping[str, Any] | None = None
        self._fields: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"AnthropicMessages(model={self.model!r})"

    def encode(self, request: Request, *, client_request_id: str | None, stream: bool = False) -> HttpCall:
        """The HTTP call. ValueError for what the wire can't take, TypeError for what JSON can't carry. (The wire has no place for a client's request id.)"""
        del client_request_id
        system, turns = anthropic_request.conversation(request.messages, self._warn)
        body: dict[str, Any] = {"model": self.model, "max_tokens": self._cap, "messages": turns}
        if system is not None:
            body["system"] = system
        body.update(self._wire_fields(request.params))
        if stream:
            body["stream"] = True
        if request.body:
            merge_into(body, request.body)
        return HttpCall(url=self.url, body=dumps(body, default=plain), headers=self._headers)

    def _wire_fields(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Made once for the parameters that a model's rows have in common: they are the same object."""
        if params is not self._asked:
            adapted, warnings = adapt("anthropic", self.model, params, version=self._version)
            for warning in warnings:
                self._warn(warning)
            fields = anthropic_request.parameters(adapted, self.model, self._warn)
            if "max_tokens" in adapted:
                fields["max_tokens"] = adapted["max_tokens"]
            self._asked, self._fields = params, fields
        return self._fields

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def decode(self, reply: HttpReply) -> Reply | Fault:
        """What the server said. Never raises, whatever the bytes."""
        return anthropic_reply.decode(reply)

    def decoder(self) -> StreamDecoder:
        """A fresh reader for one streamed answer."""
        return AnthropicStream()

    def hints(self, headers: Mapping[str, str]) -> tuple[LimitHint, ...]:
        """What the reply's headers say of the limits."""
        return anthropic_hints(headers)
