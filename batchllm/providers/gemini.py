"""The codec of Gemini's generateContent.

The trap: a stream is another method of the model (`:streamGenerateContent?alt=sse`), not a field of the body. The wire has no limit headers, so limits are learnt
from refusals alone. Sources: protocols C.1, C.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from batchllm.core.json import dumps
from batchllm.core.nouns import Fault, LimitHint, Reply, Request
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.providers import gemini_reply, gemini_request
from batchllm.providers.bodies import headers_over, merge_into, plain
from batchllm.providers.capabilities import adapt
from batchllm.providers.codec import StreamDecoder
from batchllm.providers.gemini_stream import GeminiStream

_VERSIONED = re.compile(r"/v\d+(?:(?:alpha|beta)\d*)?$")
_CREDENTIALS = frozenset({"authorization", "x-goog-api-key"})


def model_url(base_url: str, model: str) -> str:
    """The URL of a model, without its method. The base may end with or without a version, `/models` or the compatible endpoint's `/openai`."""
    parts = urlsplit(base_url.strip())
    path = parts.path.rstrip("/").removesuffix("/openai").removesuffix("/models")
    if not _VERSIONED.search(path):
        path += "/v1beta"
    # `models/...` and `tunedModels/...` are whole names.
    name = model if "/" in model else f"models/{model}"
    return urlunsplit(parts._replace(path=f"{path}/{quote(name)}", query="", fragment=""))


def gemini_headers(api_key: Secret | None, own: Mapping[str, Secret | str]) -> dict[str, str | Secret]:
    """Ours and the spec's; two credentials at once are refused, so the spec's own one replaces the key."""
    ours: dict[str, str | Secret] = {"Content-Type": "application/json", "Accept": "application/json"}
    if api_key is not None and not any(name.strip().lower() in _CREDENTIALS for name in own):
        ours["x-goog-api-key"] = Secret(api_key.reveal().strip())
    return headers_over(ours, own)


class GeminiGenerate:
    """generateContent for one model at one endpoint."""

    def __init__(self, *, base_url: str, model: str, api_key: Secret | None, headers: Mapping[str, Secret | str]) -> None:
        url = model_url(base_url, model)
        self.url = f"{url}:generateContent"
        self._stream_url = f"{url}:streamGenerateContent?alt=sse"
        self.model = model
        self.warnings: list[str] = []
        """What this model can't take and was changed or left out, each once, in sentences for the user."""
        self._headers = gemini_headers(api_key, headers)
        self._asked: Mapping[str, Any] | None = None
        self._fields: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"GeminiGenerate(model={self.model!r})"

    def encode(self, request: Request, *, client_request_id: str | None, stream: bool = False) -> HttpCall:
        """The HTTP call. ValueError for what the wire can't take, TypeError for what JSON can't carry. (The wire has no place for a client's request id.)"""
        del client_request_id
        system, turns = gemini_request.conversation(request.messages, self._warn)
        body: dict[str, Any] = {"contents": turns, **self._wire_fields(request.params)}
        if system is not None:
            body["systemInstruction"] = system
        if request.body:
            merge_into(body, request.body)
        return HttpCall(url=self._stream_url if stream else self.url, body=dumps(body, default=plain), headers=self._headers)

    def _wire_fields(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Made once for the parameters that a model's rows have in common: they are the same object."""
        if params is not self._asked:
            adapted, warnings = adapt("gemini", self.model, params)
            for warning in warnings:
                self._warn(warning)
            fields = gemini_request.parameters(adapted, self.model)
            self._asked, self._fields = params, fields
        return self._fields

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def decode(self, reply: HttpReply) -> Reply | Fault:
        """What the server said. Never raises, whatever the bytes."""
        return gemini_reply.decode(reply)

    def decoder(self) -> StreamDecoder:
        """A fresh reader for one streamed answer."""
        return GeminiStream()

    def hints(self, headers: Mapping[str, str]) -> tuple[LimitHint, ...]:
        """Nothing: this wire tells no limits."""
        del headers
        return ()
