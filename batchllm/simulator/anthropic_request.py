"""Reading an Anthropic messages request (protocols B.1, B.2) as strictly as the real server does: it takes no field that it doesn't know.

That strictness is the point: a client that sends OpenAI's names, or `temperature` to a model that refuses it, must find out here and not at night. What a model
refuses depends on its version, so that is a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from batchllm.core import json
from batchllm.core.words import count_messages
from batchllm.simulator import tools as choosing
from batchllm.simulator.anthropic_cache import bare, prefixes_of
from batchllm.simulator.anthropic_talk import STRICT_SINCE, last_text, messages_of
from batchllm.simulator.dialect import Ask, Problem, Tool
from batchllm.simulator.wrong import WrongError

VERSIONS = ("2023-01-01", "2023-06-01", "2026-10-21")
BODY_LIMIT = 32 * 1024 * 1024
_FIELDS = frozenset(
    [
        "model",
        "messages",
        "max_tokens",
        "system",
        "tools",
        "tool_choice",
        "output_config",
        "thinking",
        "stop_sequences",
        "stream",
        "metadata",
        "service_tier",
        "speed",
        "inference_geo",
        "temperature",
        "top_p",
        "top_k",
        "cache_control",
        "container",
        "diagnostics",
        "context_management",
        "mcp_servers",
        "compaction",
        "fallbacks",
        "fallback_credit_token",
        "thread",
        "billing_policy",
    ]
)
# Not part of what an answer depends on: the cap only cuts it, the rest changes how it is sent or paid.
_SILENT = frozenset(["stream", "max_tokens", "metadata", "service_tier", "speed", "inference_geo", "cache_control", "diagnostics"])
_SAMPLING = ("temperature", "top_p", "top_k")
_NOT_IN_SCHEMAS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_MODEL = re.compile(r"claude-[a-z]+-(\d{1,2})(?:-(\d{1,2}))?(?!\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refuses:
    """What a model has stopped taking."""

    sampling: bool = False
    prefill: bool = False
    thinking: tuple[str, ...] = ()
    forced_tools: bool = False


_SINCE: tuple[tuple[tuple[int, int], _Refuses], ...] = (
    ((5, 0), _Refuses(sampling=True, prefill=True, thinking=("enabled", "disabled"), forced_tools=True)),
    ((4, 7), _Refuses(sampling=True, prefill=True, thinking=("enabled",))),
    ((4, 6), _Refuses(prefill=True)),
)
"""From which version of Claude on, newest first. Names without a version (the simulator's own) take everything."""


def parse(body: bytes, *, version: str | None, counting: bool = False) -> Ask | Problem:
    """Reads and checks a request. `version`: the header; `counting`: for count_tokens, which needs no `max_tokens`."""
    if len(body) > BODY_LIMIT:
        return Problem(name="too_large", details={})
    model: str | None = None
    try:
        document = _document(body)
        model = document["model"] if isinstance(document.get("model"), str) else None
        return _ask(document, _known(version), counting=counting)
    except WrongError as wrong:
        return Problem(name="invalid", details={"message": str(wrong)}, model=model)


def _known(version: str | None) -> str:
    if version is None:
        raise WrongError("anthropic-version: header is required")
    if version not in VERSIONS:
        raise WrongError(f'anthropic-version: "{version}" is not a valid version')
    return version


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise WrongError("The request body is not valid JSON") from error
    if not isinstance(document, dict):
        raise WrongError("The request body must be a JSON object")
    return document


def _ask(document: dict[str, Any], version: str, *, counting: bool) -> Ask:
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise WrongError("model: Field required")
    for name in document:
        if name not in _FIELDS:
            raise WrongError(f"{name}: Extra inputs are not permitted")
    refuses = _refuses(model)
    cap = None if counting else _cap(document)
    messages = messages_of(document, version, no_prefill=refuses.prefill)
    _sampling(document, version, refuses)
    _stops(document)
    think = _thinking(document, refuses, cap)
    schema = _schema(document)
    tool, forced = _tool(document, messages, refuses)
    if cap == 0 and (document.get("stream") is True or forced or schema is not None):
        raise WrongError("max_tokens: 0 is not allowed with `stream`, a forced tool or structured output")
    return Ask(
        model=model,
        messages=messages,
        digest=sha256(json.canonical({name: bare(value) for name, value in document.items() if name not in _SILENT})).digest(),
        input_tokens=count_messages(messages),
        cap=cap,
        stream=document.get("stream") is True,
        stream_usage=True,
        format="text" if schema is None else "schema",
        schema=schema,
        tool=tool,
        stop=tuple(document.get("stop_sequences") or ()),
        think=think,
        prefixes=prefixes_of(document, messages),
        last_text=last_text(messages),
    )


def _refuses(model: str) -> _Refuses:
    found = _MODEL.search(model)
    if found is None:
        return _Refuses()
    version = (int(found[1]), int(found[2] or 0))
    return next((refuses for since, refuses in _SINCE if version >= since), _Refuses())


def _cap(document: Mapping[str, Any]) -> int:
    if "max_tokens" not in document:
        raise WrongError("max_tokens: Field required")
    cap = document["max_tokens"]
    if not isinstance(cap, int) or isinstance(cap, bool):
        raise WrongError("max_tokens: Input should be a valid integer")
    if cap < 0:
        raise WrongError("max_tokens: Input should be greater than or equal to 0")
    return cap


def _sampling(document: Mapping[str, Any], version: str, refuses: _Refuses) -> None:
    for name in _SAMPLING:
        if document.get(name) is None:
            continue
        if version >= STRICT_SINCE:
            raise WrongError(f"{name}: not supported since anthropic-version {STRICT_SINCE}")
        if refuses.sampling:
            raise WrongError(f"{name}: not supported by this model")
        value = document[name]
        if not isinstance(value, int | float) or isinstance(value, bool) or (name != "top_k" and not 0 <= value <= 1):
            raise WrongError(f"{name}: Input should be a number from 0 to 1")


def _stops(document: Mapping[str, Any]) -> None:
    stops = document.get("stop_sequences")
    if stops is None:
        return
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise WrongError("stop_sequences: Input should be a valid list of strings")
    if any(not stop.strip() for stop in stops):
        raise WrongError("stop_sequences: each stop sequence must contain non-whitespace")


def _thinking(document: Mapping[str, Any], refuses: _Refuses, cap: int | None) -> bool:
    thinking = document.get("thinking")
    if thinking is None:
        return False
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("enabled", "disabled", "adaptive", "between_tools"):
        raise WrongError("thinking.type: Input should be 'enabled', 'disabled', 'between_tools' or 'adaptive'")
    if kind in refuses.thinking:
        raise WrongError(f"thinking.type: '{kind}' is not supported by this model; use 'adaptive'")
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or budget < 1024 or (cap is not None and budget >= cap):
            raise WrongError("thinking.enabled.budget_tokens: Input should be at least 1024 and less than max_tokens")
    return kind in ("enabled", "adaptive")


def _schema(document: Mapping[str, Any]) -> Any:
    config = document.get("output_config")
    if config is None:
        return None
    if not isinstance(config, dict):
        raise WrongError("output_config: Input should be a valid dictionary")
    for name in config:
        if name not in ("effort", "format", "task_budget"):
            raise WrongError(f"output_config.{name}: Extra inputs are not permitted")
    if config.get("effort") is not None and config["effort"] not in _EFFORTS:
        raise WrongError(f"output_config.effort: Input should be one of {', '.join(_EFFORTS)}")
    form = config.get("format")
    if form is None:
        return None
    if not isinstance(form, dict) or form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict) or len(form) > 2:
        raise WrongError("output_config.format: Input should be an object with `type: json_schema` and a `schema`, and nothing else")
    for place, part in _parts(form["schema"], "output_config.format.schema"):
        if part.get("type") == "object" and part.get("additionalProperties") is not False:
            raise WrongError(f"{place}: For 'object' type, 'additionalProperties' must be explicitly set to false")
        for name in _NOT_IN_SCHEMAS:
            if name in part:
                raise WrongError(f"{place}: property '{name}' is not supported")
    return form["schema"]


