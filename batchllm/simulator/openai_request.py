"""Reading an OpenAI chat-completions request (protocols A.2): the checks that the real server makes before a model sees anything.

Unknown parameters pass: compatible servers differ too much in what they take, and a job may name any of them under `body`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal

from batchllm.core import json
from batchllm.core.words import count_messages
from batchllm.simulator import tools as toolbox
from batchllm.simulator.dialect import Ask, Problem, Tool

_ROLES = frozenset({"developer", "system", "user", "assistant", "tool", "function"})
Form = Literal["text", "json", "schema"]
_SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STOPS_MAX = 4
# Not part of what an answer depends on: the cap and stop texts only cut it, the rest changes how it is sent.
_SILENT = frozenset(
    {
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "stop",
        "encoding_format",
        "metadata",
        "user",
        "safety_identifier",
        "store",
        "service_tier",
        "prompt_cache_key",
    }
)
_CHOICES_MAX = 128
_PARTS = frozenset({"text", "image_url", "input_audio", "file", "refusal"})


def parse(body: bytes) -> Ask | Problem:
    """Reads and checks a request."""
    document = read(body)
    if isinstance(document, Problem):
        return document
    model = document["model"]
    messages: Any = document.get("messages")
    problem = messages_problem(messages) or parameters_problem(document)
    if problem is not None:
        return invalid(*problem, model=model)
    last_text = last_user_text(messages)
    tool = called_tool(document, messages, last_text)
    if isinstance(tool, Problem):
        return tool
    form = answer_form(document.get("response_format"), messages, model=model, place="response_format", flat=False)
    if isinstance(form, Problem):
        return form
    options = document.get("stream_options")
    cap = document.get("max_completion_tokens")
    return Ask(
        model=model,
        messages=messages,
        digest=digest(document),
        input_tokens=count_messages(messages),
        cap=document.get("max_tokens") if cap is None else cap,
        choices=document.get("n") or 1,
        stream=document.get("stream") is True,
        stream_usage=isinstance(options, dict) and options.get("include_usage") is True,
        format=form[0],
        schema=form[1],
        tool=tool,
        stop=stops(document.get("stop")),
        think=thinks(document.get("reasoning_effort")),
        logprobs=document.get("logprobs") is True,
        last_text=last_text,
    )


def read(body: bytes) -> dict[str, Any] | Problem:
    """A body as an object that names a model."""
    try:
        document = json.loads(body)
    except json.JSONDecodeError:
        return invalid("We could not parse the JSON body of your request.", None)
    if not isinstance(document, dict):
        return invalid("The body must be a JSON object.", None)
    model = document.get("model")
    if not isinstance(model, str) or not model:
        return invalid("you must provide a model parameter", "model")
    return document


def digest(document: Mapping[str, Any]) -> bytes:
    """sha256 of what an answer depends on."""
    return sha256(json.canonical({key: value for key, value in document.items() if key not in _SILENT})).digest()


def stops(value: Any) -> tuple[str, ...]:
    """Stop texts, of which one may stand alone. Empty ones end nothing."""
    listed = value if isinstance(value, list) else [value]
    return tuple(text for text in listed if isinstance(text, str) and text)


def texts(value: Any) -> list[str] | None:
    """A prompt or input in any of its forms: a text, several, token ids, or several of these. None for anything else."""
    listed = value if isinstance(value, list) and not _is_tokens(value) else [value]
    found = [" ".join(map(str, text)) if _is_tokens(text) else text for text in listed]
    return found if found and all(isinstance(text, str) for text in found) else None


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(token, int) and not isinstance(token, bool) for token in value)


def thinks(effort: Any) -> bool:
    """Whether this much effort makes a model think."""
    return isinstance(effort, str) and effort not in ("none", "minimal")


def invalid(message: str, param: str | None, *, code: str | None = None, model: str | None = None) -> Problem:
    """A 400 with these words."""
    return Problem(name="invalid", details={"message": message, "param": param, "code": code}, model=model)


def messages_problem(messages: Any) -> tuple[str, str] | None:
    """What is wrong with chat messages: words and parameter."""
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
        for place, part in enumerate(content if isinstance(content, list) else ()):
            if (wrong := _part_problem(part)) is not None:
                return f"{wrong} (messages[{index}].content[{place}])", f"messages[{index}].content[{place}]"
    return None


def _part_problem(part: Any) -> str | None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image_url":
        holder = part.get("image_url")
        url = holder.get("url") if isinstance(holder, dict) else None
        if not isinstance(url, str) or not url.startswith(("data:image/", "https://", "http://")):
            return "Invalid image: expected 'image_url.url' to be a web address or base64 data with an image type."
        return None
    if kind in _PARTS:
        return None if isinstance(part.get(kind), str if kind in ("text", "refusal") else dict) else f"Missing required parameter: '{kind}'."
    return f"Invalid value for 'type'. Supported values are: {', '.join(sorted(_PARTS))}."


def parameters_problem(document: dict[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the numbers of a request."""
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        value = document.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            return f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {json.text(value)} instead.", name
    choices = document.get("n")
    if choices is not None and (not isinstance(choices, int) or isinstance(choices, bool) or not 1 <= choices <= _CHOICES_MAX):
        return f"Invalid 'n': expected an integer from 1 to {_CHOICES_MAX}, but got {json.text(choices)} instead.", "n"
    temperature = document.get("temperature")
    if temperature is not None and (not isinstance(temperature, int | float) or not 0 <= temperature <= 2):
        return f"Invalid 'temperature': expected a number from 0 to 2, but got {json.text(temperature)} instead.", "temperature"
    stop = document.get("stop")
    if isinstance(stop, list) and len(stop) > _STOPS_MAX:
        return f"Invalid 'stop': array too long. Expected at most {_STOPS_MAX}, but got {len(stop)} instead.", "stop"
    return None


