"""Reading Ollama's requests (protocols D.1, D.2) as its Go server does: types are strict, unknown fields are passed over, a prompt that is too long is cut in silence.

That silence is the trap for clients: without `truncate: false` the oldest messages are gone and the answer looks fine. It is played here, so that a codec which
forgets the field is found out by its token counts.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchllm.core import json
from batchllm.core.words import count_messages, count_text
from batchllm.simulator import openai_request, tools
from batchllm.simulator.answer import cut
from batchllm.simulator.dialect import Ask, Problem
from batchllm.simulator.ollama_models import Shelf, Stored
from batchllm.simulator.vectors import size_of

_ROLES = ("system", "user", "assistant", "tool")
_THINK = (True, False, "low", "medium", "high", "max")
_WHOLE = ("num_predict", "num_ctx", "seed", "top_k")
_NUMBERS = ("temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
# The rest of a request says how an answer is cut or sent, not what is in it.
_SILENT_OPTIONS = frozenset({"num_predict", "num_ctx", "stop"})
_SILENT = frozenset({"stream", "keep_alive", "options", "truncate", "shift"})


class Wrong(Exception):  # noqa: N818 - never leaves this module
    """A request that Ollama refuses, with its words."""


def read(body: bytes, shelf: Shelf) -> tuple[dict[str, Any], Stored] | Problem:
    """The document and the model that it names."""
    try:
        document = json.loads(body)
    except json.JSONDecodeError:
        return _invalid("invalid character in JSON body")
    if not isinstance(document, dict):
        return _invalid("json: cannot unmarshal the body into Go value of type api.ChatRequest")
    model = document.get("model")
    if not isinstance(model, str) or not model:
        return _invalid("model is required")
    stored = shelf.get(model)
    if stored is None:
        return Problem(name="model_not_found", details={}, model=model)
    return document, stored


def chat(body: bytes, shelf: Shelf, window: int) -> Ask | Problem:
    """`POST /api/chat`."""
    return _read(body, shelf, lambda document, stored: _chat(document, stored, window))


def generate(body: bytes, shelf: Shelf, window: int) -> Ask | Problem:
    """`POST /api/generate`: one prompt as a chat of one message."""
    return _read(body, shelf, lambda document, stored: _generate(document, stored, window))


def embed(body: bytes, shelf: Shelf, window: int, field: str) -> Ask | Problem:
    """`POST /api/embed` (`field` is `input`), and the older `POST /api/embeddings` (`prompt`)."""
    return _read(body, shelf, lambda document, stored: _embed(document, stored, window, field))


def _read(body: bytes, shelf: Shelf, reader: Callable[[dict[str, Any], Stored], Ask | Problem]) -> Ask | Problem:
    found = read(body, shelf)
    if isinstance(found, Problem):
        return found
    try:
        return reader(*found)
    except Wrong as error:
        return _invalid(str(error), model=found[0]["model"])


def _invalid(message: str, *, model: str | None = None) -> Problem:
    return Problem(name="invalid", details={"message": message}, model=model)


def _chat(document: dict[str, Any], stored: Stored, window: int) -> Ask | Problem:
    given = document.get("messages")
    if not isinstance(given, list):
        raise Wrong("json: cannot unmarshal messages into Go struct field ChatRequest.messages of type []api.Message")
    messages = [_message(message) for message in given]
    if stored.system and all(message["role"] != "system" for message in messages):
        messages.insert(0, {"role": "system", "content": stored.system})
    declared = tools.read(document.get("tools"))
    last_text = openai_request.last_user_text(messages)
    return _ask(document, stored, messages, window, last_text=last_text, tool=tools.own_choice(declared, messages, last_text))


def _generate(document: dict[str, Any], stored: Stored, window: int) -> Ask | Problem:
    prompt = _text(document, "prompt", "GenerateRequest.prompt")
    system = _text(document, "system", "GenerateRequest.system") or stored.system
    messages = [{"role": "system", "content": system}] if system else []
    messages.append(_message({"role": "user", "content": prompt, "images": document.get("images")}))
    return _ask(document, stored, messages, window, last_text=prompt, tool=None)


def _ask(document: dict[str, Any], stored: Stored, messages: list[dict[str, Any]], window: int, *, last_text: str, tool: Any) -> Ask | Problem:
    options = _options(document, stored)
    form, schema = _form(document.get("format"))
    think = document.get("think")
    if think is not None and think not in _THINK:
        raise Wrong(f'invalid think value: {json.text(think)} (must be "high", "medium", "low", "max", true, or false)')
    window = min(options.get("num_ctx") or window, window)
    seen = _fitting(messages, window, cutting=document.get("truncate") is not False)
    if seen is None:
        return Problem(name="context_length", details={"tokens": count_messages(messages), "window": window}, model=document["model"])
    cap = options.get("num_predict")
    return Ask(
        model=document["model"],
        messages=seen,
        digest=openai_request.digest(_core(document, options, stored)),
        input_tokens=count_messages(seen),
        # Negative: as long as it likes.
        cap=cap if cap is not None and cap > 0 else None,
        stream=document.get("stream") is not False,
        stream_usage=True,
        format=form,
        schema=schema,
        tool=tool,
        stop=tuple(options.get("stop", ())),
        think=bool(think),
        last_text=last_text,
    )


def _embed(document: dict[str, Any], stored: Stored, window: int, field: str) -> Ask | Problem:
    given = document.get(field)
    inputs = [given] if isinstance(given, str) else given
    if not isinstance(inputs, list) or not all(isinstance(text, str) for text in inputs):
        raise Wrong("invalid input type")
    options = _options(document, stored)
    window = min(options.get("num_ctx") or window, window)
    if document.get("truncate") is False and any(count_text(text) > window for text in inputs):
        raise Wrong("the input length exceeds the context length")
    inputs = [cut(text, window) if count_text(text) > window else text for text in inputs]
    size = document.get("dimensions")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool)):
        raise Wrong("json: cannot unmarshal dimensions into Go struct field EmbedRequest.dimensions of type int")
    most = size_of(document["model"])
    return Ask(
        model=document["model"],
        messages=[],
        digest=openai_request.digest(_core(document, options, stored)),
        input_tokens=sum(count_text(text) for text in inputs),
        cap=0,
        inputs=inputs,
        dimensions=min(size, most) if size is not None and size > 0 else None,
        last_text=next((text for text in inputs if "[[sim:" in text), ""),
    )


def _core(document: Mapping[str, Any], options: Mapping[str, Any], stored: Stored) -> dict[str, Any]:
    """What an answer depends on."""
    kept = {name: value for name, value in document.items() if name not in _SILENT}
    return {**kept, "options": {name: value for name, value in options.items() if name not in _SILENT_OPTIONS}, "own_system": stored.system}


def _message(message: Any) -> dict[str, Any]:
    """A message in OpenAI's form."""
    if not isinstance(message, dict):
        raise Wrong("json: cannot unmarshal value into Go struct field ChatRequest.messages of type api.Message")
    if message.get("role") not in _ROLES:
        raise Wrong(f"invalid role: {message.get('role')}, must be one of [{' '.join(_ROLES)}]")
    content: Any = _text(message, "content", "ChatRequest.messages.content")
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("arguments"), dict):
            raise Wrong(
                "json: cannot unmarshal value into Go struct field ChatRequest.messages.tool_calls.function.arguments of type map[string]interface {}"
            )
    images = [_image(image) for image in message.get("images") or ()]
    return {"role": message["role"], "content": [{"type": "text", "text": content}, *images] if images else content}


