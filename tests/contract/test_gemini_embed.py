"""Embeddings on Gemini's wire: one input or many in a call."""

from __future__ import annotations

from typing import Any

import pytest

from batchllm.core.json import dumps, loads
from batchllm.core.nouns import Fault, Kind, Reply, Request, Usage
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpReply
from batchllm.providers.gemini_embed import GeminiEmbed

CODEC = GeminiEmbed(base_url="https://h", model="gemini-embedding-001", api_key=Secret("AIza-secret"), headers={})
NAME = "models/gemini-embedding-001"


def request(text: str, params: Any = None, body: Any = None) -> Request:
    return Request(endpoint="embeddings", messages=({"role": "user", "content": text},), params=params or {}, body=body or {})


def test_many_inputs_are_one_call():
    asked = [request("a", {"dimensions": 768, "encoding_format": "float", "user": "u"}, {"taskType": "RETRIEVAL_DOCUMENT"}), request("b")]
    call = CODEC.encode_many(asked, client_request_id="job.1.1")
    assert call.url == "https://h/v1beta/models/gemini-embedding-001:batchEmbedContents"
    assert call.headers["x-goog-api-key"] == Secret("AIza-secret")
    assert loads(call.body) == {
        "requests": [
            {"model": NAME, "content": {"parts": [{"text": "a"}]}, "outputDimensionality": 768, "taskType": "RETRIEVAL_DOCUMENT"},
            {"model": NAME, "content": {"parts": [{"text": "b"}]}},
        ]
    }
    assert loads(CODEC.encode(request("b"), client_request_id=None).body)["requests"] == loads(call.body)["requests"][1:]


def test_an_empty_input_fails_alone():
    with pytest.raises(ValueError, match="nothing to embed"):
        CODEC.encode_many([request("")], client_request_id=None)


def reply(body: Any, status: int = 200) -> HttpReply:
    return HttpReply(status=status, body=dumps(body))


TWO = [{"values": [0.5, 1]}, {"values": [0.25, 0]}]


@pytest.mark.parametrize(
    ("usage", "sizes", "tokens"),
    [
        (None, None, [None, None]),
        ({"promptTokenCount": 0}, None, [None, None]),
        ({"promptTokenCount": 7}, None, [4, 3]),
        ({"promptTokenCount": 7}, [1, 6], [1, 6]),
        ({"promptTokenCount": 7}, [0, 0], [4, 3]),
        ({"promptTokenCount": 10}, [1, 2], [4, 6]),
    ],
)
def test_vectors_in_order_and_tokens_shared_out(usage, sizes, tokens):
    answers = CODEC.decode_many(reply({"embeddings": TWO, **({"usageMetadata": usage} if usage else {})}), 2, sizes)
    assert answers == [
        Reply(text=None, finish="stop", finish_raw=None, usage=count and Usage(input_tokens=count, output_tokens=0), vector=made["values"])
        for made, count in zip(TWO, tokens, strict=True)
    ]


def test_one_input():
    assert CODEC.decode(reply({"embeddings": TWO[:1]})).vector == [0.5, 1]
    assert CODEC.decode(reply({"embedding": TWO[0]})).vector == [0.5, 1]
    decoder = CODEC.decoder()
    assert decoder.end(reply({"embeddings": TWO[:1]})).vector == [0.5, 1]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, {}, Kind.PROTOCOL),
        (200, {"embeddings": TWO[:1]}, Kind.PROTOCOL),
        (200, {"embeddings": "x"}, Kind.PROTOCOL),
        (200, [], Kind.PROTOCOL),
        (200, {"error": {"code": 503, "status": "UNAVAILABLE"}}, Kind.OVERLOAD),
        (429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, Kind.RATE),
    ],
)
def test_a_fault_is_shared_by_all(status, body, kind):
    fault = CODEC.decode_many(reply(body, status), 2)
    assert isinstance(fault, Fault)
    assert fault.kind is kind


@pytest.mark.parametrize("bad", [{}, {"values": []}, {"values": ["x"]}, {"values": [True]}, 5])
def test_one_bad_vector_is_one_rows_fault(bad):
    good, fault = CODEC.decode_many(reply({"embeddings": [TWO[0], bad]}), 2)
    assert (good.vector, fault.kind) == ([0.5, 1], Kind.PROTOCOL)
