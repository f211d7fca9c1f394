"""Chat's messages and parameters as OpenAI's Responses API takes them: items, flat tools, `text.format`, `max_output_tokens`.

The trap: this endpoint has no `stop`, `seed` or penalties at all; they are left out with a warning, as an unknown parameter is a 400. Source: protocols A.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchllm.providers.bodies import json_of

_SYSTEM = ("system", "developer")
_NONE_HERE = ("stop", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "prediction", "modalities", "audio", "web_search_options")
_NEUTRAL = (None, 0, False)
"""Values that say what holds anyway."""


def items_of(messages: Sequence[Mapping[str, Any]]) -> tuple[str | None, list[dict[str, Any]]]:
    """(instructions, input items). A first system message is the instructions. ValueError for what no item can say."""
    items: list[dict[str, Any]] = []
    instructions: str | None = None
    for place, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if place == 0 and role in _SYSTEM and isinstance(content, str) and len(messages) > 1:
            instructions = content
        elif role == "tool":
            items.append({"type": "function_call_output", "call_id": str(message.get("tool_call_id") or ""), "output": _output(content)})
        elif role == "assistant":
            items += _assistant(message)
        elif role == "user" or role in _SYSTEM:
            items.append({"role": role, "content": content if isinstance(content, str) else [_part(part) for part in content or ()]})
        else:
            raise ValueError(f"the responses endpoint has no message of role {role!r}")
    return instructions, items


def _output(content: Any) -> Any:
    return content if isinstance(content, str) else [_part(part) for part in content or ()]


def _assistant(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the model said before: its text or refusal, and each call as an item of its own."""
    items: list[dict[str, Any]] = []
    content, refusal = message.get("content"), message.get("refusal")
    said = [{"type": "output_text", "text": content}] if isinstance(content, str) and content else []
    for part in content if isinstance(content, list | tuple) else ():
        kind = "refusal" if part.get("type") == "refusal" else "text"
        if part.get(kind) is None:
            raise ValueError(f"an assistant's message can't hold a content part of type {part.get('type')} on the responses endpoint")
        said.append({"type": "refusal" if kind == "refusal" else "output_text", kind: part[kind]})
    if isinstance(refusal, str) and refusal:
        said.append({"type": "refusal", "refusal": refusal})
    if said:
        # A text alone is said as a text: the forms with parts are the server's own output, with ids that nobody here has.
        plain = all(part["type"] == "output_text" for part in said)
        items.append({"role": "assistant", "content": "".join(part["text"] for part in said) if plain else said})
    for call in message.get("tool_calls") or ():
        function, custom = call.get("function"), call.get("custom")
        if isinstance(function, Mapping):
            arguments = function.get("arguments")
            text = arguments if isinstance(arguments, str) else json_of(arguments)
            items.append({"type": "function_call", "call_id": call.get("id") or "", "name": function.get("name"), "arguments": text})
        elif isinstance(custom, Mapping):
            items.append({"type": "custom_tool_call", "call_id": call.get("id") or "", "name": custom.get("name"), "input": custom.get("input")})
    return items


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "text":
            return {"type": "input_text", "text": part.get("text")}
        case "image_url":
            image = part.get("image_url")
            image = image if isinstance(image, Mapping) else {"url": image}
            return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail") or "auto"}
        case "file":
            file = part.get("file")
            return {"type": "input_file", **(file if isinstance(file, Mapping) else {})}
        case "input_audio" | "input_text" | "input_image" | "input_file":
            return dict(part)
        case kind:
            raise ValueError(f"the responses endpoint takes no content part of type {kind}")


def shape_fields(fields: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Chat's parameters under this endpoint's names, in place. What a row already names in this endpoint's own way stays."""
    for name in ("max_tokens", "max_completion_tokens"):
        if name in fields:
            cap = fields.pop(name)
            own = fields.get("max_output_tokens")
            fields["max_output_tokens"] = min(cap, own) if isinstance(cap, int) and isinstance(own, int) else cap if own is None else own
    text = dict(fields.get("text") or {})
    wanted = fields.pop("response_format", None)
    if isinstance(wanted, Mapping):
        text.setdefault("format", _format(wanted))
    if "verbosity" in fields:
        text.setdefault("verbosity", fields.pop("verbosity"))
    if text:
        fields["text"] = text
    if "reasoning_effort" in fields:
        fields["reasoning"] = {"effort": fields.pop("reasoning_effort"), **(fields.get("reasoning") or {})}
    if isinstance(fields.get("tools"), list | tuple):
        fields["tools"] = [_flat(tool) for tool in fields["tools"]]
    if isinstance(fields.get("tool_choice"), Mapping):
        fields["tool_choice"] = _choice(fields["tool_choice"])
    if fields.pop("logprobs", False):
        fields["include"] = [*(fields.get("include") or ()), "message.output_text.logprobs"]
    for name in _NONE_HERE:
        if name in fields and fields.pop(name) not in _NEUTRAL:
            warn(f"the responses endpoint has no `{name}`: it is left out")


def _format(wanted: Mapping[str, Any]) -> dict[str, Any]:
    inner = wanted.get("json_schema")
    return {"type": wanted.get("type"), **inner} if isinstance(inner, Mapping) else dict(wanted)


def _flat(tool: Any) -> Any:
    if isinstance(tool, Mapping):
        for kind in ("function", "custom"):
            if isinstance(tool.get(kind), Mapping):
                return {"type": kind, **tool[kind]}
    return tool


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    allowed = choice.get("allowed_tools")
    if isinstance(allowed, Mapping):
        return {"type": "allowed_tools", **allowed, "tools": [_flat(tool) for tool in allowed.get("tools") or ()]}
    flat = _flat(choice)
    return dict(flat)
