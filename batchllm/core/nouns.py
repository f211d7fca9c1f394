"""The nouns of a row's walk: Row -> Request -> Reply or Fault -> Result.

All are frozen values. Unknown is None, never 0. Money is integer pico-dollars (`core.money`) until it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol, Self, TypeVar


class Model(Protocol):
    """What `Result.parsed_as` asks of a class; pydantic's models have it."""

    @classmethod
    def model_validate(cls, obj: Any, /) -> Self:
        """An instance of plain data."""


M = TypeVar("M", bound=Model)

Endpoint = Literal["chat", "completions", "embeddings", "responses"]
Status = Literal["ok", "failed"]
Billed = Literal["no", "maybe", "yes"]
"""`turn`: a further request of a row whose model called tools (Python API)."""


class Code(StrEnum):
    """Error codes of a row. Stable: people write scripts against them (contract 3)."""

    BAD_ROW = "bad_row"
    DUPLICATE_ID = "duplicate_id"
    TEMPLATE = "template"
    NO_ROUTE = "no_route"
    TOO_LONG = "too_long"
    REJECTED = "rejected"
    REFUSED = "refused"
    TRUNCATED = "truncated"
    INVALID_OUTPUT = "invalid_output"
    TOOL_TURNS = "tool_turns"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    BAD_RESPONSE = "bad_response"


