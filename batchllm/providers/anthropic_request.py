"""OpenAI's chat vocabulary on Anthropic's wire: messages, tools, schemas, and the small words.

The traps: the system prompt is no message; tool results are user content and the results of one turn belong into one message; every text block must have text;
stop sequences must have more than blanks. Sources: protocols B.1, B.2.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchllm.providers.anthropic_schema import closed_schema
from batchllm.providers.bodies import arguments_of
from batchllm.providers.media import Media, media_of

Warn = Callable[[str], None]

_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_OWN_BLOCKS = frozenset({"image", "document", "search_result", "tool_use", "tool_result", "thinking", "redacted_thinking", "server_tool_use"})
"""Blocks in Anthropic's own form are sent as they are."""
_PASSED = ("temperature", "top_p", "top_k", "inference_geo", "speed", "thinking", "container", "cache_control", "stop_sequences")
_MAPPED = frozenset({
    "max_tokens", "stop", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "service_tier",
    "metadata", "user", "safety_identifier", "output_config", "model", "messages", "stream", "stream_options", "n", "functions", "function_call",
    *_PASSED,
})  # fmt: skip
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
_TIERS = {"default": "standard_only", "standard": "standard_only"}


def conversation(messages: Sequence[Mapping[str, Any]], warn: Warn) -> tuple[str | list[dict[str, Any]] | None, list[dict[str, Any]]]:
    """(system, messages). ValueError for what the wire can't take."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = message.get("role")
        if "name" in message and role != "tool":
            warn("Anthropic's messages have no `name`: it is left out")
        if role in ("system", "developer"):
            system += [block for block in _blocks(message.get("content"), role) if block.get("text", "").strip() or block.get("type") != "text"]
        elif role == "user":
            _add(turns, "user", message.get("content"))
        elif role == "assistant":
            _add(turns, "assistant", _said(message))
        elif role == "tool":
            _add(turns, "user", [_result(message)])
        else:
            raise ValueError(f"Anthropic knows no message role {role!r}")
    if not turns:
        raise ValueError("Anthropic needs a user message beside the system prompt")
    if len(system) == 1 and system[0].keys() == {"type", "text"}:
        return system[0]["text"], turns
    return system or None, turns


def _add(turns: list[dict[str, Any]], role: str, content: Any) -> None:
    """One more turn, or a part of the last one if it is the same side's."""
    if turns and turns[-1]["role"] == role:
        blocks = [*_blocks(turns[-1]["content"], role), *_blocks(content, role)]
        # What answers a tool call stands first in its turn.
        blocks.sort(key=lambda block: block.get("type") != "tool_result")
        turns[-1]["content"] = _with_text(blocks)
    else:
        turns.append({"role": role, "content": content if isinstance(content, str) else _with_text(_blocks(content, role))})