def _image(image: Any) -> dict[str, Any]:
    try:
        base64.b64decode(image if isinstance(image, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        raise Wrong("illegal base64 data at input byte 0") from None
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + image}}


def _text(holder: Mapping[str, Any], name: str, place: str) -> str:
    value = holder.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        kind = "array" if isinstance(value, list) else "object" if isinstance(value, dict) else "number"
        raise Wrong(f"json: cannot unmarshal {kind} into Go struct field {place} of type string")
    return value


def _options(document: Mapping[str, Any], stored: Stored) -> dict[str, Any]:
    given = document.get("options")
    if given is not None and not isinstance(given, dict):
        raise Wrong("json: cannot unmarshal value into Go struct field ChatRequest.options of type map[string]interface {}")
    options = {**stored.parameters, **{name: value for name, value in (given or {}).items() if value is not None}}
    for name in _WHOLE:
        value = options.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value != int(value)):
            raise Wrong(f'option "{name}" must be of type integer')
    for name in _NUMBERS:
        value = options.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise Wrong(f'option "{name}" must be of type float32')
    stop = options.get("stop")
    if stop is not None and (not isinstance(stop, list) or not all(isinstance(text, str) for text in stop)):
        raise Wrong('option "stop" must be of type array')
    return options


def _form(wanted: Any) -> tuple[openai_request.Form, Any]:
    if wanted is None or wanted == "":
        return "text", None
    if wanted == "json":
        return "json", None
    if isinstance(wanted, dict):
        return "schema", wanted
    raise Wrong(f'invalid format: {json.text(wanted)}; expected "json" or a valid JSON Schema object')


def _fitting(messages: Sequence[dict[str, Any]], window: int, *, cutting: bool) -> list[dict[str, Any]] | None:
    """What the model sees: without its oldest messages, if they are too long; None when that isn't allowed or doesn't help."""
    kept = list(messages)
    while count_messages(kept) > window:
        oldest = next((place for place, message in enumerate(kept[:-1]) if message["role"] != "system"), None)
        if not cutting or oldest is None:
            return None
        del kept[oldest]
    return kept
