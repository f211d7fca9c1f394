"""Reading Gemini requests (protocols C.2, C.3): contents with parts, a configuration, tools; texts to embed.

Like the real server it takes camelCase and snake_case alike, and refuses every field that it doesn't know: `max_tokens` or `response_format` sent here by mistake
must not go unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from batchllm.core import json
from batchllm.core.words import count_messages, count_text
from batchllm.simulator import tools as choosing
from batchllm.simulator.dialect import Ask, Problem, Tool
from batchllm.simulator.wrong import WrongError

_FIELDS = frozenset(
    (
        "contents",
        "systemInstruction",
        "tools",
        "toolConfig",
        "safetySettings",
        "generationConfig",
        "serviceTier",
        "cachedContent",
        "store",
        "model",
        "labels",
    )
)
_CONFIG = frozenset(
    (
        *("temperature", "topP", "topK", "maxOutputTokens", "candidateCount", "stopSequences", "seed", "responseMimeType", "responseSchema"),
        *("responseJsonSchema", "thinkingConfig", "presencePenalty", "frequencyPenalty", "responseLogprobs", "logprobs", "responseModalities"),
        *("mediaResolution", "speechConfig", "imageConfig", "enableEnhancedCivicAnswers", "audioTranscriptionConfig", "continuationToken"),
        *("responseFormat", "translationConfig", "modelSelectionConfig", "routingConfig"),
    )
)
_PARTS = (
    *("text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult"),
    *("toolCall", "toolResponse"),
)
_AROUND = frozenset(("thought", "thoughtSignature", "videoMetadata", "mediaResolution", "partMetadata"))
# Not part of what an answer depends on: the cap only cuts it, the rest changes how it is paid.
_SILENT = frozenset(("serviceTier", "labels", "store"))
_MODES = ("AUTO", "ANY", "NONE", "VALIDATED", "MODE_UNSPECIFIED")
_MIMES = ("text/plain", "application/json", "text/x.enum")
_SNAKE = re.compile(r"_([a-z])")
_BATCH_MAX = 100


def parse(body: bytes, *, model: str, stream: bool) -> Ask | Problem:
    """Reads and checks a generateContent request."""
    try:
        return _ask(_document(body), model, stream=stream)
    except WrongError as wrong:
        return Problem(name="invalid", details={"message": str(wrong)}, model=model)


def parse_embed(body: bytes, *, model: str, many: bool) -> Ask | Problem:
    """Reads and checks an embedContent or batchEmbedContents request."""
    try:
        return _embed(_document(body), model, many=many)
    except WrongError as wrong:
        return Problem(name="invalid", details={"message": str(wrong)}, model=model)


def count(body: bytes, *, model: str) -> int | Problem:
    """Tokens of a countTokens request."""
    try:
        document = _document(body)
        inner = document.get("generateContentRequest")
        if inner is not None:
            document = _camel(inner, "generate_content_request")
        return count_messages(_messages(document))
    except WrongError as wrong:
        return Problem(name="invalid", details={"message": str(wrong)}, model=model)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise WrongError("Invalid JSON payload received. Unexpected end of string.") from error
    return _camel(document, "")


def _camel(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WrongError(f"Invalid value at '{place}': expected an object")
    return {_SNAKE.sub(lambda found: found[1].upper(), name): item for name, item in value.items()}


def _only(value: Mapping[str, Any], known: frozenset[str], place: str) -> None:
    for name in value:
        if name not in known:
            where = f" at '{place}'" if place else ""
            raise WrongError(f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.')


def _ask(document: dict[str, Any], model: str, *, stream: bool) -> Ask:
    _only(document, _FIELDS, "")
    messages = _messages(document)
    config = _camel(document.get("generationConfig") or {}, "generation_config")
    _only(config, _CONFIG, "generation_config")
    form, schema = _format(config)
    thinking = _camel(config.get("thinkingConfig") or {}, "generation_config.thinking_config")
    choices = config.get("candidateCount") or 1
    if not isinstance(choices, int) or not 1 <= choices <= 8:
        raise WrongError("candidateCount must be from 1 to 8")
    stops = config.get("stopSequences") or []
    if not isinstance(stops, list) or len(stops) > 5 or not all(isinstance(stop, str) and stop for stop in stops):
        raise WrongError("* GenerateContentRequest.generation_config.stop_sequences: at most 5 non-empty strings")
    temperature = config.get("temperature")
    if temperature is not None and (not isinstance(temperature, int | float) or not 0 <= temperature <= 2):
        raise WrongError("* GenerateContentRequest.generation_config.temperature: temperature must be in the range [0.0, 2.0]")
    content = {name: value for name, value in document.items() if name not in _SILENT}
    content["generationConfig"] = {name: value for name, value in config.items() if name != "maxOutputTokens"}
    return Ask(
        model=model,
        messages=messages,
        digest=sha256(json.canonical({**content, "model": model})).digest(),
        input_tokens=count_messages(messages),
        cap=_cap(config),
        choices=choices,
        stream=stream,
        stream_usage=True,
        format=form,  # type: ignore[arg-type]  # one of the three by construction
        schema=schema,
        tool=_tool(document, messages),
        stop=tuple(stops),
        think=bool(thinking) and thinking.get("thinkingBudget") != 0,
        last_text=_last_text(messages),
    )


def _cap(config: Mapping[str, Any]) -> int | None:
    cap = config.get("maxOutputTokens")
    if cap is None:
        return None
    if not isinstance(cap, int) or isinstance(cap, bool) or cap < 1:
        raise WrongError("* GenerateContentRequest.generation_config.max_output_tokens: max_output_tokens must be positive")
    return cap


def _format(config: Mapping[str, Any]) -> tuple[str, Any]:
    mime = config.get("responseMimeType")
    if mime is not None and mime not in _MIMES:
        raise WrongError(f"* GenerateContentRequest.generation_config.response_mime_type: allowed mimetypes are {', '.join(_MIMES)}")
    older, newer = config.get("responseSchema"), config.get("responseJsonSchema")
    if older is not None and newer is not None:
        raise WrongError("Only one of response_schema and response_json_schema may be set")
    schema = newer if newer is not None else _lowered(older)
    if schema is None:
        return ("json", None) if mime == "application/json" else ("text", None)
    if mime not in ("application/json", "text/x.enum"):
        raise WrongError("Function calling or a response schema needs response_mime_type 'application/json' or 'text/x.enum'")
    return "schema", schema


def _lowered(schema: Any) -> Any:
    """An OpenAPI schema with upper-case types as JSON Schema."""
    if isinstance(schema, list):
        return [_lowered(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    lowered: dict[str, Any] = {}
    for name, value in schema.items():
        key = _SNAKE.sub(lambda found: found[1].upper(), name)
        if key == "type" and isinstance(value, str):
            lowered["type"] = [value.lower(), "null"] if schema.get("nullable") is True else value.lower()
        elif key in ("minItems", "maxItems", "minLength", "maxLength"):
            lowered[key] = int(value) if isinstance(value, str) and value.isdecimal() else value  # int64 is text in proto JSON
        elif key == "properties" and isinstance(value, dict):
            lowered[key] = {item: _lowered(part) for item, part in value.items()}
        elif key != "nullable":
            lowered[key] = _lowered(value) if key in ("items", "anyOf", "prefixItems") else value
    return lowered


def _tool(document: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Tool | None:
    tools: list[Tool] = []
    declared = document.get("tools") or []
    for holder in declared if isinstance(declared, list) else [declared]:
        functions = _camel(holder, "tools").get("functionDeclarations") or []
        if not isinstance(functions, list):
            raise WrongError("Invalid value at 'tools.function_declarations': expected a list")
        for entry in functions:
            function = _camel(entry, "tools.function_declarations")
            if not isinstance(function.get("name"), str) or not function["name"]:
                raise WrongError("* GenerateContentRequest.tools[0].function_declarations[0].name: Invalid function name.")
            parameters = function.get("parametersJsonSchema") or _lowered(function.get("parameters")) or {"type": "object"}
            tools.append(Tool(name=function["name"], parameters=parameters))
    config = _camel(document.get("toolConfig") or {}, "tool_config")
    calling = _camel(config.get("functionCallingConfig") or {}, "tool_config.function_calling_config")
    mode = calling.get("mode") or "AUTO"
    if mode not in _MODES:
        raise WrongError(f"Invalid value at 'tool_config.function_calling_config.mode': \"{mode}\"")
    if mode == "NONE" or not tools:
        if mode == "ANY":
            raise WrongError("Function calling config is set without function_declarations.")
        return None
    if mode == "ANY":
        allowed = calling.get("allowedFunctionNames") or [tool.name for tool in tools]
        for tool in tools:
            if isinstance(allowed, list) and tool.name in allowed:
                return tool
        raise WrongError("allowed_function_names names no declared function")
    answered = any(part["type"] == "tool_result" for part in messages[-1]["content"])
    return None if answered else choosing.own_choice(tools, messages, _last_text(messages))


def _messages(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conversation in OpenAI's form, once it is seen to be right."""
    contents = document.get("contents")
    if not isinstance(contents, list) or not contents:
        raise WrongError("* GenerateContentRequest.contents: contents is not specified")
    messages: list[dict[str, Any]] = []
    system = document.get("systemInstruction")
    if system is not None:
        messages.append({"role": "system", "content": _parts(system, "system_instruction")})
    for index, content in enumerate(contents):
        place = f"contents[{index}]"
        role = content.get("role", "user") if isinstance(content, dict) else None
        if role not in ("user", "model", "function"):
            raise WrongError("Please use a valid role: user, model.")
        messages.append({"role": "assistant" if role == "model" else "user", "content": _parts(content, place)})
    return messages


