"""Rows that bring their own request: `{"prompt"}`, `{"messages"}` and the OpenAI Batch line, checked before a cent is spent on them.

The trap: a parameter that would change what an answer is (several choices, a stream, another endpoint) must be refused, never dropped in silence.
Source of the Batch line: OpenAI's Batch API, one `{"custom_id", "method", "url", "body"}` per line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from batchllm.core import json
from batchllm.core.nouns import Draft, Endpoint
from batchllm.rows.bodies import ENDPOINTS, chat_form
from batchllm.rows.media import is_part
from batchllm.spec.findings import dotted
from batchllm.spec.slips import KNOWN, slip
from batchllm.spec.tools import tool_problems

_OTHER_URLS = frozenset({"/v1/moderations", "/v1/images/generations", "/v1/images/edits", "/v1/videos"})
_NOT_PARAMS = {
    "messages": "the prompt comes from the row's own `messages`",
    "model": "name a model by `model` beside it",
}
SHAPES = (
    'a row without a `prompt` in the spec is {"prompt": "..."}, {"messages": [...]} or an OpenAI Batch line {"custom_id", "method", "url", "body"}'
)


class Unfit(Exception):  # noqa: N818 - it is data a moment later
    """The row doesn't have a usable shape; the text says why, and the mend."""


class Models:
    """The spec's models as rows may name them."""

    __slots__ = ("_by_id", "_names")

    def __init__(self, models: Mapping[str, str]) -> None:
        """`models`: name in the spec to the provider's model id."""
        self._names = {name: name for name in models}
        self._by_id: dict[str, str] = {}
        for name, model_id in models.items():
            self._by_id.setdefault(model_id, name)

    def pinned(self, value: Any, column: str) -> str | None:
        """The name that a row's column asks for; None for null and an empty cell. Raises `Unfit`."""
        if value is None or value == "":
            return None
        if isinstance(value, str):
            if value in self._names:
                return value
            close = get_close_matches(value, self._names, 1)
            hint = (
                f"did you mean {(self._by_id.get(value) or close[0])!r}?" if close or value in self._by_id else f"there are {', '.join(self._names)}"
            )
            raise Unfit(f"{column}: no model is named {value!r}; {hint}")
        raise Unfit(f"{column}: a model is named by a text, not by {json.text(value)[:60]}")

    def named(self, value: Any) -> tuple[str | None, str | None]:
        """What `body.model` of a Batch line means: the pinned name (by name, else by model id), or the text that names no model of the spec."""
        if value is None:
            return None, None
        if not isinstance(value, str):
            raise Unfit(f"body.model: a model is named by a text, not by {json.text(value)[:60]}")
        name = self._names.get(value) or self._by_id.get(value)
        return (name, None) if name else (None, value)


def draft(fields: Mapping[str, Any], *, endpoint: Endpoint, models: Models, pin: str | None, params: Mapping[str, Any]) -> Draft:
    """The draft of a row that is itself the request. Raises `Unfit`."""
    body = fields.get("body")
    if body is not None and ("url" in fields or "method" in fields):
        return _batch_line(fields, body, models, pin, params)
    prompt = fields.get("prompt")
    messages = fields.get("messages")
    if messages is not None and prompt is not None:
        raise Unfit("has both `prompt` and `messages`; leave one out, or write a `prompt` in the spec that says which to use")
    if messages is not None:
        return Draft(endpoint=endpoint, messages=checked_messages(messages, "messages"), params=params, pin=pin)
    if isinstance(prompt, str):
        return Draft(endpoint=endpoint, messages=({"role": "user", "content": prompt},), params=params, pin=pin)
    if isinstance(prompt, list):
        return Draft(endpoint=endpoint, messages=checked_messages(prompt, "prompt"), params=params, pin=pin)
    if prompt is not None:
        raise Unfit(f"prompt: is {json.text(prompt)[:60]}, not a text or a list of messages")
    text = fields.get("text")
    if endpoint == "embeddings" and isinstance(text, str):
        if not text:
            raise Unfit("text: is empty; there is nothing to embed")
        return Draft(endpoint=endpoint, messages=({"role": "user", "content": text},), params=params, pin=pin)
    if isinstance(body, dict) and "messages" in body:
        raise Unfit('looks like an OpenAI Batch line without its `url`; add "method": "POST", "url": "/v1/chat/completions"')
    columns = ", ".join(fields)[:120] or "nothing"
    raise Unfit(f"has no prompt (it has {columns}); {SHAPES}; or write a `prompt` in the spec that uses its columns")