def answer_form(wanted: Any, messages: Sequence[Mapping[str, Any]], *, model: str, place: str, flat: bool) -> tuple[Form, Any] | Problem:
    """Form and schema that an answer must have. `place`: the parameter; `flat`: name and schema stand beside the type (responses), not in `json_schema` (chat)."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return "text", None
    if kind == "json_object":
        if "json" not in json.text(messages).lower():
            words = f"'messages' must contain the word 'json' in some form, to use '{place}' of type 'json_object'."
            return invalid(words, "messages", model=model)
        return "json", None
    if kind != "json_schema":
        return invalid(
            f"Invalid value for '{place}.type'. Supported values are: 'json_object', 'json_schema', and 'text'.", f"{place}.type", model=model
        )
    if not flat:
        place += ".json_schema"
    holder = wanted if flat else wanted.get("json_schema")
    if not isinstance(holder, dict) or not isinstance(holder.get("name"), str) or not isinstance(holder.get("schema", {}), dict):
        return invalid(f"Missing required parameter: '{place}' needs a name and a schema.", place, model=model)
    if not _SCHEMA_NAME.fullmatch(holder["name"]):
        return invalid(
            f"Invalid '{place}.name': expected a string of at most 64 characters from A-Z, a-z, 0-9, _ and -.", f"{place}.name", model=model
        )
    return "schema", holder.get("schema", {})


def called_tool(document: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], last_text: str) -> Tool | Problem | None:
    """The tool that will be called: the named one, the first one when any is `required`, or what the model chooses by itself."""
    tools = toolbox.read(document.get("tools"))
    choice = document.get("tool_choice")
    if choice is None or choice == "auto":
        return toolbox.own_choice(tools, messages, last_text)
    if choice == "none":
        return None
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        allowed = allowed if isinstance(allowed, dict) else {}
        names = {tool.name for tool in toolbox.read(allowed.get("tools"))}
        tools = [tool for tool in tools if tool.name in names]
        if allowed.get("mode") != "required":
            return toolbox.own_choice(tools, messages, last_text)
        choice = "required"
    named = choice.get("function", choice) if isinstance(choice, dict) else None
    name = named.get("name") if isinstance(named, dict) else None
    for tool in tools:
        if choice == "required" or tool.name == name:
            return tool
    return invalid("Invalid value for 'tool_choice': no such function among 'tools'.", "tool_choice", model=document["model"])


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Text of the last user message."""
    for message in reversed(messages):
        if message["role"] == "user":
            content = message["content"]
            if isinstance(content, str):
                return content
            return " ".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""
