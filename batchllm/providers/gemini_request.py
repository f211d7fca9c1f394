"""OpenAI's chat vocabulary on Gemini's wire: contents, tools, schemas, and the small words.

The traps: a tool's result goes by the function's name, which OpenAI's messages don't repeat; the model's thought signature has to come back with a call, or the next
turn is refused; several turns of one side are one. Sources: protocols C.2, C.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchllm.core.json import JSONDecodeError, loads
from batchllm.providers.bodies import arguments_of
from batchllm.providers.capabilities import gemini_thinks_by_budget
from batchllm.providers.media import Media, media_of

Warn = Callable[[str], None]

_CONFIG = {
    "max_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
"""Parameters that only change their name."""
_MAPPED = frozenset({
    *_CONFIG, "stop", "tools", "tool_choice", "response_format", "reasoning_effort", "service_tier", "parallel_tool_calls",
    "model", "messages", "stream", "stream_options", "n", "functions", "function_call", "generationConfig",
})  # fmt: skip
_RESERVED = frozenset({"maxOutputTokens", "candidateCount"})
_CHOICES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_TIERS = {"auto": None, "default": "standard"}
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576}
"""Tokens of thinking for Gemini 2.5: what Google's own OpenAI-compatible endpoint makes of these words."""
_OWN_PARTS = ("inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult")
"""Parts in Gemini's own form are sent as they are."""


def conversation(messages: Sequence[Mapping[str, Any]], warn: Warn) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """(systemInstruction, contents). ValueError for what the wire can't take."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    names: dict[Any, Any] = {}
    for message in messages:
        role = message.get("role")
        if "name" in message and role != "tool":
            warn("Gemini's contents have no `name`: it is left out")
        if role in ("system", "developer"):
            system += [part for part in _parts(message.get("content"), role) if part.get("text") != ""]
        elif role == "user":
            _add(turns, "user", _parts(message.get("content"), role))
        elif role == "assistant":
            _add(turns, "model", _said(message, names))
        elif role == "tool":
            _add(turns, "user", [_result(message, names)])
        else:
            raise ValueError(f"Gemini knows no message role {role!r}")
    if not turns:
        raise ValueError("Gemini needs a user message beside the system prompt")
    return ({"parts": system} if system else None), turns


def _add(turns: list[dict[str, Any]], role: str, parts: list[dict[str, Any]]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["parts"] += parts
    else:
        turns.append({"role": role, "parts": parts})


def _parts(content: Any, role: str) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"text": content}]
    if not isinstance(content, Sequence):
        raise ValueError(f"a message's content must be text or a list of parts, got {type(content).__name__}")  # noqa: TRY004 - the row's fault, as data
    return [_part(part, role) for part in content]


def _part(part: Any, role: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    if not isinstance(part, Mapping):
        raise ValueError("a content part must be an object")  # noqa: TRY004 - the row's fault, as data
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text", None) and isinstance(part.get("text"), str):
        return {"text": part["text"]}
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return {"text": part["refusal"]}
    if kind is None and any(name in part for name in _OWN_PARTS):
        return dict(part)
    media = media_of(part)
    if media is None:
        raise ValueError(f"Gemini takes no content part of type {kind!r} in a {role} message")
    return _media(media)


def _media(media: Media) -> dict[str, Any]:
    where = media.file_id or media.url
    if where is not None:
        return {"fileData": {"fileUri": where, **({"mimeType": media.mime} if media.mime else {})}}
    if media.mime is None:
        raise ValueError("Gemini needs to know what a file is: give a data: URL, or a filename with an ending")
    return {"inlineData": {"mimeType": media.mime, "data": media.data}}


def _said(message: Mapping[str, Any], names: dict[Any, Any]) -> list[dict[str, Any]]:
    """A model's turn: its text and its calls, each with the thought signature that it came with."""
    content = message.get("content")
    calls = message.get("tool_calls") or ()
    parts = _parts(content if content is not None or calls else message.get("refusal"), "assistant")
    if calls:
        parts = [part for part in parts if part.get("text") != ""]
    for call in calls:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise ValueError("Gemini takes tool calls of type function only")  # noqa: TRY004 - the row's fault, as data
        names[call.get("id")] = function.get("name")
        made: dict[str, Any] = {"name": function.get("name"), "args": arguments_of(function)}
        if call.get("id"):
            made["id"] = call["id"]
        part: dict[str, Any] = {"functionCall": made}
        extra = call.get("extra_content")
        google = extra.get("google") if isinstance(extra, Mapping) else None
        if isinstance(google, Mapping) and isinstance(google.get("thought_signature"), str):
            part["thoughtSignature"] = google["thought_signature"]
        parts.append(part)
    return parts


