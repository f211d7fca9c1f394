"""Chat's messages and parameters as Ollama's native wire takes them: options, `format`, `think`, images beside the text, tool arguments as objects.

The traps: sampling belongs under `options`; by default a prompt that is too long is cut in silence, and so is the window while it answers (`truncate`, `shift`);
images go as data only. Source: protocols D.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchllm.core.json import JSONDecodeError, loads
from batchllm.providers.media import media_of

_OPTIONS = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "seed",
        "stop",
        "num_ctx",
        "num_predict",
        "num_keep",
        "num_gpu",
        "num_thread",
        "num_batch",
    }
    | {"repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta"}
)
_AT_TOP = frozenset(
    {"tools", "keep_alive", "think", "format", "truncate", "shift", "logprobs", "top_logprobs", "suffix", "template", "raw", "dimensions"}
)
_CAPS = ("max_tokens", "max_completion_tokens", "num_predict")
_NOT_SENT = frozenset({"model", "messages", "stream", "stream_options", "n", "options"})
_THINK = {"none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_HOLDS_ANYWAY = {
    "tool_choice": ("auto",),
    "parallel_tool_calls": (True,),
    "logit_bias": ({},),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
_ABOUT_THE_CALLER = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "encoding_format"})
"""Left out without a word: they change nothing of an answer."""


def fields_of(params: Mapping[str, Any], warn: Callable[[str], None]) -> dict[str, Any]:
    """Everything of the body but model and prompt. `warn` is told of what Ollama hasn't."""
    fields: dict[str, Any] = {}
    options: dict[str, Any] = dict(params["options"]) if isinstance(params.get("options"), Mapping) else {}
    for name, value in params.items():
        if name in _CAPS:
            # The smaller one, as money and limits were reserved for one of them.
            there = options.get("num_predict")
            options["num_predict"] = min(there, value) if isinstance(there, int) and isinstance(value, int) else value
        elif name == "stop":
            options["stop"] = [value] if isinstance(value, str) else list(value)
        elif name in _OPTIONS:
            options[name] = value
        elif name == "response_format":
            _set_format(fields, value)
        elif name == "reasoning_effort":
            fields["think"] = _THINK.get(value, value) if isinstance(value, str) else value
        elif name in _AT_TOP:
            fields[name] = value
        elif name not in _NOT_SENT and name not in _ABOUT_THE_CALLER and value not in _HOLDS_ANYWAY.get(name, ()):
            if name == "tool_choice" and value == "none":
                continue
            warn(f"Ollama has no `{name}`: it is left out (a parameter of its own goes under `body`)")
    if params.get("tool_choice") == "none":
        fields.pop("tools", None)
    if options:
        fields["options"] = options
    return fields


def _set_format(fields: dict[str, Any], wanted: Any) -> None:
    if isinstance(wanted, Mapping):
        inner = wanted.get("json_schema")
        if wanted.get("type") == "json_schema" and isinstance(inner, Mapping) and inner.get("schema") is not None:
            fields["format"] = inner["schema"]
        elif wanted.get("type") in ("json_object", "json_schema"):
            fields["format"] = "json"


def messages_of(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages in Ollama's form. ValueError for what it can't take."""
    names: dict[Any, Any] = {}
    made = []
    for message in messages:
        role = message.get("role")
        content = message.get("content")
        text, images = (content, []) if isinstance(content, str) else text_and_images(content)
        one: dict[str, Any] = {"role": "system" if role == "developer" else role, "content": text}
        if images:
            one["images"] = images
        calls = message.get("tool_calls")
        if calls:
            one["tool_calls"] = [_call(call, names) for call in calls]
        if role == "tool":
            name = message.get("name") or names.get(message.get("tool_call_id"))
            if name is not None:
                one["tool_name"] = name
        made.append(one)
    return made


def text_and_images(content: Any) -> tuple[str, list[str]]:
    """The texts, a newline between them, and the images in base64. ValueError for parts that Ollama can't take."""
    texts: list[str] = []
    images: list[str] = []
    for part in content or ():
        if isinstance(part.get("text"), str):
            texts.append(part["text"])
            continue
        media = media_of(part)
        if media is None or (media.mime is not None and not media.mime.startswith("image/")):
            raise ValueError(f"Ollama takes text and images, not a content part of type {part.get('type')}")
        if media.data is None:
            raise ValueError("Ollama takes images as data, not by URL: give a data: URL")
        images.append(media.data)
    return "\n".join(texts), images


def _call(call: Mapping[str, Any], names: dict[Any, Any]) -> dict[str, Any]:
    """A call that the model made before; its arguments are an object here."""
    function = call.get("function")
    if not isinstance(function, Mapping):
        raise ValueError(f"Ollama knows calls of functions only, not of type {call.get('type')}")  # noqa: TRY004 - the row is wrong, not our types
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = loads(arguments or "{}")
        except JSONDecodeError:
            arguments = None
    if not isinstance(arguments, Mapping):
        raise ValueError(f"the arguments of the call of {function.get('name')!r} are no JSON object, which Ollama needs")  # noqa: TRY004 - as above
    if call.get("id") is not None:
        names[call["id"]] = function.get("name")
    return {**({"id": call["id"]} if call.get("id") else {}), "function": {"name": function.get("name"), "arguments": arguments}}