def _parts(content: Any, place: str) -> list[dict[str, Any]]:
    content = _camel(content, place)
    _only(content, frozenset(("role", "parts")), place)
    given = content.get("parts")
    given = [given] if isinstance(given, dict) else given
    if not isinstance(given, list) or not given:
        raise WrongError(f"* GenerateContentRequest.{place}.parts: contents.parts must not be empty.")
    return [_part(_camel(part, f"{place}.parts[{at}]"), f"{place}.parts[{at}]") for at, part in enumerate(given)]


def _part(part: dict[str, Any], place: str) -> dict[str, Any]:
    """One part as `count_messages` can count it."""
    _only(part, frozenset(_PARTS) | _AROUND, place)
    data = [name for name in _PARTS if name in part]
    if len(data) != 1:
        raise WrongError(f"* GenerateContentRequest.{place}.data: required oneof field 'data' must have one initialized field")
    value = part[data[0]]
    if data[0] == "text":
        if not isinstance(value, str):
            raise WrongError(f"Invalid value at '{place}.text'")
        return {"type": "text", "text": value}
    value = _camel(value, f"{place}.{data[0]}")
    match data[0]:
        case "inlineData" | "fileData":
            if not value.get("mimeType"):
                raise WrongError(f"* GenerateContentRequest.{place}.{data[0]}.mime_type: mime_type is required")
            if data[0] == "inlineData" and (not isinstance(value.get("data"), str) or value["data"].startswith("data:")):
                raise WrongError(f"Invalid value at '{place}.inline_data.data': Base64 decoding failed")
            return {"type": "media"}
        case "functionCall":
            return {"type": "text", "text": f"{value.get('name', '')} {json.text(value.get('args') or {})}"}
        case "functionResponse":
            if not isinstance(value.get("response"), dict):
                raise WrongError(f"Invalid value at '{place}.function_response.response': expected an object")
            return {"type": "tool_result", "text": json.text(value["response"])}
    return {"type": "other"}


