"""The codec of OpenAI's embeddings: one input or many in one request, vectors as numbers or as base64.

The traps: vectors may come in any order and are told apart by their index alone, which some servers don't count; base64 holds little-endian float32; an empty input spoils the whole request, so it is
refused before it is sent. Usage is the request's, and is shared out among its inputs. Source: protocols A.6.
"""

from __future__ import annotations

from array import array
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping, Sequence
from sys import byteorder
from typing import Any

from batchllm.core.nouns import Fault, Reply, Request, Usage
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.providers.bodies import no_answer, read_json, text_of, unreadable
from batchllm.providers.classify import classify, classify_inner
from batchllm.providers.codec import StreamDecoder
from batchllm.providers.envelope import error_of, header_text
from batchllm.providers.openai_wire import OpenAIWire
from batchllm.providers.prompts import one_text
from batchllm.providers.shares import shared_usage
from batchllm.providers.usage import cost_of, usage_of
from batchllm.providers.whole import Whole

_FLOAT32_BYTES = 4
_SENDS_BASE64 = frozenset({"openai", "simulated"})
_NUMBERS = frozenset({float, int})


class OpenAIEmbeddings(OpenAIWire):
    """Embeddings of one model at one endpoint."""

    path = "/embeddings"

    def shape(self, fields: dict[str, Any]) -> None:
        """As every endpoint, and base64 where it is known to be taken: a quarter of the bytes, and much less work to read."""
        super().shape(fields)
        if self.host.name in _SENDS_BASE64:
            fields.setdefault("encoding_format", "base64")

    def encode(self, request: Request, *, client_request_id: str | None, stream: bool = False) -> HttpCall:
        """The HTTP call of one input; embeddings aren't streamed. ValueError for what is no input, TypeError for what JSON can't carry."""
        del stream
        return self.call({"model": self.model, "input": input_of(request), **self.fields(request.params)}, request.body, client_request_id)

    def encode_many(self, requests: Sequence[Request], *, client_request_id: str | None) -> HttpCall:
        """One HTTP call for several inputs that differ in nothing else. ValueError for what is no input, or when their parameters differ."""
        first = requests[0]
        if any(request.params is not first.params and request.params != first.params for request in requests):
            raise ValueError("inputs of one request have one set of parameters")
        inputs = [input_of(request) for request in requests]
        return self.call({"model": self.model, "input": inputs, **self.fields(first.params)}, first.body, client_request_id)

    def decode(self, reply: HttpReply) -> Reply | Fault:
        """The answer to one input. Never raises, whatever the bytes."""
        answers = self.decode_many(reply, 1)
        return answers if isinstance(answers, Fault) else answers[0]

    def decode_many(self, reply: HttpReply, count: int, sizes: Sequence[int] | None = None) -> list[Reply | Fault] | Fault:
        """The answers in the order of the inputs, or the fault that all of them share. Never raises, whatever the bytes.

        `sizes`: the bytes of each input, by which tokens and cost are shared out; without them every input has the same part. The parts add up exactly.
        """
        if not 200 <= reply.status < 300:
            return classify(reply.status, reply.headers, reply.body)
        data = read_json(reply.body)
        if isinstance(data, list) and data:
            data = data[0]
        if not isinstance(data, dict):
            return unreadable(reply)
        told = data.get("usage")
        usage = usage_of({"completion_tokens": 0, **told} if isinstance(told, dict) else None)
        items = data.get("data")
        if data.get("error") or not isinstance(items, list) or not items:
            error = error_of(data)
            if error is not None:
                return classify_inner(error, reply.headers, usage=usage, status=reply.status)
            return no_answer(reply, f"{reply.status} without embeddings", usage=usage)
        parts = sizes if sizes is not None else (1,) * count
        vectors = _by_index(items, count)
        return _answers(reply, data, vectors, shared_usage(usage, parts), _costs(cost_of(told, reply.headers), parts))

    def decoder(self) -> StreamDecoder:
        """Embeddings aren't streamed: reads a whole reply."""
        return Whole(self.decode)


def input_of(request: Request) -> str:
    """The text to embed. ValueError when there is none."""
    text = one_text(request.messages, "embeddings")
    if not text:
        raise ValueError("the input is empty: there is nothing to embed")
    return text


def _by_index(items: Sequence[Any], count: int) -> list[Sequence[float] | None]:
    """The vectors in the order of the inputs. Servers that number nothing, or call each of them 0, keep the order; but where some are missing, or two have the same
    number among others, nobody knows whose a vector is.
    """
    told = [item.get("index") if isinstance(item, dict) else None for item in items]
    if len(items) == count and all(index == told[0] for index in told):
        told = list(range(count))
    often = Counter(index for index in told if isinstance(index, int))
    vectors: list[Sequence[float] | None] = [None] * count
    for index, item in zip(told, items, strict=True):
        if isinstance(index, int) and 0 <= index < count and isinstance(item, dict) and often[index] == 1:
            vectors[index] = vector_of(item.get("embedding"))
    return vectors


def vector_of(value: Any) -> Sequence[float] | None:
    """An embedding as numbers, from numbers or base64; None for what is neither."""
    if isinstance(value, list):
        return value if value and _NUMBERS.issuperset(map(type, value)) else None
    if not isinstance(value, str):
        return None
    try:
        data = b64decode(value, validate=True)
    except ValueError:
        return None
    if not data or len(data) % _FLOAT32_BYTES:
        return None
    numbers = array("f")
    numbers.frombytes(data)
    if byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _costs(usd: float | None, sizes: Sequence[int]) -> list[float | None]:
    whole = sum(sizes)
    return [None if usd is None else usd * size / whole if whole else usd / len(sizes) for size in sizes]


def _answers(
    reply: HttpReply,
    data: Mapping[str, Any],
    vectors: Sequence[Sequence[float] | None],
    usages: Sequence[Usage | None],
    costs: Sequence[float | None],
) -> list[Reply | Fault]:
    request_id = header_text(reply.headers, "x-request-id") or text_of(data.get("id"))
    model = text_of(data.get("model"))
    return [
        no_answer(reply, f"{reply.status} without an embedding of this input", usage=usage, request_id=request_id)
        if vector is None
        else Reply(
            text=None,
            finish="stop",
            finish_raw=None,
            usage=usage,
            provider_model=model,
            request_id=request_id,
            provider_cost_usd=cost,
            vector=vector,
        )
        for vector, usage, cost in zip(vectors, usages, costs, strict=True)
    ]
