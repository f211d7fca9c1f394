"""What a wire dialect has to know: to read a request into an `Ask`, and to write an `Answer` or an error the way its provider would.

Everything else (content, limits, faults, bill) is shared. A new dialect is one object with these methods and a line in `provider.ROUTES`; where the path or the
headers say more than the body (model, method, version), `provider.FINDERS` make an object of it. What needs no model is answered by `provider.ASIDES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from batchllm.core.nouns import Usage
from batchllm.simulator.bucket import Buckets, Refusal
from batchllm.simulator.settings import Accounting


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call."""

    name: str
    parameters: Mapping[str, Any]
    """JSON Schema of its arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The start of a prompt that is to be kept for others."""

    key: bytes
    tokens: int
    keep_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request, read."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    """In OpenAI's form."""
    digest: bytes
    """sha256 of what the content depends on."""
    input_tokens: int
    cap: int | None
    """Output cap; None when none was sent."""
    choices: int = 1
    stream: bool = False
    stream_usage: bool = False
    format: Literal["text", "json", "schema"] = "text"
    schema: Any = None
    tool: Tool | None = None
    """The tool that must be called."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer; they are no part of it."""
    think: bool = False
    """Whether the model thinks before it speaks."""
    prefixes: tuple[Prefix, ...] = ()
    """What is to be cached of the prompt, from the shortest start to the longest."""
    logprobs: bool = False
    inputs: Sequence[str] | None = None
    """Texts to embed; None: this is no embeddings request."""
    dimensions: int | None = None
    """Length of the vectors; None: the model's own."""
    base64: bool = False
    """Whether vectors go out as base64."""
    echo: bool = False
    """Whether a completion repeats its prompt."""
    last_text: str = ""
    """Text of the last user message: where fault markers stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a function, arguments as JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer of possibly several."""

    text: str | None
    finish: Literal["stop", "length", "tool", "filter", "error"] | None
    refusal: str | None = None
    tool_call: ToolCall | None = None
    tokens: int | None = None
    """Of the text, where they are known without counting."""
    thought: str | None = None
    """What was thought before; its tokens are output, too."""
    stopped_by: str | None = None
    """The stop text that ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model says."""

    choices: tuple[Choice, ...]
    """Empty for embeddings."""
    usage: Usage
    vectors: tuple[bytes, ...] = ()
    """One per input of an embeddings request: float32, little-endian, of unit length (`vectors.floats` reads them)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A request that can't be read or served as it is; `name` is the dialect's own error name."""

    name: str
    details: Mapping[str, Any]
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """A request that no model is asked for: a list of models, a count of tokens. It is free, and not in the audit."""

    method: str
    path: str
    """Without a slash at its end."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    models: tuple[str, ...] | None
    """Models that exist; None: every name does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    """An error as it goes over the wire; also the whole answer to an `Aside`."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Dialect(Protocol):
    """One provider's wire."""

    accounting: Accounting
    """What its limits count."""
    without: frozenset[str]
    """Faults that this wire has no form for: they don't happen here, neither drawn nor asked for."""

    def key(self, headers: Mapping[str, str]) -> str | None:
        """The key that came along; header names are in lower case."""

    def parse(self, body: bytes) -> Ask | Problem:
        """Reads a request."""

    def body(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> bytes:
        """A complete answer. `fault` names what is to be wrong with it, of those that are this wire's own matter."""

    def frames(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> list[bytes]:
        """The same as a stream's frames."""

    def stream_type(self) -> str:
        """Content type of a stream."""

    def headers(self, request_id: str, *, seconds: float, utc: float, buckets: Buckets | None) -> dict[str, str]:
        """Headers of every reply of the provider itself."""

    def error(self, name: str, *, model: str | None, utc: float, details: Mapping[str, Any] | None = None) -> ErrorReply:
        """An error by its name (`faults.KINDS`, or one of the simulator's own). `details` always have the `request_id`."""

    def refused(self, refusal: Refusal, *, model: str, hints: str, request_id: str) -> ErrorReply:
        """The 429 of a bucket."""

    def models(self, names: Sequence[str], one: str | None) -> bytes | None:
        """The list of models, or one of them; None when there is no such model."""
