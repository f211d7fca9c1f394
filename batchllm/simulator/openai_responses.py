"""The OpenAI dialect's other chat: responses as objects and as named events (protocols A.5).

What is a finish reason in chat is spread here over `status`, `incomplete_details` and `error`, and a failed answer still comes with HTTP 200.
"""

from __future__ import annotations

from typing import Any

from batchllm.core import json
from batchllm.simulator import openai_responses_request
from batchllm.simulator.dialect import Answer, Aside, Ask, Choice, Dialect, ErrorReply, Problem
from batchllm.simulator.openai import OpenAIWire, pieces

_ERROR = {"code": "server_error", "message": "The server had an error while processing your request. Sorry about that!"}
_INCOMPLETE = {"length": "max_output_tokens", "filter": "content_filter"}


class OpenAIResponses(OpenAIWire):
    """`POST /v1/responses`."""

    # No choices, no [DONE], and usage comes once with the last event.
    without: frozenset[str] = frozenset({"stream_no_done", "stream_usage_every", "stream_usage_in_choices", "stream_first_empty"})

    def parse(self, body: bytes) -> Ask | Problem:
        """Reads and checks a request."""
        return openai_responses_request.parse(body)

    def body(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> bytes:
        """A `response` object."""
        return json.dumps(_response(ask, answer, utc, fault))

    def frames(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> list[bytes]:
        """The events of A.5, numbered; the last one has the whole response."""
        final = _response(ask, answer, utc, fault)
        opening = {**final, "status": "in_progress", "output": [], "usage": None, "error": None, "incomplete_details": None}
        events: list[dict[str, Any]] = [{"type": "response.created", "response": opening}, {"type": "response.in_progress", "response": opening}]
        for index, item in enumerate(final["output"]):
            events += _item_events(index, item)
        if fault == "stream_stall_comments":
            first = next((place for place, event in enumerate(events) if event["type"].endswith(".delta")), len(events) - 1)
            return _numbered(events[: first + 1])
        if fault == "stream_error":
            return _numbered(
                [*events[: max(len(events) // 2, 4)], {"type": "error", "code": "server_error", "message": _ERROR["message"], "param": None}]
            )
        if fault != "stream_no_finish":
            status = final["status"] if final["status"] in ("failed", "incomplete") else "completed"
            events.append({"type": f"response.{status}", "response": final})
        return _numbered(events)


def aside(request: Aside) -> tuple[Dialect, ErrorReply | Problem] | None:
    """`POST /v1/responses/input_tokens`: a request's input is counted, nothing is generated."""
    if request.method != "POST" or not request.path.endswith("/responses/input_tokens"):
        return None
    ask = openai_responses_request.parse(request.body)
    if isinstance(ask, Problem):
        return OpenAIResponses(), ask
    body = json.dumps({"object": "response.input_tokens", "input_tokens": ask.input_tokens})
    return OpenAIResponses(), ErrorReply(status=200, headers={"content-type": "application/json"}, body=body)


def _response(ask: Ask, answer: Answer, utc: float, fault: str | None) -> dict[str, Any]:
    choice = answer.choices[0]
    reason = _INCOMPLETE.get(choice.finish or "")
    failed = choice.finish == "error"
    return {
        "id": "resp_" + ask.digest[:16].hex(),
        "object": "response",
        "created_at": int(utc),
        "status": None if choice.finish is None else "failed" if failed else "incomplete" if reason else "completed",
        "error": _ERROR if failed else None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": None,
        "max_output_tokens": ask.cap,
        "metadata": {},
        "model": ask.model,
        "output": None if fault == "no_choices" else _output(ask, answer, choice),
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "service_tier": "default",
        "usage": None if fault == "usage_missing" else _usage(answer, fault),
    }


def _output(ask: Ask, answer: Answer, choice: Choice) -> list[dict[str, Any]]:
    """Thinking first, so that nobody may take the first item for the message."""
    mark = ask.digest[:12].hex()
    items: list[dict[str, Any]] = []
    if answer.usage.reasoning_tokens:
        items.append({"type": "reasoning", "id": "rs_" + mark, "summary": []})
    status = "incomplete" if choice.finish in ("length", "error") else "completed"
    if choice.tool_call is not None:
        call = choice.tool_call
        items.append(
            {"type": "function_call", "id": "fc_" + mark, "call_id": call.id, "name": call.name, "arguments": call.arguments, "status": "completed"}
        )
    elif choice.refusal is not None or choice.text is not None:
        part: dict[str, Any] = (
            {"type": "refusal", "refusal": choice.refusal}
            if choice.refusal is not None
            else {"type": "output_text", "text": choice.text, "annotations": [], "logprobs": []}
        )
        items.append({"type": "message", "id": "msg_" + mark, "role": "assistant", "status": status, "content": [part]})
    return items


def _item_events(index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    """One output item from its beginning to its end."""
    begun = {**item, "status": "in_progress"}
    inside: list[dict[str, Any]] = []
    place = {"item_id": item["id"], "output_index": index}
    match item["type"]:
        case "reasoning":
            begun = item
        case "function_call":
            begun["arguments"] = ""
            inside = [{"type": "response.function_call_arguments.delta", **place, "delta": piece} for piece in pieces(item["arguments"])]
            inside.append({"type": "response.function_call_arguments.done", **place, "name": item["name"], "arguments": item["arguments"]})
        case _:
            begun["content"] = []
            inside = _part_events({**place, "content_index": 0}, item["content"][0])
    return [
        {"type": "response.output_item.added", "output_index": index, "item": begun},
        *inside,
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def _part_events(place: dict[str, Any], part: dict[str, Any]) -> list[dict[str, Any]]:
    key, name = ("refusal", "refusal") if part["type"] == "refusal" else ("text", "output_text")
    more: dict[str, Any] = {"logprobs": []} if key == "text" else {}
    return [
        {"type": "response.content_part.added", **place, "part": {**part, key: ""}},
        *({"type": f"response.{name}.delta", **place, "delta": piece, **more} for piece in pieces(part[key])),
        {"type": f"response.{name}.done", **place, key: part[key], **more},
        {"type": "response.content_part.done", **place, "part": part},
    ]


def _numbered(events: list[dict[str, Any]]) -> list[bytes]:
    return [b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps({**event, "sequence_number": n})) for n, event in enumerate(events)]


def _usage(answer: Answer, fault: str | None) -> dict[str, Any]:
    usage = answer.usage
    total = usage.input_tokens + usage.output_tokens
    if fault == "usage_zero":
        return {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    if fault == "usage_strings":
        return {"input_tokens": str(usage.input_tokens), "output_tokens": str(usage.output_tokens), "total_tokens": str(total)}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens, "cache_write_tokens": usage.cache_write_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": total,
    }