def _result(message: Mapping[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    call = message.get("tool_call_id")
    name = names.get(call) or message.get("name")
    if not name:
        raise ValueError(f"a tool message answers the call {call!r}, which no assistant message before it made")
    made: dict[str, Any] = {"name": name, "response": _response(message.get("content"))}
    if call:
        made["id"] = call
    return {"functionResponse": made}


def _response(content: Any) -> Mapping[str, Any]:
    """The wire wants an object: a tool that answers with one is sent as it is, anything else under `output`."""
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str))
    try:
        made = loads(content) if content else content
    except (JSONDecodeError, TypeError):
        made = content
    return made if isinstance(made, dict) else {"output": made}


def parameters(params: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The wire's fields for parameters that the capability table has been over. Names that nobody knows pass as they are: the provider has its own."""
    body: dict[str, Any] = {name: value for name, value in params.items() if name not in _MAPPED}
    config: dict[str, Any] = {other: params[name] for name, other in _CONFIG.items() if name in params}
    stops = params.get("stop")
    if stops:
        config["stopSequences"] = [stops] if isinstance(stops, str) else list(stops)
    _form(config, params.get("response_format"))
    effort = params.get("reasoning_effort")
    if isinstance(effort, str):
        if not gemini_thinks_by_budget(model):
            config["thinkingConfig"] = {"thinkingLevel": effort.upper()}
        elif effort in _BUDGETS:
            config["thinkingConfig"] = {"thinkingBudget": _BUDGETS[effort]}
        else:
            raise ValueError(f"unknown reasoning_effort {effort!r}")
    own = params.get("generationConfig")
    if isinstance(own, Mapping):
        if not _RESERVED.isdisjoint(own):
            raise ValueError("generationConfig can't set maxOutputTokens or candidateCount, as money is reserved by them: use max_tokens")
        config.update(own)
    if config:
        body["generationConfig"] = config
    _tools(body, params)
    tier = params.get("service_tier")
    if isinstance(tier, str):
        tier = _TIERS.get(tier, tier)
    if tier is not None:
        body["serviceTier"] = tier
    return body


def _form(config: dict[str, Any], form: Any) -> None:
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "json_schema":
        inner = form["json_schema"] if isinstance(form.get("json_schema"), Mapping) else {}
        if not isinstance(inner.get("schema"), Mapping):
            raise ValueError("response_format has no json_schema.schema")
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = known_schema(inner["schema"])
    elif kind == "json_object":
        config["responseMimeType"] = "application/json"
    elif form is not None and kind != "text":
        raise ValueError(f"unknown response_format {kind!r}")


def _tools(body: dict[str, Any], params: Mapping[str, Any]) -> None:
    if params.get("functions"):
        raise ValueError("`functions` is OpenAI's older form: use `tools`")
    tools = params.get("tools")
    if not tools:
        return
    declared: list[dict[str, Any]] = []
    own: list[dict[str, Any]] = []
    for tool in tools:
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if isinstance(function, Mapping):
            declared.append(_declaration(function))
        elif isinstance(tool, Mapping) and "type" not in tool:
            # One of Gemini's own: {"googleSearch": {}}.
            own.append(dict(tool))
        else:
            raise ValueError("Gemini takes tools of type function, or its own")
    if declared:
        own.insert(0, {"functionDeclarations": declared})
    body["tools"] = own
    choice = params.get("tool_choice")
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise ValueError(f"Gemini knows no tool_choice {choice!r}; it has auto, none, required, or a function")
        body["toolConfig"] = {"functionCallingConfig": {"mode": _CHOICES[choice]}}
    elif isinstance(choice, Mapping):
        function = choice.get("function")
        if not isinstance(function, Mapping):
            raise ValueError("Gemini takes a tool_choice of type function only")  # noqa: TRY004 - the row's fault, as data
        body["toolConfig"] = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [function.get("name")]}}


def _declaration(function: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"name": function.get("name")}
    if function.get("description"):
        made["description"] = function["description"]
    if function.get("parameters"):
        made["parametersJsonSchema"] = known_schema(function["parameters"])
    return made


def known_schema(schema: Any) -> Any:
    """A JSON Schema as Gemini reads it: without `$schema`, and a `const` as an `enum` of one. Keywords that it doesn't know it ignores."""
    if isinstance(schema, Mapping):
        made: dict[str, Any] = {}
        for key, value in schema.items():
            if key == "const":
                made["enum"] = [value]
            elif key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
                made[key] = {name: known_schema(inner) for name, inner in value.items()}
            elif key in ("enum", "default", "examples", "required"):
                made[key] = value
            elif key != "$schema":
                made[key] = known_schema(value)
        return made
    return [known_schema(item) for item in schema] if isinstance(schema, list | tuple) else schema
