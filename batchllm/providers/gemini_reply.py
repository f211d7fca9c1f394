"""A Gemini response becomes a `Reply`; an error, a blocked prompt and a broken call what they are.

The traps: counts that are 0 are absent; thinking is beside the output count, not inside; parts that are thoughts are no answer; a candidate may have no content at
all, and a response no candidates. Sources: protocols C.2, C.5, J.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchllm.core.nouns import Fault, Finish, Kind, Reply, Usage
from batchllm.core.wire import HttpReply
from batchllm.providers.bodies import json_of, no_answer, read_json, text_of, unreadable
from batchllm.providers.classify import classify, classify_inner
from batchllm.providers.envelope import SHOWN, ErrorBody, error_of
from batchllm.providers.usage import token_count

FINISH: dict[str, Finish] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    # The request's own token limit: each further hop would be billed, so what came is taken for a cut answer.
    "CONTINUATION": "length",
    **dict.fromkeys(
        (
            "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "ESCALATION", "LANGUAGE",
            "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER",
        ),
        "filter",
    ),
    **dict.fromkeys(
        (
            "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE",
            "OTHER", "NO_IMAGE",
        ),
        "error",
    ),
}  # fmt: skip
_ACCOUNT = "PUP_LIMITED_DISABLED"
"""A finish reason that is about the account, not about the answer."""


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
    """A response, or what came in its place. `reply` gives the headers and the status."""
    usage, request_id = usage_of(data.get("usageMetadata")), text_of(data.get("responseId"))
    error = error_of(data) if data.get("error") else None
    if error is not None:
        return classify_inner(error, reply.headers, usage=usage, status=reply.status, request_id=request_id)
    candidates = data.get("candidates")
    if not (isinstance(candidates, list) and candidates and isinstance(candidates[0], dict)):
        return _without_candidate(reply, data, usage, request_id)
    candidate = candidates[0]
    finish_raw = text_of(candidate.get("finishReason"))
    finish: Finish = "unknown" if finish_raw is None else FINISH.get(finish_raw, "unknown")
    said = text_of(candidate.get("finishMessage")) or ""
    if finish_raw == _ACCOUNT:
        body = ErrorBody(form="json", message=said or "the account is limited", code=_ACCOUNT, words=(_ACCOUNT.lower(),))
        return classify_inner(body, reply.headers, usage=usage, status=reply.status, request_id=request_id)
    if finish == "error":
        return Fault(
            kind=Kind.CUT,
            message=f"the model's answer was no good (finishReason {finish_raw}){f': {said}' if said else ''}"[:SHOWN],
            http_status=reply.status,
            provider_code=finish_raw,
            billed="maybe" if usage is None else "yes",
            usage=usage,
            request_id=request_id,
        )
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    text, tool_calls = _read(parts if isinstance(parts, list) else [], request_id)
    if tool_calls and finish in ("stop", "unknown"):
        finish = "tool"
    elif text is None and finish in ("stop", "length"):
        text = ""
    return Reply(
        text=text,
        finish=finish,
        finish_raw=finish_raw,
        usage=usage,
        tool_calls=tool_calls,
        provider_model=text_of(data.get("modelVersion")),
        service_tier=_tier(data.get("usageMetadata")),
        request_id=request_id,
    )


def _without_candidate(reply: HttpReply, data: Mapping[str, Any], usage: Usage | None, request_id: str | None) -> Reply | Fault:
    """A blocked prompt is an answer of a kind: the same prompt will be blocked again. A body that says nothing is none."""
    feedback = data.get("promptFeedback")
    feedback = feedback if isinstance(feedback, dict) else {}
    reason = text_of(feedback.get("blockReason"))
    if reason is None and "usageMetadata" not in data:
        return no_answer(reply, f"{reply.status} without candidates", usage=usage, request_id=request_id)
    return Reply(
        text=None,
        finish="filter",
        finish_raw=reason,
        usage=usage,
        refusal=text_of(feedback.get("blockReasonMessage")) or (f"the prompt was blocked ({reason})" if reason else "the model gave no candidate"),
        provider_model=text_of(data.get("modelVersion")),
        request_id=request_id,
    )


def _read(parts: list[Any], request_id: str | None) -> tuple[str | None, tuple[Mapping[str, Any], ...]]:
    """Text without thoughts, and tool calls in OpenAI's form. A call's thought signature must come back in the next turn, so the call carries it."""
    texts: list[str] = []
    calls: list[Mapping[str, Any]] = []
    for part in parts:
        if not isinstance(part, dict):
            continue
        function = part.get("functionCall")
        if isinstance(function, dict):
            args = function.get("args")
            call: dict[str, Any] = {
                # Not every model gives its calls an id, but every later turn needs one.
                "id": text_of(function.get("id")) or f"call_{request_id or ''}_{len(calls)}",
                "type": "function",
                "function": {"name": function.get("name"), "arguments": json_of(args if args is not None else {})},
            }
            if text_of(part.get("thoughtSignature")):
                call["extra_content"] = {"google": {"thought_signature": part["thoughtSignature"]}}
            calls.append(call)
        elif isinstance(part.get("text"), str) and part.get("thought") is not True:
            texts.append(part["text"])
    return ("".join(texts) if texts else None), tuple(calls)


def _tier(usage: Any) -> str | None:
    tier = text_of(usage.get("serviceTier")) if isinstance(usage, dict) else None
    return tier.lower() if tier and tier != "unspecified" else None


def usage_of(usage: Any) -> Usage | None:
    """The `usageMetadata` of a response; None when it says nothing that can be believed."""
    if not isinstance(usage, dict):
        return None
    names = (
        "promptTokenCount",
        "toolUsePromptTokenCount",
        "candidatesTokenCount",
        "thoughtsTokenCount",
        "cachedContentTokenCount",
        "totalTokenCount",
    )
    said = [token_count(usage.get(name)) for name in names]
    prompt, tools, candidates, thoughts, cached, total = (count or 0 for count in said)
    if said[0] is None or min(prompt, tools, candidates, thoughts) < 0 or not (prompt or candidates or thoughts):
        return None
    given, made = prompt + tools, candidates + thoughts
    # What only the total knows of is taken for output, the dearer reading.
    made += max(0, total - given - made)
    return Usage(
        input_tokens=given, output_tokens=made, cached_input_tokens=cached if 0 <= cached <= given else 0, reasoning_tokens=min(thoughts, made)
    )
