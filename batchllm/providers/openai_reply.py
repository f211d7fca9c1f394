"""What a chat or text completion says, whole or put together from a stream.

The trap: "compatible" servers bend every rule - an error inside a 200, content as a list, no usage, an error for a finish - and an answer that was paid for must
not be lost to a pedantic parser. Sources: protocols A.3, A.6, E ("parser rules") and J.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchllm.core.nouns import Fault, Finish, Kind, Reply, Usage
from batchllm.core.wire import HttpReply
from batchllm.providers.bodies import json_of, no_answer, read_json, text_of, unreadable
from batchllm.providers.classify import classify, classify_inner
from batchllm.providers.envelope import error_of, header_text
from batchllm.providers.usage import cost_of, usage_of

_FINISH: dict[str, Finish] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "model_length": "length",
    "max_tokens": "length",
    "tool_calls": "tool",
    "function_call": "tool",
    "tool_use": "tool",
    "content_filter": "filter",
    "safety": "filter",
    "recitation": "filter",
    "refusal": "refusal",
    "error": "error",
    "abort": "error",
    "insufficient_system_resource": "error",
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
    return understand(reply, data)


def understand(reply: HttpReply, data: Mapping[str, Any]) -> Reply | Fault:
    """The answer that a completion object holds, or the error that it is."""
    choices = data.get("choices")
    if data.get("error") or not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        return _without_choice(reply, data)
    return _answer(reply, data, choices[0])


def _without_choice(reply: HttpReply, data: Mapping[str, Any]) -> Fault:
    """A 200 with an error in it (OpenRouter, once a provider started; SGLang's flat form), or with nothing."""
    usage, request_id = usage_of(data.get("usage")), text_of(data.get("id"))
    error = error_of(data)
    if error is None:
        said = data.get("detail")
        words = f": {said[:200]}" if isinstance(said, str) else ""
        return no_answer(reply, f"{reply.status} without choices{words}", usage=usage, request_id=request_id)
    return classify_inner(error, reply.headers, usage=usage, status=reply.status, request_id=request_id)


def content_of(value: Any) -> tuple[str | None, str | None] | None:
    """Text and refusal of a message's content: null, a string, or a list of parts. None when it is something else."""
    if value is None or isinstance(value, str):
        return value, None
    if not isinstance(value, list):
        return None
    texts: list[str] = []
    refusals: list[str] = []
    for part in value:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            # Thinking parts (Mistral) carry no `text`: they are not the answer.
            if isinstance(part.get("text"), str) and part.get("type") in ("text", "output_text", None):
                texts.append(part["text"])
            elif isinstance(part.get("refusal"), str):
                refusals.append(part["refusal"])
    return ("".join(texts) if texts else None), ("".join(refusals) or None)


def _tool_calls(message: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        return tuple(_call(call) for call in calls if isinstance(call, dict))
    legacy = message.get("function_call")
    return (_call({"type": "function", "function": legacy}),) if isinstance(legacy, dict) else ()


def _call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """As it came; arguments that a server sent as an object become text, as everywhere else."""
    function = call.get("function")
    if not isinstance(function, dict) or isinstance(function.get("arguments"), str | None):
        return call
    return {**call, "function": {**function, "arguments": json_of(function["arguments"])}}


def _answer(reply: HttpReply, data: Mapping[str, Any], choice: Mapping[str, Any]) -> Reply | Fault:
    """The first choice. (llama-server sends two where one was asked for and counts one.)"""
    headers, told = reply.headers, data.get("usage")
    usage = usage_of(told)
    request_id = header_text(headers, "x-request-id") or text_of(data.get("id"))
    finish_raw = text_of(choice.get("finish_reason"))
    finish: Finish = "unknown" if finish_raw is None else _FINISH.get(finish_raw) or _FINISH.get(finish_raw.lower(), "unknown")
    if finish == "error" or choice.get("error"):
        return _cut(reply, choice, finish_raw, usage, request_id)
    message = choice.get("message")
    if not isinstance(message, dict):
        if isinstance(choice.get("text"), str):
            # A text completion.
            message = {"content": choice["text"]}
        elif finish not in ("length", "filter"):
            return no_answer(reply, f"{reply.status} with a choice without a message", usage=usage, request_id=request_id)
        else:
            # Gemini's compatible endpoint leaves the message out when thinking used up the cap.
            message = {}
    content = content_of(message.get("content"))
    if content is None:
        return no_answer(reply, f"{reply.status} with content that is neither text nor parts", usage=usage, request_id=request_id)
    text, refusal = content
    refusal = text_of(message.get("refusal")) or refusal
    tool_calls = _tool_calls(message) if "tool_calls" in message or "function_call" in message else ()
    if refusal is not None:
        finish = "refusal"
    elif tool_calls and finish in ("stop", "unknown"):
        finish = "tool"
    elif text is None and finish in ("stop", "length"):
        text = ""
    return Reply(
        text=text,
        finish=finish,
        finish_raw=finish_raw,
        usage=usage,
        tool_calls=tool_calls,
        refusal=refusal,
        provider_model=text_of(data.get("model")),
        service_tier=text_of(data.get("service_tier")),
        request_id=request_id,
        provider_cost_usd=cost_of(told, headers),
    )


def _cut(reply: HttpReply, choice: Mapping[str, Any], finish_raw: str | None, usage: Usage | None, request_id: str | None) -> Fault:
    """An answer that the server itself broke off: by the choice's own error if it has one (OpenRouter), else CUT."""
    error = error_of(choice) if choice.get("error") else None
    if error is not None:
        return classify_inner(error, reply.headers, usage=usage, status=reply.status, request_id=request_id)
    return Fault(
        kind=Kind.CUT,
        message=f"the answer was broken off by the server (finish_reason {finish_raw!r})",
        http_status=reply.status,
        provider_code=finish_raw,
        billed="maybe" if usage is None else "yes",
        usage=usage,
        request_id=request_id,
    )
