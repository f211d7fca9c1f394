"""Reading an OpenAI chat-completions request (protocols A.2): the checks that the real server makes before a model sees anything.

Unknown parameters pass: compatible servers differ too much in what they take, and a job may name any of them under `body`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from batchllm.core import json
from batchllm.core.words import count_messages
from batchllm.simulator.dialect import Ask, Problem, Tool

_ROLES = frozenset({"developer", "system", "user", "assistant", "tool", "function"})
# Not part of what an answer depends on: the cap only cuts it, the rest changes how it is sent.
_SILENT = frozenset(
    {
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "metadata",
        "user",
        "safety_identifier",
        "store",
        "service_tier",
        "prompt_cache_key",
    }
)
_CHOICES_MAX = 128


def parse(body: bytes) -> Ask | Problem:
    """Reads and checks a request."""
    try:
        document = json.loads(body)
    except json.JSONDecodeError:
        return _invalid("We could not parse the JSON body of your request.", None)
    if not isinstance(document, dict):
        return _invalid("The body must be a JSON object.", None)
    model = document.get("model")
    if not isinstance(model, str) or not model:
        return _invalid("you must provide a model parameter", "model")
    messages: Any = document.get("messages")
    problem = _messages_problem(messages) or _parameters_problem(document)
    if problem is not None:
        return _invalid(*problem, model=model)
    tool = _tool(document)
    if isinstance(tool, Problem):
        return tool
    form, schema = "text", None
    if document.get("response_format") is not None:
        form, schema, wrong = _format(document["response_format"], messages)
        if wrong is not None:
            return _invalid(*wrong, model=model)
    options = document.get("stream_options")
    cap = document.get("max_completion_tokens")
    return Ask(
        model=model,
        messages=messages,
        digest=sha256(json.canonical({key: value for key, value in document.items() if key not in _SILENT})).digest(),
        input_tokens=count_messages(messages),
        cap=document.get("max_tokens") if cap is None else cap,
        choices=document.get("n") or 1,
        stream=document.get("stream") is True,
        stream_usage=isinstance(options, dict) and options.get("include_usage") is True,
        format=form,  # type: ignore[arg-type]  # one of the three by construction
        schema=schema,
        tool=tool,
        logprobs=document.get("logprobs") is True,
        last_text=_last_user_text(messages),
    )


def _invalid(message: str, param: str | None, *, code: str | None = None, model: str | None = None) -> Problem:
    return Problem(name="invalid", details={"message": message, "param": param, "code": code}, model=model)


def _messages_problem(messages: Any) -> tuple[str, str] | None:
    if not isinstance(messages, list) or not messages:
        return "Invalid 'messages': expected a non-empty array of objects.", "messages"
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            return f"Invalid type for 'messages[{index}]': expected an object.", f"messages[{index}]"
        if message.get("role") not in _ROLES:
            return f"Invalid value for 'messages[{index}].role'. Supported values are: {', '.join(sorted(_ROLES))}.", f"messages[{index}].role"
        content = message.get("content")
        if content is None and message["role"] != "assistant":
            return f"Invalid value for 'content': expected a string, got null. (messages[{index}])", f"messages[{index}].content"
        if content is not None and not isinstance(content, str | list):
            return f"Invalid type for 'messages[{index}].content': expected a string or an array.", f"messages[{index}].content"
    return None


def _parameters_problem(document: dict[str, Any]) -> tuple[str, str] | None:
    for name in ("max_tokens", "max_completion_tokens"):
        value = document.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            return f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {json.text(value)} instead.", name
    choices = document.get("n")
    if choices is not None and (not isinstance(choices, int) or isinstance(choices, bool) or not 1 <= choices <= _CHOICES_MAX):
        return f"Invalid 'n': expected an integer from 1 to {_CHOICES_MAX}, but got {json.text(choices)} instead.", "n"
    temperature = document.get("temperature")
    if temperature is not None and (not isinstance(temperature, int | float) or not 0 <= temperature <= 2):
        return f"Invalid 'temperature': expected a number from 0 to 2, but got {json.text(temperature)} instead.", "temperature"
    return None


def _format(wanted: Any, messages: Sequence[Mapping[str, Any]]) -> tuple[str, Any, tuple[str, str] | None]:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return "text", None, None
    if kind == "json_object":
        if "json" not in json.text(messages).lower():
            return "json", None, ("'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.", "messages")
        return "json", None, None
    if kind == "json_schema":
        holder = wanted.get("json_schema")
        schema = holder.get("schema", {}) if isinstance(holder, dict) and isinstance(holder.get("name"), str) else None
        if not isinstance(schema, dict):
            return (
                "schema",
                None,
                ("Missing required parameter: 'response_format.json_schema' needs a name and a schema.", "response_format.json_schema"),
            )
        return "schema", schema, None
    return (
        "text",
        None,
        ("Invalid value for 'response_format.type'. Supported values are: 'json_object', 'json_schema', and 'text'.", "response_format.type"),
    )


def _tool(document: dict[str, Any]) -> Tool | Problem | None:
    """The tool that must be called: by name, or the first one when any is `required`."""
    choice = document.get("tool_choice")
    if choice is None or choice in ("none", "auto"):
        return None
    tools = document.get("tools")
    functions = (
        [tool["function"] for tool in tools if isinstance(tool, dict) and isinstance(tool.get("function"), dict)] if isinstance(tools, list) else []
    )
    name = choice["function"].get("name") if isinstance(choice, dict) and isinstance(choice.get("function"), dict) else None
    for function in functions:
        if isinstance(function.get("name"), str) and (choice == "required" or function["name"] == name):
            parameters = function.get("parameters")
            return Tool(name=function["name"], parameters=parameters if isinstance(parameters, dict) else {"type": "object"})
    return _invalid("Invalid value for 'tool_choice': no such function among 'tools'.", "tool_choice", model=document["model"])


def _last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    for message in reversed(messages):
        if message["role"] == "user":
            content = message["content"]
            if isinstance(content, str):
                return content
            return " ".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""
