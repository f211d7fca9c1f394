"""Every codec against every dialect of the simulator, for every fault: two programs written apart from the same documents must agree.

What `--faults` draws ends as on a good day or as a fault; what was paid for is never called free. A disagreement is a bug on one of the two sides.
"""

from __future__ import annotations

import pytest

from batchllm.core.nouns import Reply, Request
from batchllm.core.secret import Secret
from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.core.wire import HttpReply
from batchllm.providers.codecs import codec_for
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.simulator.faults import KINDS

WIRES = [
    ("simulated", "chat"),
    ("openai", "responses"),
    ("openai", "completions"),
    ("openai", "embeddings"),
    ("anthropic", "chat"),
    ("gemini", "chat"),
    ("gemini", "embeddings"),
    ("ollama", "chat"),
    ("ollama", "completions"),
    ("ollama", "embeddings"),
]
WORDLESS_REFUSAL = {("openai", "completions"), ("ollama", "chat"), ("ollama", "completions")}
"""Wires that can't mark a refusal: it is text like any other."""


def codec_of(provider, endpoint):
    url = "http://sim" if provider in ("ollama", "anthropic", "gemini") else "http://sim/v1"
    return codec_for(provider=provider, endpoint=endpoint, base_url=url, model="m", api_key=Secret("k"), headers={})


async def exchanged(codec, transport, request, stream):
    if request.endpoint == "embeddings":
        came = await transport.send(codec.encode_many([request], client_request_id="a"), timeout_seconds=30)
        found = codec.decode_many(came, 1) if isinstance(came, HttpReply) else came
        return found[0] if isinstance(found, list) else found
    call = codec.encode(request, client_request_id="a", stream=stream)
    if not stream:
        came = await transport.send(call, timeout_seconds=30)
        return codec.decode(came) if isinstance(came, HttpReply) else came
    decoder = codec.decoder()
    return decoder.end(await transport.stream(call, decoder, timeout_seconds=30, stall_seconds=10))


def met(provider, endpoint, fault, stream):
    """What a codec makes of a fault and of the same request without it, and the fault's place in the books."""
    params = {} if endpoint == "embeddings" else {"max_tokens": 60}
    text = f"[[sim:{fault}*1]] Tell me about lakes and rivers"
    request = Request(endpoint=endpoint, messages=({"role": "user", "content": text},), params=params)
    codec = codec_of(provider, endpoint)

    async def main():
        clock = VirtualClock()
        simulator = Simulator(Settings(latency_ms=100))
        transport = SimulatedTransport(simulator, clock)
        outcomes = [await exchanged(codec, transport, request, stream) for _ in range(2)]
        return *outcomes, simulator.audit.records[0]

    return run_virtual(main)


def said(reply):
    return isinstance(reply, Reply) and (reply.text, reply.vector, reply.usage, reply.finish, list(reply.tool_calls))


def quarrel(kind, wrong, right, record, *, wire, stream):
    """What the two sides disagree about; None when they agree."""
    if not isinstance(right, Reply) or not (right.text or right.vector):
        return f"the good answer was not understood: {right}"
    if record.fault is None or kind.group == "variation":
        return None if said(wrong) == said(right) else f"not the same answer: {wrong}"
    if not isinstance(wrong, Reply):
        if kind.group == "accepted" and not (kind.name == "finish_null" and stream) and (wire, kind.name) != (("gemini", "chat"), "bad_arguments"):
            return f"taken for a fault: {wrong}"
        # The books may say more than the wire shows, but not less.
        return f"paid for, but said to be free: {wrong}" if record.billed and wrong.billed == "no" else None
    if kind.group == "transient":
        return f"taken for an answer: {wrong}"
    if kind.group == "permanent" and wrong.finish not in ("refusal", "filter") and not (kind.name == "refusal" and wire in WORDLESS_REFUSAL):
        return f"taken for a good answer: {wrong}"
    return None


@pytest.mark.parametrize(
    ("wire", "stream"), [(wire, stream) for wire in WIRES for stream in (False, True) if not (stream and wire[1] == "embeddings")]
)
def test_codec_and_simulator_agree_about_every_fault(wire, stream):
    kinds = [kind for kind in KINDS if kind.wire in ("any", "stream" if stream else "plain")]
    quarrels = {kind.name: quarrel(kind, *met(*wire, kind.name, stream), wire=wire, stream=stream) for kind in kinds}
    assert {name: words for name, words in quarrels.items() if words} == {}