def _parts(schema: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A schema and the schemas in it, with their places."""
    if not isinstance(schema, dict):
        return
    yield place, schema
    for key in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(key), dict):
            for name, part in schema[key].items():
                yield from _parts(part, f"{place}.{key}.{name}")
    for key in ("anyOf", "allOf", "oneOf", "prefixItems"):
        if isinstance(schema.get(key), list):
            for index, part in enumerate(schema[key]):
                yield from _parts(part, f"{place}.{key}.{index}")
    yield from _parts(schema.get("items"), f"{place}.items")


def _tool(document: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], refuses: _Refuses) -> tuple[Tool | None, bool]:
    """The tool that is called, and whether it must be."""
    declared = document.get("tools")
    if declared is not None and not isinstance(declared, list):
        raise WrongError("tools: Input should be a valid list")
    found = [_declared(entry, f"tools.{index}") for index, entry in enumerate(declared or ())]
    tools = [tool for tool in found if tool is not None]
    choice = document.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else None
    if choice is None or kind == "auto":
        answered = any(part["type"] == "tool_result" for part in messages[-1]["content"])
        return None if answered else choosing.own_choice(tools, messages, last_text(messages)), False
    if kind == "none":
        return None, False
    if kind not in ("any", "tool") or not isinstance(choice, dict):
        raise WrongError("tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'")
    if refuses.forced_tools:
        raise WrongError(f"tool_choice: '{kind}' is not supported by this model")
    thinking = document.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        raise WrongError("Thinking may not be enabled when tool_choice forces tool use.")
    for tool in tools:
        if kind == "any" or tool.name == choice.get("name"):
            return tool, True
    raise WrongError(f"Tool '{choice.get('name')}' not found in provided tools" if kind == "tool" else "tool_choice: 'any' needs tools")


def _declared(entry: Any, place: str) -> Tool | None:
    """A tool of the client's own; None for one that the server runs."""
    if not isinstance(entry, dict):
        raise WrongError(f"{place}: Input should be an object")
    if entry.get("type") not in (None, "custom"):
        return None
    name = entry.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise WrongError(f"{place}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    schema = entry.get("input_schema")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise WrongError(f"{place}.input_schema.type: Field required, and it is 'object'")
    for key in entry:
        if key in ("function", "parameters"):
            raise WrongError(f"{place}.{key}: Extra inputs are not permitted")
    return Tool(name=name, parameters=schema)
