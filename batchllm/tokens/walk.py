"""Everything in a request that becomes input tokens: messages, their parts and calls, tools, schemas, and the frame around them.

Two sums in one walk. `about` is the best guess and paces requests. `most` is the bound that money is reserved by; None means that there is none.
The trap: what is forgotten here is paid for but not reserved. So parameters count unless they are known not to reach the model, and parts and
tools of unknown kinds (files, audio, searches) have no bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchllm.core import json
from batchllm.tokens.classes import utf8_length
from batchllm.tokens.images import image_tokens

_FREE = frozenset(
    [
        "model",
        "messages",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "max_tokens",
        "max_completion_tokens",
        "seed",
        "stop",
        "n",
        "logprobs",
        "top_logprobs",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "logit_bias",
        "user",
        "metadata",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "parallel_tool_calls",
        "reasoning_effort",
        "verbosity",
        "prompt_cache_key",
        "safety_identifier",
        "timeout",
        "keep_alive",
    ]
)
"""Parameters that steer the model or the service and are not billed as input."""

_UNBOUNDED = frozenset(
    [
        # The provider adds input that is not in the request, or bills output beside the cap.
        "web_search_options",
        "search_parameters",
        "plugins",
        "prediction",
        "audio",
        "data_sources",
        "mcp_servers",
        "container",
        "conversation",
        "previous_response_id",
        # The tokens cost more than the model's prices say: longer caches, faster answers, other regions, other models.
        "prompt_cache_retention",
        "prompt_cache_options",
        "speed",
        "inference_geo",
        "models",
    ]
)
"""Parameters with which no number of tokens bounds the bill."""

_PLAIN_PARTS = frozenset({"text", "refusal", "input_text", "output_text"})

_PER_TOOL = 64
"""Bound of the frame around one tool's or parameter's own bytes."""

_KEPT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What a chat format adds to the texts."""

    about_request: int
    about_message: int
    most_request: int
    most_message: int
    """Beside the bytes of the role."""


