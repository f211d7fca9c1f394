"""Reading an OpenAI responses request (protocols A.5) into the same `Ask` as a chat's: input items become messages.

The trap is half-translated requests: chat's names (`messages`, `max_tokens`, `response_format`, nested tools) are refused here as the real server refuses them, so
that a codec which forgets one is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchllm.core.words import count_messages
from batchllm.simulator import openai_request
from batchllm.simulator.dialect import Ask, Problem

_OF_CHAT = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "stop": None,
    "n": None,
    "seed": None,
    "stream_options": None,
    "logit_bias": None,
    "frequency_penalty": None,
    "presence_penalty": None,
}
"""Parameters that this endpoint does not have, and what they are called here."""
_STREAM_OPTIONS = frozenset({"include_obfuscation"})
_PARTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}


def parse(body: bytes) -> Ask | Problem:
    """Reads and checks a request."""
    document = openai_request.read(body)
    if isinstance(document, Problem):
        return document
    model = document["model"]
    if (foreign := _foreign(document)) is not None:
        return openai_request.invalid(*foreign, code="unknown_parameter", model=model)
    messages = _messages(document)
    if isinstance(messages, Problem):
        return messages
    problem = openai_request.messages_problem(messages) or openai_request.parameters_problem(document) or _tools_problem(document.get("tools"))
    if problem is not None:
        return openai_request.invalid(*problem, model=model)
    last_text = openai_request.last_user_text(messages)
    tool = openai_request.called_tool(document, messages, last_text)
    if isinstance(tool, Problem):
        return tool
    text, reasoning = document.get("text"), document.get("reasoning")
    wanted = text.get("format") if isinstance(text, dict) else None
    form = openai_request.answer_form(wanted, messages, model=model, place="text.format", flat=True)
    if isinstance(form, Problem):
        return form
    return Ask(
        model=model,
        messages=messages,
        digest=openai_request.digest(document),
        input_tokens=count_messages(messages),
        cap=document.get("max_output_tokens"),
        stream=document.get("stream") is True,
        stream_usage=True,
        format=form[0],
        schema=form[1],
        tool=tool,
        think=isinstance(reasoning, dict) and openai_request.thinks(reasoning.get("effort")),
        last_text=last_text,
    )


def _foreign(document: Mapping[str, Any]) -> tuple[str, str] | None:
    for name, own in _OF_CHAT.items():
        value = document.get(name)
        if value is None or (name == "stream_options" and isinstance(value, dict) and value.keys() <= _STREAM_OPTIONS):
            continue
        mend = f" In the Responses API this parameter is '{own}'." if own else ""
        return f"Unsupported parameter: '{name}'.{mend}", name
    return None


def _messages(document: Mapping[str, Any]) -> list[dict[str, Any]] | Problem:
    """Instructions and input as chat messages."""
    model = document["model"]
    given = document.get("input")
    instructions = document.get("instructions")
    messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if isinstance(instructions, str) else []
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        return openai_request.invalid("Missing required parameter: 'input' (a string or a non-empty array of items).", "input", model=model)
    for index, item in enumerate(given):
        message = _message(item) if isinstance(item, dict) else f"Invalid type for 'input[{index}]': expected an object."
        if isinstance(message, str):
            return openai_request.invalid(message.replace("{index}", str(index)), f"input[{index}]", model=model)
        if message is not None:
            messages.append(message)
    return messages


def _message(item: Mapping[str, Any]) -> dict[str, Any] | str | None:
    """An input item as a message; None for what isn't said by anybody; words for what can't be read."""
    match item.get("type", "message"):
        case "message":
            content = item.get("content")
            if not isinstance(content, list):
                return {"role": item.get("role"), "content": content}
            parts = [_part(part) for part in content]
            wrong = next((part for part in parts if isinstance(part, str)), None)
            return wrong if wrong is not None else {"role": item.get("role"), "content": parts}
        case "function_call":
            if not isinstance(item.get("call_id"), str) or not isinstance(item.get("name"), str) or not isinstance(item.get("arguments"), str):
                return "Missing required parameter: 'input[{index}]' of type function_call needs call_id, name and arguments."
            call = {"id": item["call_id"], "type": "function", "function": {"name": item["name"], "arguments": item["arguments"]}}
            return {"role": "assistant", "content": None, "tool_calls": [call]}
        case "function_call_output":
            output = item.get("output")
            if not isinstance(item.get("call_id"), str) or not isinstance(output, str | list):
                return "Missing required parameter: 'input[{index}]' of type function_call_output needs call_id and output."
            return {"role": "tool", "tool_call_id": item["call_id"], "content": output if isinstance(output, str) else ""}
        case "reasoning" | "item_reference":
            return None
        case other:
            return f"Invalid value: '{other}'. (input[{{index}}].type)"


def _part(part: Any) -> dict[str, Any] | str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _PARTS and isinstance(part.get(_PARTS[kind]), str):
        return {"type": _PARTS[kind], _PARTS[kind]: part[_PARTS[kind]]}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    if kind == "input_file":
        return {"type": "file", "file": {name: part[name] for name in ("file_data", "file_url", "filename", "file_id") if name in part}}
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    supported = "'input_text', 'input_image', 'input_file', 'input_audio', 'output_text' and 'refusal'"
    return f"Invalid value: '{kind}'. Supported values are: {supported}. (input[{{index}}].content)"


def _tools_problem(tools: Any) -> tuple[str, str] | None:
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, dict) and tool.get("type") == "function" and not isinstance(tool.get("name"), str):
            return f"Missing required parameter: 'tools[{index}].name'.", f"tools[{index}].name"
    return None
