"""The codec of OpenAI's chat completions, for OpenAI itself and every server that speaks its wire.

Bytes in, values out: no I/O, no clock. `encode` and `decode` run once per row, so all that is constant for a model is made once. Sources: protocols A.2, A.4, E.
"""

from __future__ import annotations

from typing import Any

from batchllm.core.nouns import Fault, Reply, Request
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.providers.codec import StreamDecoder
from batchllm.providers.openai_reply import decode
from batchllm.providers.openai_stream import CompletionStream
from batchllm.providers.openai_wire import OpenAIWire, endpoint_url

__all__ = ["OpenAIChat", "endpoint_url"]


class OpenAIChat(OpenAIWire):
    """Chat completions for one model at one endpoint."""

    path = "/chat/completions"

    def encode(self, request: Request, *, client_request_id: str | None, stream: bool = False) -> HttpCall:
        """The HTTP call. Sends only what the request names; `request.body` is merged in raw, last. TypeError for what JSON can't carry (lone surrogates, huge ints)."""
        body: dict[str, Any] = {"model": self.model, "messages": request.messages, **self.fields(request.params)}
        if stream:
            self.ask_for_stream(body)
        return self.call(body, request.body, client_request_id)

    def shape(self, fields: dict[str, Any]) -> None:
        """Chat's own names are the vocabulary; only what the host can't take changes."""
        super().shape(fields)
        wanted = fields.get("response_format")
        if not self.host.json_schema and isinstance(wanted, dict) and wanted.get("type") == "json_schema":
            fields["response_format"] = {"type": "json_object"}
            self.warn(f"{self.host.name} takes no JSON Schema: JSON is asked for without it; put the schema into the prompt as well")

    def decode(self, reply: HttpReply) -> Reply | Fault:
        """What the server said. Never raises, whatever the bytes."""
        return decode(reply)

    def decoder(self) -> StreamDecoder:
        """A fresh reader for one streamed answer."""
        return CompletionStream()