def _with_text(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without empty texts, which are refused, as long as anything is left."""
    return [block for block in blocks if block.get("type") != "text" or block.get("text")] or blocks


def _blocks(content: Any, role: str) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, Sequence):
        raise ValueError(f"a message's content must be text or a list of parts, got {type(content).__name__}")  # noqa: TRY004 - the row's fault, as data
    return [_block(part, role) for part in content]


def _block(part: Any, role: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise ValueError("a content part must be an object")  # noqa: TRY004 - the row's fault, as data
    kind = part.get("type")
    block: dict[str, Any]
    if kind in ("text", "input_text", "output_text", None) and isinstance(part.get("text"), str):
        block = {"type": "text", "text": part["text"]}
    elif kind == "refusal" and isinstance(part.get("refusal"), str):
        block = {"type": "text", "text": part["refusal"]}
    elif kind in _OWN_BLOCKS:
        return dict(part)
    else:
        media = media_of(part)
        if media is None:
            raise ValueError(f"Anthropic takes no content part of type {kind!r} in a {role} message")
        block = _media(media)
    if "cache_control" in part:
        block["cache_control"] = part["cache_control"]
    return block


def _media(media: Media) -> dict[str, Any]:
    mime = media.mime or ""
    if media.file_id is not None:
        return {"type": "document", "source": {"type": "file", "file_id": media.file_id}}
    if media.url is not None:
        if not media.url.startswith("https://"):
            raise ValueError(f"Anthropic reads https URLs only, got {media.url[:60]!r}")
        return {"type": "document" if mime == "application/pdf" else "image", "source": {"type": "url", "url": media.url}}
    if mime in _IMAGES:
        return {"type": "image", "source": {"type": "base64", "media_type": mime, "data": media.data}}
    source: dict[str, Any]
    if mime == "application/pdf":
        source = {"type": "base64", "media_type": mime, "data": media.data}
    elif mime.startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": b64decode(media.data or "").decode(errors="replace")}
    else:
        raise ValueError(f"Anthropic takes images (png, jpeg, gif, webp), PDF and text, not {mime or 'a file of unknown type'}")
    return {"type": "document", "source": source, **({"title": media.name} if media.name else {})}


def _said(message: Mapping[str, Any]) -> str | list[dict[str, Any]]:
    """An assistant's turn: its text, the thinking that came before its tool calls (it must be sent back unchanged), and the calls."""
    calls = message.get("tool_calls") or ()
    content = message.get("content")
    if not calls:
        return content if isinstance(content, str) else _blocks(content if content is not None else message.get("refusal"), "assistant")
    thoughts: list[dict[str, Any]] = []
    uses: list[dict[str, Any]] = []
    for call in calls:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise ValueError("Anthropic takes tool calls of type function only")  # noqa: TRY004 - the row's fault, as data
        extra = call.get("extra_content")
        own = extra.get("anthropic") if isinstance(extra, Mapping) else None
        if isinstance(own, Mapping) and isinstance(own.get("thinking"), list):
            thoughts += own["thinking"]
        uses.append({"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": arguments_of(function)})
    return [*thoughts, *(block for block in _blocks(content, "assistant") if block.get("text") or block["type"] != "text"), *uses]


def _result(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.get("tool_call_id")}
    if content is not None and content != "":
        result["content"] = content if isinstance(content, str) else _blocks(content, "tool")
    if message.get("is_error") is True:
        result["is_error"] = True
    return result


def parameters(params: Mapping[str, Any], model: str, warn: Warn) -> dict[str, Any]:
    """The wire's fields for parameters that the capability table has been over. Names that nobody knows pass as they are: the provider has its own."""
    body: dict[str, Any] = {name: value for name, value in params.items() if name not in _MAPPED}
    body.update((name, params[name]) for name in _PASSED if name in params)
    stops = params.get("stop")
    if stops:
        usable = [stop for stop in ([stops] if isinstance(stops, str) else stops) if str(stop).strip()]
        if len(usable) < (1 if isinstance(stops, str) else len(stops)):
            warn("Anthropic takes no stop sequence of blanks only: it is left out")
        if usable:
            body["stop_sequences"] = usable
    _tools(body, params, warn)
    _output(body, params, model, warn)
    tier = params.get("service_tier")
    if tier is not None:
        body["service_tier"] = _TIERS.get(tier, tier) if isinstance(tier, str) else tier
    _user(body, params, warn)
    return body


def _user(body: dict[str, Any], params: Mapping[str, Any], warn: Warn) -> None:
    """Of `metadata` the wire has the user's id only."""
    metadata = params.get("metadata")
    own = metadata.get("user_id") if isinstance(metadata, Mapping) else None
    user = own or params.get("safety_identifier") or params.get("user")
    if user:
        body["metadata"] = {"user_id": user}
    if isinstance(metadata, Mapping) and metadata.keys() - {"user_id"}:
        warn("Anthropic's metadata holds a `user_id` only: the rest is left out")


def _tools(body: dict[str, Any], params: Mapping[str, Any], warn: Warn) -> None:
    if params.get("functions"):
        raise ValueError("`functions` is OpenAI's older form: use `tools`")
    tools = params.get("tools")
    if not tools:
        return
    body["tools"] = [_tool(tool, warn) for tool in tools]
    choice = params.get("tool_choice")
    made: dict[str, Any] | None = None
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise ValueError(f"Anthropic knows no tool_choice {choice!r}; it has auto, none, required, or a function")
        made = {"type": _CHOICES[choice]}
    elif isinstance(choice, Mapping):
        function = choice.get("function")
        made = {"type": "tool", "name": function.get("name")} if isinstance(function, Mapping) else dict(choice)
    if params.get("parallel_tool_calls") is False and (made is None or made["type"] != "none"):
        made = {**(made or {"type": "auto"}), "disable_parallel_tool_use": True}
    if made is not None:
        body["tool_choice"] = made


def _tool(tool: Any, warn: Warn) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        if isinstance(tool, Mapping) and tool.get("name"):
            # One of Anthropic's own tools, or a tool in Anthropic's own form.
            return dict(tool)
        raise ValueError("Anthropic takes tools of type function, or its own")
    strict = function.get("strict") is True
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    made: dict[str, Any] = {"name": function.get("name"), "input_schema": closed_schema(schema, warn) if strict else schema}
    if function.get("description"):
        made["description"] = function["description"]
    if strict:
        made["strict"] = True
    return made


def _output(body: dict[str, Any], params: Mapping[str, Any], model: str, warn: Warn) -> None:
    """Schema and effort are both fields of `output_config`."""
    config: dict[str, Any] = {}
    form = params.get("response_format")
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "json_schema":
        inner = form["json_schema"] if isinstance(form, Mapping) and isinstance(form.get("json_schema"), Mapping) else {}
        if not isinstance(inner.get("schema"), Mapping):
            raise ValueError("response_format has no json_schema.schema")
        config["format"] = {"type": "json_schema", "schema": closed_schema(inner["schema"], warn)}
    elif kind == "json_object":
        warn(f"{model} has no JSON mode without a schema: response_format is left out, so the prompt must ask for JSON")
    elif form is not None and kind != "text":
        raise ValueError(f"unknown response_format {kind!r}")
    effort = params.get("reasoning_effort")
    if effort == "none":
        body.setdefault("thinking", {"type": "disabled"})
    elif effort is not None:
        config["effort"] = effort
    own = params.get("output_config")
    if isinstance(own, Mapping):
        config.update(own)
    if config:
        body["output_config"] = config