def _last_text(messages: Sequence[Mapping[str, Any]]) -> str:
    for message in reversed(messages):
        if message["role"] == "user":
            return " ".join(part["text"] for part in message["content"] if part["type"] == "text")
    return ""


def _embed(document: dict[str, Any], model: str, *, many: bool) -> Ask:
    requests = document.get("requests") if many else [document]
    if not isinstance(requests, list) or not 1 <= len(requests) <= _BATCH_MAX:
        raise WrongError(f"* BatchEmbedContentsRequest.requests: at least one and at most {_BATCH_MAX} requests can be in one batch")
    known = frozenset(("model", "content", "taskType", "title", "outputDimensionality", "embedContentConfig"))
    texts: list[str] = []
    sizes: set[int | None] = set()
    for index, entry in enumerate(requests):
        place = f"requests[{index}]"
        request = _camel(entry, place)
        _only(request, known, place)
        if many and request.get("model") != f"models/{model}":
            raise WrongError(f"* BatchEmbedContentsRequest.{place}.model: must be 'models/{model}', the model in the request's path")
        text = " ".join(part.get("text", "") for part in _parts(request.get("content"), f"{place}.content"))
        if not text:
            raise WrongError(f"* {place}.content: content is empty")
        size = request.get("outputDimensionality")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 3072):
            raise WrongError(f"* {place}.output_dimensionality: must be from 1 to 3072")
        texts.append(text)
        sizes.add(size)
    if len(sizes) > 1:
        raise WrongError("* BatchEmbedContentsRequest.requests: all must have the same output_dimensionality")
    return Ask(
        model=model,
        messages=(),
        digest=sha256(json.canonical({"model": model, "requests": requests})).digest(),
        input_tokens=sum(count_text(text) for text in texts),
        cap=0,
        inputs=texts,
        dimensions=sizes.pop(),
        last_text=next((text for text in texts if "[[sim:" in text), texts[-1]),
    )
