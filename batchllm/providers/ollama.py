"""The codecs of Ollama's native wire: chat, generate (completions) and embed.

The trap: nothing may be cut in silence. `truncate: false` makes a prompt that doesn't fit the window an error, `shift: false` an answer that outgrows it a cut one;
a larger window is `body: {options: {num_ctx: 16384}}`. Sources: protocols D.1, D.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from batchllm.core.json import dumps
from batchllm.core.nouns import Fault, LimitHint, Reply, Request
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.providers.bodies import headers_over, merge_into, no_answer, plain, read_json, text_of, unreadable
from batchllm.providers.classify import classify, classify_inner
from batchllm.providers.codec import StreamDecoder
from batchllm.providers.envelope import error_of
from batchllm.providers.ollama_reply import OllamaStream, decode
from batchllm.providers.ollama_request import fields_of, messages_of, text_and_images
from batchllm.providers.openai_embeddings import input_of, vector_of
from batchllm.providers.prompts import system_and_user
from batchllm.providers.shares import shared_usage
from batchllm.providers.usage import usage_of
from batchllm.providers.whole import Whole

_ENDINGS = ("/api/chat", "/api/generate", "/api/embed", "/api", "/v1")


def endpoint_url(base_url: str, path: str) -> str:
    """The URL that requests go to. The base may end with or without `/api` or `/v1`, or already name an endpoint."""
    parts = urlsplit(base_url.strip())
    base = parts.path.rstrip("/")
    for ending in _ENDINGS:
        if base.endswith(ending):
            base = base.removesuffix(ending)
            break
    return urlunsplit(parts._replace(path=base + path, query="", fragment=""))


class OllamaWire:
    """What the endpoints have in common, for one model at one server."""

    path = ""

    def __init__(self, *, base_url: str, model: str, api_key: Secret | None, headers: Mapping[str, Secret | str]) -> None:
        self.url = endpoint_url(base_url, self.path)
        self.model = model
        self.warnings: list[str] = []
        """What Ollama hasn't and was left out, each once, in sentences for the user."""
        ours: dict[str, str | Secret] = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key is not None:
            ours["Authorization"] = Secret(f"Bearer {api_key.reveal().strip()}")
        self._headers = headers_over(ours, headers)
        self._asked: Mapping[str, Any] | None = None
        self._fields: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r})"

    def fields(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Made once for the parameters that a model's rows have in common: they are the same object."""
        if params is not self._asked:
            self._fields = fields_of(params, self._warn)
            self._asked = params
        return self._fields

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def call(self, body: dict[str, Any], raw: Mapping[str, Any]) -> HttpCall:
        """The HTTP call; `raw` is merged last, its `options` into the others. TypeError for what JSON can't carry."""
        if raw:
            merge_into(body, raw)
        return HttpCall(url=self.url, body=dumps(body, default=plain), headers=self._headers)

    def hints(self, headers: Mapping[str, str]) -> tuple[LimitHint, ...]:
        """Nothing: Ollama tells no limits."""
        del headers
        return ()


class OllamaChat(OllamaWire):
    """`POST /api/chat`."""

    path = "/api/chat"

    def encode(self, request: Request, *, client_request_id: str | None, stream: bool = False) -> HttpCall:
        """The HTTP call. ValueError for what the wire can't take, TypeError for what JSON can't carry."""
        del client_request_id
        body = {"model": self.model, "messages": messages_of(request.messages), "stream": stream, "truncate": False, "shift": False}
        return self.call({**body, **self.fields(request.params)}, request.body)

    def decode(self, reply: HttpReply) -> Reply | Fault:
        """What the server said. Never raises, whatever the bytes."""
        return decode(reply)

    def decoder(self) -> StreamDecoder:
        """A fresh reader for one streamed answer."""
        return OllamaStream()


class OllamaGenerate(OllamaWire):
    """`POST /api/generate`: one prompt, with the system's words beside it. (`body: {raw: true}` leaves the model's template out.)"""

    path = "/api/generate"

    def encode(self, request: Request, *, client_request_id: str | None, stream: bool = False) -> HttpCall:
        """The HTTP call. ValueError for messages that are no single prompt, TypeError for what JSON can't carry."""
        del client_request_id
        body: dict[str, Any] = {"model": self.model, "stream": stream, "truncate": False, "shift": False, **self.fields(request.params)}
        messages = []
        for message in request.messages:
            content = message.get("content")
            if isinstance(content, list | tuple):
                content, images = text_and_images(content)
                if images:
                    body["images"] = [*body.get("images", ()), *images]
            messages.append({**message, "content": content})
        system, body["prompt"] = system_and_user(messages, "completions")
        if system:
            body["system"] = system
        return self.call(body, request.body)

    def decode(self, reply: HttpReply) -> Reply | Fault:
        """What the server said. Never raises, whatever the bytes."""
        return decode(reply)

    def decoder(self) -> StreamDecoder:
        """A fresh reader for one streamed answer."""
        return OllamaStream()


class OllamaEmbed(OllamaWire):
    """`POST /api/embed`: one input or many in one request."""

    path = "/api/embed"

    def encode(self, request: Request, *, client_request_id: str | None, stream: bool = False) -> HttpCall:
        """The HTTP call of one input; embeddings aren't streamed. ValueError for what is no input."""
        del stream
        return self.encode_many((request,), client_request_id=client_request_id)

    def encode_many(self, requests: Sequence[Request], *, client_request_id: str | None) -> HttpCall:
        """One HTTP call for several inputs that differ in nothing else. ValueError for what is no input, or when their parameters differ."""
        del client_request_id
        first = requests[0]
        if any(request.params is not first.params and request.params != first.params for request in requests):
            raise ValueError("inputs of one request have one set of parameters")
        body = {"model": self.model, "input": [input_of(request) for request in requests], "truncate": False, **self.fields(first.params)}
        return self.call(body, first.body)

    def decode(self, reply: HttpReply) -> Reply | Fault:
        """The answer to one input. Never raises, whatever the bytes."""
        answers = self.decode_many(reply, 1)
        return answers if isinstance(answers, Fault) else answers[0]

    def decode_many(self, reply: HttpReply, count: int, sizes: Sequence[int] | None = None) -> list[Reply | Fault] | Fault:
        """The answers in the order of the inputs, or the fault that all of them share; `sizes` as in `OpenAIEmbeddings`. Never raises."""
        if not 200 <= reply.status < 300:
            return classify(reply.status, reply.headers, reply.body)
        data = read_json(reply.body)
        if not isinstance(data, dict):
            return unreadable(reply)
        error = error_of(data) if data.get("error") else None
        if error is not None:
            return classify_inner(error, reply.headers, status=reply.status)
        vectors = data.get("embeddings")
        usage = usage_of({"prompt_tokens": data.get("prompt_eval_count"), "completion_tokens": 0})
        if not isinstance(vectors, list) or len(vectors) != count:
            came = len(vectors) if isinstance(vectors, list) else "no"
            return no_answer(reply, f"{reply.status} with {came} embeddings for {count} inputs", usage=usage)
        parts = shared_usage(usage, sizes if sizes is not None else (1,) * count)
        model = text_of(data.get("model"))
        return [
            no_answer(reply, f"{reply.status} with an embedding without values", usage=part)
            if (vector := vector_of(made)) is None
            else Reply(text=None, finish="stop", finish_raw=None, usage=part, provider_model=model, vector=vector)
            for made, part in zip(vectors, parts, strict=True)
        ]

    def decoder(self) -> StreamDecoder:
        """Embeddings aren't streamed: reads a whole reply."""
        return Whole(self.decode)
