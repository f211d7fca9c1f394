"""What a response of OpenAI's Responses API says, whole or as the last event of a stream.

The traps: an error comes inside a 200 as `status: failed`; the message needn't be the first item; a refusal is a part of a message that is `completed`.
Source: protocols A.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batchllm.core.nouns import Fault, Finish, Kind, Reply
from batchllm.core.wire import HttpReply
from batchllm.providers.bodies import json_of, no_answer, read_json, text_of, unreadable
from batchllm.providers.classify import classify, classify_inner
from batchllm.providers.envelope import error_of, header_text
from batchllm.providers.usage import cost_of, usage_of

_INCOMPLETE: Mapping[str, Finish] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "max_messages": "length",
    "content_filter": "filter",
}
_OF_THE_ROW = ("image", "data_residency_mismatch")
"""Codes of a failed response that fail again however often they are asked."""


def decode(reply: HttpReply) -> Reply | Fault:
    """What the server said. Never raises, whatever the bytes."""
    if not 200 <= reply.status < 300:
        return classify(reply.status, reply.headers, reply.body)
    data = read_json(reply.body)
    if isinstance(data, list) and data:
        data = data[0]
    return understand(reply, data) if isinstance(data, dict) else unreadable(reply)


def understand(reply: HttpReply, data: Mapping[str, Any]) -> Reply | Fault:
    """The answer that a response object holds, or the error that it is."""
    usage = usage_of(data.get("usage"))
    request_id = header_text(reply.headers, "x-request-id") or text_of(data.get("id"))
    status, output = text_of(data.get("status")), data.get("output")
    if data.get("error") or status == "failed" or not isinstance(output, list):
        error = error_of(data)
        if error is None:
            words = "with a failed response that names no error" if status == "failed" else "without output"
            return no_answer(reply, f"{reply.status} {words}", usage=usage, request_id=request_id)
        fault = classify_inner(error, reply.headers, usage=usage, status=reply.status, request_id=request_id)
        if fault.kind is Kind.SERVER and any(part in word for word in error.words for part in _OF_THE_ROW):
            return replace(fault, kind=Kind.BAD_REQUEST)
        return fault
    if status == "cancelled":
        fault = no_answer(reply, "the response was cancelled at the provider", usage=usage, request_id=request_id)
        return replace(fault, kind=Kind.CUT, provider_code=status)
    if status in ("queued", "in_progress"):
        return no_answer(reply, f"{reply.status} with a response that is still {status}", usage=usage, request_id=request_id)
    return _answer(reply, data, output, status)


def _answer(reply: HttpReply, data: Mapping[str, Any], output: list[Any], status: str | None) -> Reply:
    texts: list[str] = []
    refusals: list[str] = []
    calls: list[dict[str, Any]] = []
    for item in output:
        if not isinstance(item, dict):
            continue
        call = _call(item)
        if call is not None:
            calls.append(call)
        elif item.get("type") == "message":
            _said(item.get("content"), texts, refusals)
    details = data.get("incomplete_details")
    reason = text_of(details.get("reason")) if isinstance(details, dict) else None
    finish: Finish = _INCOMPLETE.get(reason or "", "unknown") if status == "incomplete" else "stop"
    if refusals:
        finish = "refusal"
    elif calls and finish == "stop":
        finish = "tool"
    text = "".join(texts) if texts else None
    if text is None and finish in ("stop", "length"):
        text = ""
    return Reply(
        text=text,
        finish=finish,
        finish_raw=reason or status,
        usage=usage_of(data.get("usage")),
        tool_calls=tuple(calls),
        refusal="".join(refusals) or None,
        provider_model=text_of(data.get("model")),
        service_tier=text_of(data.get("service_tier")),
        request_id=header_text(reply.headers, "x-request-id") or text_of(data.get("id")),
        provider_cost_usd=cost_of(data.get("usage"), reply.headers),
    )


def _said(content: Any, texts: list[str], refusals: list[str]) -> None:
    if isinstance(content, str):
        texts.append(content)
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict):
            if text_of(part.get("refusal")):
                refusals.append(part["refusal"])
            elif isinstance(part.get("text"), str):
                texts.append(part["text"])


def _call(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """A call in chat's form; None for an item of another kind."""
    kind = item.get("type")
    if kind not in ("function_call", "custom_tool_call"):
        return None
    call_id = text_of(item.get("call_id")) or text_of(item.get("id"))
    named = {"id": call_id} if call_id else {}
    name = text_of(item.get("name")) or ""
    if kind == "custom_tool_call":
        return {**named, "type": "custom", "custom": {"name": name, "input": item.get("input")}}
    arguments = item.get("arguments")
    text = arguments if isinstance(arguments, str) else json_of(arguments or {})
    return {**named, "type": "function", "function": {"name": name, "arguments": text}}