def _batch_line(fields: Mapping[str, Any], body: Any, models: Models, pin: str | None, params: Mapping[str, Any]) -> Draft:
    method = fields.get("method", "POST")
    if method != "POST":
        raise Unfit(f"method: is {json.text(method)[:60]}; a Batch line's is POST")
    url = fields.get("url")
    if not isinstance(url, str) or url not in ENDPOINTS:
        if isinstance(url, str) and url in _OTHER_URLS:
            raise Unfit(f"url: {url} is not supported; there are {', '.join(key for key in ENDPOINTS if key.startswith('/v1/'))}")
        raise Unfit(f"url: {json.text(url)[:80]} is no endpoint of a Batch line; use /v1/chat/completions")
    endpoint = ENDPOINTS[url]
    if not isinstance(body, dict):
        raise Unfit("body: is not an object")
    name, named_model = models.named(body.get("model"))
    if endpoint == "chat":
        messages = checked_messages(body.get("messages"), "body.messages")
        own = {key: value for key, value in body.items() if key not in {"model", "messages"}}
    else:
        try:
            made, own = chat_form(endpoint, body)
        except ValueError as error:
            raise Unfit(str(error)) from None
        messages = checked_messages(made, "body")
    check_params(own, "body")
    # Without a prompt in the spec a row may carry `request` and `model` beside any shape; they are nearer to the row than its body.
    return Draft(
        endpoint=endpoint,
        messages=messages,
        params={**own, **params} if params else own,
        pin=pin or name,
        named_model=None if pin else named_model,
    )


def checked_messages(value: Any, place: str) -> Sequence[Mapping[str, Any]]:
    """Chat messages as they are, when they are ones. Raises `Unfit`."""
    if not isinstance(value, list) or not value:
        raise Unfit(f"{place}: must be a list of at least one message {{role, content}}")
    for index, message in enumerate(value):
        if type(message) is not dict:
            raise Unfit(f"{place}[{index}]: is no object with role and content")
        role = message.get("role")
        if type(role) is not str or not role:
            raise Unfit(f"{place}[{index}]: has no role (system, user, assistant, tool...)")
        content = message.get("content")
        if type(content) is str:
            continue
        if content is None:
            if not (message.get("tool_calls") or message.get("function_call") or message.get("refusal")):
                raise Unfit(f"{place}[{index}]: has no content")
        elif type(content) is not list or not content or not all(type(part) is dict and (part.get("type") or is_part(part)) for part in content):
            raise Unfit(
                f"{place}[{index}].content: must be a text or a list of parts, each an object with a type (or with `image`, `audio` or `file`)"
            )
    return value


def check_params(params: Mapping[str, Any], place: str) -> None:
    """Refuses what a row may not ask for. Raises `Unfit`."""
    for key, why in _NOT_PARAMS.items():
        if params.get(key) is not None:
            raise Unfit(f"{place}.{key}: is no parameter; {why}")
    for key in ("stream", "stream_options"):
        if params.get(key):
            raise Unfit(f"{place}.{key}: a row can't choose to stream; leave it out (the answer is the same)")
    choices = params.get("n")
    if choices is not None and (choices != 1 or isinstance(choices, bool)):
        raise Unfit(f"{place}.n: one answer per row; for several use `samples` in the spec")
    for key in params:
        if key not in KNOWN and (misspelt := slip(key)) is not None:
            raise Unfit(f"{place}.{key}: {misspelt}")
    if "tools" in params or "tool_choice" in params:
        for inside, problem in tool_problems(params):
            raise Unfit(f"{dotted((place, *inside))}: {problem}")


def row_params(value: Any, column: str) -> Mapping[str, Any]:
    """The parameters that a row's column overrides: an object, or its JSON text (a CSV cell). Nulls stay: they take a parameter away. Raises `Unfit`."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise Unfit(f"{column}: is no JSON object ({error.msg} at column {error.colno})") from None
    if not isinstance(value, dict):
        raise Unfit(f'{column}: must be an object of parameters, e.g. {{"max_tokens": 100}}')
    check_params(value, column)
    return value
