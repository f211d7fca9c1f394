"""Bodies of OpenAI's other endpoints, as rows bring them in Batch lines, in chat's vocabulary: messages and parameters.

The trap: money is reserved by the names of chat's parameters (`max_completion_tokens`), so an output cap under another name must be found here; and one row is one
request, so a list of prompts or inputs is refused, never cut to its first. Sources: protocols A.5, A.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchllm.core.nouns import Endpoint

ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
}
"""The `url` of a Batch line."""
_FIELDS: Mapping[Endpoint, tuple[str, ...]] = {"completions": ("prompt",), "embeddings": ("input",), "responses": ("input", "instructions")}


def chat_form(endpoint: Endpoint, body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(messages, parameters) of a body of completions, embeddings or responses. ValueError with words for what no row can ask."""
    params = {key: value for key, value in body.items() if key not in _FIELDS[endpoint] and key != "model"}
    if endpoint == "responses":
        return _conversation(body), _chat_params(params)
    (field,) = _FIELDS[endpoint]
    return [{"role": "user", "content": _one_text(body.get(field), field)}], params


def _one_text(value: Any, field: str) -> str:
    """The one text that a row may hold."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, list):
        raise ValueError(f"body.{field}: one text per row (not a list, not token ids); write a row for each")  # noqa: TRY004 - it is a row's mistake, not a caller's
    if not isinstance(value, str) or not value:
        raise ValueError(f"body.{field}: {'is empty' if value == '' else 'must be a text'}")
    return value


def _conversation(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`instructions` and `input` as messages."""
    instructions, given = body.get("instructions"), body.get("input")
    messages: list[dict[str, Any]] = []
    if isinstance(instructions, str) and instructions:
        messages.append({"role": "system", "content": instructions})
    elif instructions:
        raise ValueError("body.instructions: must be a text")
    if isinstance(given, str) and given:
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise ValueError("body.input: must be a text or a list of items")
    for index, item in enumerate(given):
        if not isinstance(item, dict):
            raise ValueError(f"body.input[{index}]: is no object")  # noqa: TRY004 - as above
        _add(item, messages, f"body.input[{index}]")
    return messages


def _add(item: Mapping[str, Any], messages: list[dict[str, Any]], place: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        content = item.get("content")
        parts = [_part(part, place) for part in content] if isinstance(content, list) else content
        messages.append({"role": item.get("role"), "content": parts})
    elif kind in ("function_call", "custom_tool_call"):
        call: dict[str, Any] = {
            "id": item.get("call_id"),
            "type": "function",
            "function": {"name": item.get("name"), "arguments": item.get("arguments")},
        }
        if kind == "custom_tool_call":
            call = {"id": item.get("call_id"), "type": "custom", "custom": {"name": item.get("name"), "input": item.get("input")}}
        if not (messages and messages[-1]["role"] == "assistant"):
            messages.append({"role": "assistant", "content": None})
        messages[-1].setdefault("tool_calls", []).append(call)
    elif kind in ("function_call_output", "custom_tool_call_output"):
        output = item.get("output")
        parts = [_part(part, place) for part in output] if isinstance(output, list) else output
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": parts})
    else:
        raise ValueError(f"{place}: an item of type {kind!r} can't be sent; messages, calls and their outputs can")


def _part(part: Any, place: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {name: part[key] for name, key in (("url", "image_url"), ("detail", "detail")) if key in part}}
    if kind == "input_file":
        return {"type": "file", "file": {key: value for key, value in part.items() if key != "type"}}
    if kind in ("input_audio", "refusal"):
        return dict(part)
    raise ValueError(f"{place}.content: a part of type {kind!r} can't be sent")


def _chat_params(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters under chat's names; those that chat hasn't stay as they are."""
    if params.pop("background", None):
        raise ValueError("body.background: nobody would come back for the answer; leave it out")
    if params.get("max_output_tokens") is not None:
        params["max_completion_tokens"] = params.pop("max_output_tokens")
    _move(params, "text", {"format": "response_format", "verbosity": "verbosity"})
    _move(params, "reasoning", {"effort": "reasoning_effort"})
    form = params.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        params["response_format"] = {"type": "json_schema", "json_schema": {key: value for key, value in form.items() if key != "type"}}
    if isinstance(params.get("tools"), list):
        params["tools"] = [_nested(tool) for tool in params["tools"]]
    if isinstance(params.get("tool_choice"), dict):
        params["tool_choice"] = _nested(params["tool_choice"])
    return params


def _move(params: dict[str, Any], group: str, names: Mapping[str, str]) -> None:
    """Keys of a group to their names in chat."""
    inner = params.get(group)
    if not isinstance(inner, dict):
        return
    for key, name in names.items():
        if inner.get(key) is not None:
            params[name] = inner[key]
    rest = {key: value for key, value in inner.items() if key not in names}
    if rest:
        params[group] = rest
    else:
        del params[group]


def _nested(tool: Any) -> Any:
    """A tool, or the choice of one, in chat's form."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind not in ("function", "custom") or kind in tool:
        return tool
    return {"type": kind, kind: {key: value for key, value in tool.items() if key != "type"}}