OPENAI = Frame(about_request=3, about_message=4, most_request=32, most_message=8)
"""3 tokens and the role for each message, 3 for the reply's start; with room for what newer models add."""
FOREIGN = Frame(about_request=3, about_message=4, most_request=256, most_message=16)
"""Any chat template; several put a system prompt of their own in front (up to some 100 tokens seen)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walker:
    """A `Counter` by one way of counting texts. For one model; made once, used for every row."""

    name: str
    exact: bool
    """Whether texts are counted by the model's own tokenizer: then the bound counts them so too, else by bytes."""
    text_tokens: Callable[[str], int]
    frame: Frame
    model_id: str
    own_host: bool
    """Whether the model runs at its own provider: elsewhere the provider's published cost of an image says nothing."""
    _extras: dict[bytes, int] = field(default_factory=dict, repr=False, compare=False)
    """Tokens of the last tools and schemas, by their JSON: they are mostly the same for every row."""

    def text(self, text: str) -> int:
        """Tokens of a text alone."""
        return self.text_tokens(text)

    def estimate(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> int:
        """Best guess of the input tokens."""
        return self.both(messages, params)[0]

    def bound(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> int | None:
        """The most input tokens that can be billed for this request; None when no such number is known."""
        return self.both(messages, params)[1]

    def both(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> tuple[int, int | None]:
        """(estimate, bound) in one walk."""
        frame = self.frame
        about = frame.about_request
        most: int | None = frame.most_request
        for message in messages:
            content = message.get("content")
            role = message.get("role")
            about += frame.about_message
            most = _plus(most, frame.most_message + (utf8_length(role) if isinstance(role, str) else 0))
            if isinstance(content, str):
                tokens = self.text_tokens(content)
                about += tokens
                most = _plus(most, tokens if self.exact else utf8_length(content))
            elif content is not None:
                more, limit = self._parts(content)
                about += more
                most = _plus(most, limit)
            if len(message) > (content is not None) + (role is not None):
                more, limit = self._other_keys(message)
                about += more
                most = _plus(most, limit)
        for key in params:
            if key not in _FREE:
                more, limit = self._param(key, params[key])
                about += more
                most = _plus(most, limit)
        return about, most

    def _text(self, text: str) -> tuple[int, int]:
        tokens = self.text_tokens(text)
        return tokens, tokens if self.exact else utf8_length(text)

    def _parts(self, content: Any) -> tuple[int, int | None]:
        """Content that is a list of parts."""
        about, most = 0, 0
        bounded = True
        for part in content if isinstance(content, list | tuple) else (content,):
            tokens, limit = self._part(part)
            about += tokens
            most += (limit or 0) + 8
            bounded &= limit is not None
        return about, most if bounded else None

    def _part(self, part: Any) -> tuple[int, int | None]:
        if isinstance(part, str):
            return self._text(part)
        if isinstance(part, Mapping):
            kind = part.get("type")
            text = part.get("text", part.get("refusal"))
            if kind in _PLAIN_PARTS and isinstance(text, str):
                return self._text(text)
            if kind == "image_url":
                tokens, limit = image_tokens(self.model_id, part)
                return tokens, limit if self.own_host else None
        return 0, None

    def _other_keys(self, message: Mapping[str, Any]) -> tuple[int, int | None]:
        """Names, tool calls and whatever else a message carries: tokens of their texts, bound by their JSON."""
        about, most = 0, 0
        bounded = True
        for key, value in message.items():
            if key in ("role", "content") or value is None:
                continue
            data = _json(value)
            bounded &= key != "audio"
            about += 1 + self._known(data, self._all_texts, value)
            most += len(data) + len(key) + 16
        return about, most if bounded else None

    def _param(self, key: str, value: Any) -> tuple[int, int | None]:
        """A parameter that may become input."""
        if value is None or isinstance(value, bool | int | float) or (key == "modalities" and value == ["text"]):
            return 0, 0
        data = _json(value)
        if key in _UNBOUNDED or key == "modalities":
            return 0, None
        if key == "tools":
            if not all(isinstance(tool, Mapping) and tool.get("type") in ("function", "custom") for tool in value):
                return 0, None
            return self._known(data, self._tools, value), len(data) + _PER_TOOL * (1 + len(value))
        if key == "response_format" and isinstance(value, Mapping) and value.get("type") == "text":
            return 0, 0
        return self._known(data, self.text_tokens, data.decode("utf-8", "replace")), len(data) + _PER_TOOL

    def _tools(self, tools: Sequence[Mapping[str, Any]]) -> int:
        """Tools as OpenAI's models get them: a namespace of typed functions."""
        tokens = 12
        for tool in tools:
            function = tool.get(str(tool["type"]))
            function = function if isinstance(function, Mapping) else {}
            tokens += 7 + self.text_tokens(f"{function.get('name')}:{function.get('description', '')}")
            parameters = function.get("parameters")
            properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
            for name, schema in (properties if isinstance(properties, Mapping) else {}).items():
                tokens += 3 + self.text_tokens(name) + self._all_texts(schema)
        return tokens

    def _all_texts(self, value: Any) -> int:
        return sum(map(self.text_tokens, _texts(value)))

    def _known(self, data: bytes, count: Callable[[Any], int], value: Any) -> int:
        """`count(value)`, remembered for this JSON of it."""
        tokens = self._extras.get(data)
        if tokens is None:
            if len(self._extras) >= _KEPT:
                self._extras.clear()
            tokens = self._extras[data] = min(count(value), len(data))
        return tokens


def _plus(most: int | None, more: int | None) -> int | None:
    return None if most is None or more is None else most + more


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value)
    except TypeError:
        # A lone surrogate or a huge integer: the codec will say so; here it only has to be counted.
        return repr(value).encode("utf-8", "surrogatepass")


def _texts(value: Any) -> list[str]:
    """Every text inside a JSON value, keys left out."""
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for item in items for text in _texts(item)]