INPUT_CODES = frozenset({Code.BAD_ROW, Code.DUPLICATE_ID, Code.TEMPLATE, Code.NO_ROUTE})
"""Failures of the row itself: nothing was sent for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """Why a row failed, as data."""

    code: Code
    message: str
    http_status: int | None = None
    provider_code: str | None = None
    retryable: bool = False
    """Whether the same request may well succeed later (`batchllm retry`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One input record, as read."""

    position: int
    """Place over all input files, from 0; bad lines counted, blank lines not."""
    custom_id: str | None
    """The record's own id; None when ids are row numbers or the line can't be read."""
    identity: str
    """What the row is matched by on resume: `id:<custom_id>`, `content:<digest>` or `bad:<digest>`; the store numbers repeats."""
    fields: Mapping[str, Any]
    """The record; empty when it could not be read."""
    place: str
    """`data/reviews.jsonl:17`, for messages."""
    error: RowError | None = None
    """Set when the line can't be used (`bad_row`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a row asks for before a model is chosen: filled messages and the row's own parameters."""

    endpoint: Endpoint
    messages: Sequence[Mapping[str, Any]]
    """Chat messages in OpenAI's form: `{"role", "content"}` and what else a message may carry."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """The row's own overrides; they win over the model's and the spec's."""
    pin: str | None = None
    """A name under `models` that the row asks for."""
    named_model: str | None = None
    """`body.model` of a Batch line that names no model of the spec; such rows are counted and routed as usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The form that answers must have (`output.schema`, `output.choices`), as requests carry it. Made once per run."""

    response_format: Mapping[str, Any]
    """OpenAI's `{"type": "json_schema", ...}`; it is the lowest layer of a request's parameters, so that a spec can overrule it, or take it away with null."""
    digest: str
    """Of what the user wrote: it stands in the fingerprint for `response_format`, whose details may change with versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The logical request to one model: what a fingerprint is taken of, and what a codec encodes."""

    endpoint: Endpoint
    messages: Sequence[Mapping[str, Any]]
    params: Mapping[str, Any]
    """Merged parameters, OpenAI chat-completions names; no nulls."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """Raw parts of the wire body from the model's spec, merged last."""
    wanted: Wanted | None = None
    """The form that the answer must have; codecs read `params["response_format"]` only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the provider reports them, in one form: input includes cached and cache-write tokens, output includes reasoning."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_1h_tokens: int = 0
    """Those of the cache-write tokens that were written for an hour; they cost more."""


Finish = Literal["stop", "length", "tool", "filter", "refusal", "error", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer that was understood, whatever it says."""

    text: str | None
    finish: Finish
    finish_raw: str | None
    usage: Usage | None
    """None when the provider reported none, or only zeros: unknown is not zero."""
    tool_calls: Sequence[Mapping[str, Any]] = ()
    refusal: str | None = None
    provider_model: str | None = None
    service_tier: str | None = None
    request_id: str | None = None
    provider_cost_usd: float | None = None
    vector: Sequence[float] | None = None
    """The answer of an embeddings request; `text` is then None."""


class Kind(StrEnum):
    """What went wrong with an attempt, from the retry taxonomy. `retry.decide` turns a kind into a decision."""

    UNREACHABLE = "unreachable"
    """DNS, connection refused, TLS, connect timeout: the request never left."""
    NETWORK = "network"
    """Write error, reset, or a body cut short: the provider may have worked."""
    TIMEOUT = "timeout"
    """No complete answer within timeout_seconds."""
    GATEWAY_TIMEOUT = "gateway_timeout"
    """504, 524: the gateway gave up, the engine behind it may have worked."""
    BAD_GATEWAY = "bad_gateway"
    """502."""
    OVERLOAD = "overload"
    """503, 529, 498 and their texts: a refusal."""
    RATE = "rate"
    """A rate or concurrency limit: a refusal."""
    RAMP = "ramp"
    """Traffic rose too fast (`slow_down`): a refusal that also asks for a lower rate."""
    QUOTA_DAY = "quota_day"
    """A per-day limit: a refusal until the day's window opens."""
    OVERSIZE = "oversize"
    """This one request is larger than the whole limit: it can never pass."""
    MONEY = "money"
    """No credit, spend limit, budget of the key."""
    AUTH = "auth"
    """The key is wrong or may not use this."""
    MODEL_GONE = "model_gone"
    """Unknown, retired or unavailable model or deployment; or a limit of 0 for it."""
    CONTEXT = "context"
    """Prompt (plus output cap) longer than the model's window."""
    FILTER = "filter"
    """Content filter or policy, before or after generation."""
    BAD_REQUEST = "bad_request"
    """The provider rejects this request for what it is (400, 404, 413, 415, 422)."""
    CONFLICT = "conflict"
    """408, 409, 499: try again."""
    SERVER = "server"
    """500 and other 5xx."""
    PROTOCOL = "protocol"
    """A reply that can't be understood: HTML, 3xx, invalid JSON, no choices, an unknown finish."""
    CUT = "cut"
    """An answer that ended before its end: finish `error`, a stream without finish reason."""


REFUSALS = frozenset({Kind.RATE, Kind.RAMP, Kind.QUOTA_DAY, Kind.OVERLOAD})
"""`refusal` of contract 1: says "not now" and never uses up attempts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An attempt without a usable answer, classified once, in the codec or the transport."""

    kind: Kind
    message: str
    """The provider's words (to be scrubbed and cut before they are stored) or ours."""
    http_status: int | None = None
    provider_code: str | None = None
    """The provider's `code`, else `type`, as text."""
    wait_seconds: float | None = None
    """The server's wait hint. None when there was none, or a useless one (0, negative, NaN, garbage)."""
    billed: Billed = "no"
    counts: bool = True
    """Whether the attempt used up rate limits at the provider."""
    usage: Usage | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitHint:
    """What response headers say of one dimension."""

    dimension: Literal["requests", "tokens", "input_tokens", "output_tokens"]
    limit: int | None = None
    remaining: int | None = None
    reset_seconds: float | None = None
    """Until the bucket is full again (not: until one may send)."""
    window: Literal["minute", "day"] | None = None
    """What the limit is counted over, where the wire says it; None: to be told from limit, remaining and reset (protocols G)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The final outcome of a row: exactly one per row."""

    custom_id: str | None
    row: int
    status: Status
    output: Any = None
    parsed: Any = None
    model: str | None = None
    provider_model: str | None = None
    finish_reason: str | None = None
    tool_calls: Sequence[Mapping[str, Any]] | None = None
    usage: Usage | None = None
    """Of the accepted attempt."""
    cost_usd: float | None = None
    """Sum of the known costs of all attempts of the row since its request last changed; None when none is known."""
    attempts: int = 0
    """Every request sent for the row."""
    latency_seconds: float | None = None
    """Of the accepted attempt."""
    shared_from: str | None = None
    samples: Sequence[Mapping[str, Any]] | None = None
    """All answers of a row that has several (`samples`), each with `output`, `parsed` and `finish_reason`; those of the result itself are one of them."""
    agreement: float | None = None
    """Of these, the part that votes as the result does (`output.vote`), 0 to 1."""
    input: Mapping[str, Any] | None = None
    """The kept input columns."""
    error: RowError | None = None

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.status == "ok"

    def parsed_as(self, model: type[M]) -> M:
        """`parsed` as an instance of a pydantic model. Raises ValueError for a row without an answer, and what the model raises for one that doesn't fit."""
        if not self.ok:
            raise ValueError(f"row {self.row} has no answer: {self.error.code if self.error is not None else self.status}")
        return model.model_validate(self.parsed)

    def as_dict(self) -> dict[str, Any]:
        """The line of the results file (contract 3); `samples` and `agreement` are there where a row has several answers."""
        line = self._line()
        if self.samples is not None:
            line["samples"] = [dict(sample) for sample in self.samples]
            line["agreement"] = self.agreement
        return line

    def _line(self) -> dict[str, Any]:
        usage = self.usage
        error = self.error
        return {
            "custom_id": self.custom_id,
            "row": self.row,
            "status": self.status,
            "output": self.output,
            "parsed": self.parsed,
            "model": self.model,
            "provider_model": self.provider_model,
            "finish_reason": self.finish_reason,
            "tool_calls": list(self.tool_calls) if self.tool_calls else None,
            "usage": None
            if usage is None
            else {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cached_input_tokens": usage.cached_input_tokens,
                "cache_write_tokens": usage.cache_write_tokens,
                "reasoning_tokens": usage.reasoning_tokens,
            },
            "cost_usd": self.cost_usd,
            "attempts": self.attempts,
            "latency_seconds": self.latency_seconds,
            "shared_from": self.shared_from,
            "input": dict(self.input) if self.input is not None else None,
            "error": None
            if error is None
            else {
                "code": str(error.code),
                "message": error.message,
                "http_status": error.http_status,
                "provider_code": error.provider_code,
                "retryable": error.retryable,
            },
        }
