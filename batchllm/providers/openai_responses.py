"""The codec of OpenAI's Responses API. Nothing is kept at the provider unless the spec says so (`store: false` is sent). Source: protocols A.5."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from batchllm.core.nouns import Fault, Reply, Request
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.providers.bodies import read_json, text_of
from batchllm.providers.broken import NO_BODY, broken
from batchllm.providers.codec import StreamDecoder
from batchllm.providers.envelope import ErrorBody, error_of
from batchllm.providers.openai_responses_reply import decode, understand
from batchllm.providers.openai_responses_request import items_of, shape_fields
from batchllm.providers.openai_wire import OpenAIWire
from batchllm.providers.sse import Sse, is_events

_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")


class OpenAIResponses(OpenAIWire):
    """Responses of one model at one endpoint."""

    path = "/responses"

    def output_cap(self) -> str | None:
        """It has a name of its own here."""
        return None

    def encode(self, request: Request, *, client_request_id: str | None, stream: bool = False) -> HttpCall:
        """The HTTP call. ValueError for what this wire can't say, TypeError for what JSON can't carry."""
        instructions, items = items_of(request.messages)
        body: dict[str, Any] = {"model": self.model, "input": items}
        if instructions is not None:
            body["instructions"] = instructions
        body.update(self.fields(request.params))
        if stream:
            body["stream"] = True
            if self.host.name == "openai":
                body["stream_options"] = {"include_obfuscation": False}
        return self.call(body, request.body, client_request_id)

    def shape(self, fields: dict[str, Any]) -> None:
        """ValueError for `background`: the answer would come later, to nobody."""
        super().shape(fields)
        if fields.get("background"):
            raise ValueError("background: nobody would come back for the answer; leave it out")
        shape_fields(fields, self.warn)
        if self.host.rules == "openai":
            # Otherwise every answer lies at the provider for 30 days.
            fields.setdefault("store", False)

    def decode(self, reply: HttpReply) -> Reply | Fault:
        """What the server said. Never raises, whatever the bytes."""
        return decode(reply)

    def decoder(self) -> StreamDecoder:
        """A fresh reader for one streamed answer."""
        return ResponseStream()


class ResponseStream:
    """Reads one streamed response: its last event holds the whole."""

    def __init__(self) -> None:
        self._sse = Sse()
        self._items: list[Any] = []
        """Items that are done, for servers whose last event has none."""
        self._texts: list[str] = []
        """Pieces of text, for servers that send neither."""
        self._response: dict[str, Any] = {}
        self._ended = False
        self._error: ErrorBody | None = None
        self._began = False

    def feed(self, chunk: bytes) -> bool:
        """Takes the next bytes, split anywhere; says whether they brought a part of the answer."""
        progress = False
        for event, data in self._sse.feed(chunk):
            progress = self._event(event, data) or progress
        return progress

    def _event(self, name: str | None, data: str) -> bool:
        event = read_json(data)
        if not isinstance(event, dict):
            return False
        kind = text_of(event.get("type")) or name or ""
        if kind.endswith(".delta"):
            progress = bool(event.get("delta"))
            if kind == "response.output_text.delta" and isinstance(event.get("delta"), str):
                self._texts.append(event["delta"])
            self._began |= progress
            return progress
        response = event.get("response")
        if isinstance(response, dict) and not self._ended:
            self._response = response
            self._ended = kind in _ENDS
            return self._ended
        if kind == "response.output_item.done":
            self._items.append(event.get("item"))
        elif (kind == "error" or event.get("error")) and self._error is None and not self._ended:
            self._error = error_of(event)
        return False

    def end(self, came: HttpReply | Fault) -> Reply | Fault:
        """The outcome. The answer is whole once its last event was seen, whatever happened to the connection after that."""
        if isinstance(came, HttpReply) and (came.body or not 200 <= came.status < 300):
            if not (200 <= came.status < 300 and is_events(came.body)):
                return decode(came)
            self.feed(came.body)
            came = HttpReply(status=came.status, body=b"", headers=came.headers)
        for event, data in self._sse.close():
            self._event(event, data)
        reply = came if isinstance(came, HttpReply) else NO_BODY
        if self._ended and self._error is None:
            if not self._response.get("output"):
                said = [{"type": "message", "content": "".join(self._texts)}] if self._texts else []
                self._response = {**self._response, "output": self._items or said}
            outcome = understand(reply, self._response)
            return outcome if isinstance(outcome, Reply) or not self._began else replace(outcome, billed="yes")
        stray = self._sse.stray
        if stray and not self._began and self._error is None:
            return decode(HttpReply(status=reply.status, body=stray, headers=reply.headers))
        error = self._error or (error_of(read_json(stray)) if stray else None)
        return broken(came, error=error, usage=None, request_id=text_of(self._response.get("id")), began=self._began)
