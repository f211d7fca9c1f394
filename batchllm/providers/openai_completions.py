"""The codec of OpenAI's text completions, which go on with a prompt; compatible servers have them for base models. Source: protocols A.6."""

from __future__ import annotations

from typing import Any

from batchllm.core.nouns import Fault, Reply, Request
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.providers.codec import StreamDecoder
from batchllm.providers.openai_reply import decode
from batchllm.providers.openai_stream import CompletionStream
from batchllm.providers.openai_wire import OpenAIWire
from batchllm.providers.prompts import one_text


class OpenAICompletions(OpenAIWire):
    """Text completions for one model at one endpoint."""

    path = "/completions"

    def output_cap(self) -> str | None:
        """This endpoint never learnt the new name."""
        return "max_tokens"

    def encode(self, request: Request, *, client_request_id: str | None, stream: bool = False) -> HttpCall:
        """The HTTP call. ValueError for messages that are no single prompt, TypeError for what JSON can't carry."""
        body: dict[str, Any] = {"model": self.model, "prompt": one_text(request.messages, "completions"), **self.fields(request.params)}
        if stream:
            self.ask_for_stream(body)
        return self.call(body, request.body, client_request_id)

    def shape(self, fields: dict[str, Any]) -> None:
        """ValueError for `best_of`: each of its answers is billed, and money is reserved for one."""
        super().shape(fields)
        if fields.get("best_of", 1) != 1:
            raise ValueError("best_of: every one of its answers is billed; leave it out, or use `samples` in the spec")

    def decode(self, reply: HttpReply) -> Reply | Fault:
        """What the server said. Never raises, whatever the bytes."""
        return decode(reply)

    def decoder(self) -> StreamDecoder:
        """A fresh reader for one streamed answer."""
        return CompletionStream()
