"""The codec of Gemini's embeddings: batchEmbedContents, one input or many in one call.

The trap: an error is about the whole call, and older models tell no usage at all. What the spec's `body` names (`taskType`, `title`) is part of every input's
own request, as the wire has no other place for it. Source: protocols C.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchllm.core.json import dumps
from batchllm.core.nouns import Fault, LimitHint, Reply, Request, Usage
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.providers.bodies import merge_into, no_answer, plain, read_json, unreadable
from batchllm.providers.classify import classify, classify_inner
from batchllm.providers.codec import StreamDecoder
from batchllm.providers.envelope import error_of
from batchllm.providers.gemini import gemini_headers, model_url
from batchllm.providers.gemini_request import conversation
from batchllm.providers.shares import shared_usage
from batchllm.providers.usage import token_count
from batchllm.providers.whole import Whole

_NOT_SENT = frozenset({"dimensions", "encoding_format", "user", "model", "input", "task_type"})


class GeminiEmbed:
    """Embeddings of one model at one endpoint."""

    def __init__(self, *, base_url: str, model: str, api_key: Secret | None, headers: Mapping[str, Secret | str]) -> None:
        url = model_url(base_url, model)
        self.url = f"{url}:batchEmbedContents"
        self.model = model
        self.warnings: list[str] = []
        self._name = model if "/" in model else f"models/{model}"
        self._headers = gemini_headers(api_key, headers)

    def __repr__(self) -> str:
        return f"GeminiEmbed(model={self.model!r})"

    def encode(self, request: Request, *, client_request_id: str | None, stream: bool = False) -> HttpCall:
        """The HTTP call of one input. ValueError for what is no input."""
        del stream
        return self.encode_many((request,), client_request_id=client_request_id)

    def encode_many(self, requests: Sequence[Request], *, client_request_id: str | None) -> HttpCall:
        """One HTTP call for many inputs. ValueError for what is no input."""
        del client_request_id
        return HttpCall(url=self.url, body=dumps({"requests": [self._one(request) for request in requests]}, default=plain), headers=self._headers)

    def _one(self, request: Request) -> dict[str, Any]:
        _, turns = conversation(request.messages, self._warn)
        parts = [part for turn in turns for part in turn["parts"] if part.get("text") != ""]
        if not parts:
            # It would spoil the whole request.
            raise ValueError("the input is empty: there is nothing to embed")
        made: dict[str, Any] = {"model": self._name, "content": {"parts": parts}}
        params = request.params
        if "dimensions" in params:
            made["outputDimensionality"] = params["dimensions"]
        if "task_type" in params:
            made["taskType"] = params["task_type"]
        made.update((name, value) for name, value in params.items() if name not in _NOT_SENT)
        if request.body:
            merge_into(made, request.body)
        return made

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def decode(self, reply: HttpReply) -> Reply | Fault:
        """The answer to one input. Never raises, whatever the bytes."""
        answers = self.decode_many(reply, 1)
        return answers if isinstance(answers, Fault) else answers[0]

    def decode_many(self, reply: HttpReply, count: int, sizes: Sequence[int] | None = None) -> list[Reply | Fault] | Fault:
        """The answers in the order of the inputs, or the fault that all of them share.

        `sizes`: the bytes of each input, by which the call's tokens are shared out; without them every input has the same part. The parts add up exactly.
        """
        if not 200 <= reply.status < 300:
            return classify(reply.status, reply.headers, reply.body)
        data = read_json(reply.body)
        if isinstance(data, list) and data:
            data = data[0]
        if not isinstance(data, dict):
            return unreadable(reply)
        error = error_of(data) if data.get("error") else None
        if error is not None:
            return classify_inner(error, reply.headers, status=reply.status)
        embeddings = data.get("embeddings")
        if embeddings is None and isinstance(data.get("embedding"), dict):
            embeddings = [data["embedding"]]
        if not isinstance(embeddings, list) or len(embeddings) != count:
            came = len(embeddings) if isinstance(embeddings, list) else "no"
            return no_answer(reply, f"{reply.status} with {came} embeddings for {count} inputs")
        usages = shared_usage(_usage_of(data.get("usageMetadata")), sizes if sizes is not None else (1,) * count)
        return [self._vector(reply, made, usage) for made, usage in zip(embeddings, usages, strict=True)]

    @staticmethod
    def _vector(reply: HttpReply, made: Any, usage: Usage | None) -> Reply | Fault:
        values = made.get("values") if isinstance(made, dict) else None
        if not isinstance(values, list) or not values or not all(type(value) in (float, int) for value in values):
            return no_answer(reply, f"{reply.status} with an embedding without values", usage=usage)
        return Reply(text=None, finish="stop", finish_raw=None, usage=usage, vector=values)

    def decoder(self) -> StreamDecoder:
        """Embeddings aren't streamed: reads a whole reply."""
        return Whole(self.decode)

    def hints(self, headers: Mapping[str, str]) -> tuple[LimitHint, ...]:
        """Nothing: this wire tells no limits."""
        del headers
        return ()


def _usage_of(usage: Any) -> Usage | None:
    """Newer models tell what the call used; embeddings have no output."""
    total = token_count(usage.get("promptTokenCount")) if isinstance(usage, dict) else None
    return Usage(input_tokens=total, output_tokens=0) if total and total > 0 else None
