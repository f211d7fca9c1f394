"""An Anthropic message becomes a `Reply`; an error, alone or inside a 200, a `Fault`.

The traps: the three input counts are disjoint, so the input is their sum; thinking is already inside the output; a refusal is a 200 that was billed; a tool's
input is an object, while a `Reply` has JSON text. Sources: protocols B.3, B.8, J.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchllm.core.nouns import Fault, Finish, Reply, Usage
from batchllm.core.wire import HttpReply
from batchllm.providers.bodies import json_of, no_answer, read_json, text_of, unreadable
from batchllm.providers.classify import classify, classify_inner
from batchllm.providers.envelope import error_of, header_text
from batchllm.providers.usage import token_count

FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "stop": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    # A server tool's loop took a break: what came is only a part of the answer.
    "pause_turn": "length",
    "tool_use": "tool",
    "refusal": "refusal",
}


def decode(reply: HttpReply) -> Reply | Fault:
    """What the server said. Never raises, whatever the bytes."""
    if not 200 <= reply.status < 300:
        return classify(reply.status, reply.headers, reply.body)
    data = read_json(reply.body)
    if isinstance(data, list) and data:
        data = data[0]
    if not isinstance(data, dict):
        return unreadable(reply)
    return answer(reply, data)


def answer(reply: HttpReply, data: Mapping[str, Any]) -> Reply | Fault:
    """A message, or what came in its place. `reply` gives the headers and the status."""
    usage, request_id = usage_of(data.get("usage")), text_of(data.get("id"))
    content = data.get("content")
    if data.get("type") == "error" or data.get("error") or not isinstance(content, list):
        error = error_of(data)
        if error is None:
            return no_answer(reply, f"{reply.status} without content", usage=usage, request_id=request_id)
        return classify_inner(error, reply.headers, usage=usage, status=reply.status, request_id=request_id)
    texts = [block["text"] for block in content if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str)]
    text: str | None = "".join(texts) if texts else None
    tool_calls = _tool_calls(content)
    finish_raw = text_of(data.get("stop_reason"))
    finish: Finish = "unknown" if finish_raw is None else FINISH.get(finish_raw, "unknown")
    refusal = None
    if finish == "refusal":
        refusal = _refusal(data.get("stop_details"))
    elif tool_calls and finish in ("stop", "unknown"):
        finish = "tool"
    elif text is None and finish in ("stop", "length"):
        text = ""
    told = data.get("usage")
    return Reply(
        text=text,
        finish=finish,
        finish_raw=finish_raw,
        usage=usage,
        tool_calls=tool_calls,
        refusal=refusal,
        provider_model=text_of(data.get("model")),
        service_tier=_tier(told) if isinstance(told, dict) else None,
        request_id=header_text(reply.headers, "request-id", "x-request-id") or request_id,
    )


def _tool_calls(content: list[Any]) -> tuple[Mapping[str, Any], ...]:
    """Tool calls in OpenAI's form. Thinking with a signature must come back with them in the next turn, so the first call carries it."""
    calls: list[dict[str, Any]] = []
    thoughts: list[Any] = []
    for block in content:
        if not isinstance(block, dict):
            continue
        kind = block.get("type")
        if kind == "tool_use":
            given = block.get("input")
            written = given if isinstance(given, str) else json_of(given if given is not None else {})
            calls.append({"id": block.get("id"), "type": "function", "function": {"name": block.get("name"), "arguments": written}})
        elif kind == "redacted_thinking" or (kind == "thinking" and block.get("signature")):
            thoughts.append(block)
    if calls and thoughts:
        calls[0]["extra_content"] = {"anthropic": {"thinking": thoughts}}
    return tuple(calls)


def _refusal(details: Any) -> str:
    said = details if isinstance(details, dict) else {}
    category = text_of(said.get("category"))
    return text_of(said.get("explanation")) or f"the model refused{f' (category {category})' if category else ''}"


def _tier(usage: Mapping[str, Any]) -> str | None:
    """The tier that it is priced by; the fast mode has prices of its own."""
    return "fast" if usage.get("speed") == "fast" else text_of(usage.get("service_tier"))


def usage_of(usage: Any) -> Usage | None:
    """The `usage` of a message; None when it says nothing that can be believed."""
    if not isinstance(usage, dict):
        return None
    fresh, output = token_count(usage.get("input_tokens")), token_count(usage.get("output_tokens"))
    written, cached = token_count(usage.get("cache_creation_input_tokens")), token_count(usage.get("cache_read_input_tokens"))
    by_age = usage.get("cache_creation")
    minutes = hour = 0
    if isinstance(by_age, dict):
        minutes, hour = (max(token_count(by_age.get(name)) or 0, 0) for name in ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"))
        written = minutes + hour if written is None else written
    counts = (fresh, output, written or 0, cached or 0)
    if fresh is None or output is None or min(count or 0 for count in counts) < 0 or not any(counts):
        return None
    details = usage.get("output_tokens_details")
    reasoning = token_count(details.get("thinking_tokens")) if isinstance(details, dict) else None
    return Usage(
        input_tokens=fresh + (written or 0) + (cached or 0),
        output_tokens=output,
        cached_input_tokens=cached or 0,
        cache_write_tokens=written or 0,
        cache_write_1h_tokens=min(hour, written or 0),
        reasoning_tokens=min(max(reasoning or 0, 0), output),
    )
