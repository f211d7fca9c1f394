"""What goes into the store and comes out of it, in the store's own units (pico-dollars, seconds since 1970).

Records that are written once per attempt are tuples in column order: they go to SQLite as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from batchllm.core.nouns import Result

PENDING, OK, FAILED = 0, 1, 2
"""`rows.state`."""


class AttemptStart(NamedTuple):
    """Journalled, and committed, before the request's first byte leaves."""

    attempt_id: int
    row_key: int
    attempt: int
    """1, 2, ... over the row's whole life."""
    kind: str
    deployment: int
    simulated: int
    started_at: float
    reserved_pico: int | None
    """Upper bound of its cost; None when no price is known."""
    price_version: str | None
    run: int
    reserved_tokens: int | None = None
    """The most tokens that it can use, input and output; None when no bound is known."""
    route: int | None = None
    """Number of the rule that chose its models, from 0; None when the row was sent to a model by its name."""
    pack: int | None = None
    """The first attempt of those that left in one request; None: it left alone."""
    trimmed: int | None = None
    """Messages that it lost to fit the model's window (`context`)."""
    key_env: str | None = None
    """The variable that holds the key, where the model has several."""


class AttemptEnd(NamedTuple):
    """What became of an attempt. The column order is that of the UPDATE in `writer`."""

    ended_at: float
    http_status: int | None
    outcome: str
    counted: int
    """1 when it uses up one of max_attempts."""
    refused: int
    """1 when the provider said "not now"."""
    billed: str
    cost_pico: int | None
    provider_cost_usd: float | None
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    request_id: str | None
    message: str | None
    first_token_seconds: float | None
    """From sending to the first part of a streamed answer."""
    attempt_id: int


class Answer(NamedTuple):
    """A row's final outcome, as stored."""

    row_key: int
    status: str
    output: str | bytes | None
    """The text, or a vector as little-endian float32 (`vectors`)."""
    parsed: str | None
    deployment: int | None
    provider_model: str | None
    finish_reason: str | None
    tool_calls: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    cost_pico: int | None
    attempts: int
    latency_seconds: float | None
    error_code: str | None
    error_message: str | None
    error_http_status: int | None
    error_provider_code: str | None
    error_retryable: int | None
    shared_from: str | None
    fingerprint: str | None
    run: int
    finished_at: float
    input: str | None
    attempt_id: int | None
    twin: bytes | None = None
    """What rows that ask the same have in common, where such rows share an outcome."""
    samples: str | None = None
    """All answers of a row that has several, as JSON."""
    agreement: float | None = None
    """Of its answers, the part that votes as this one does."""


class Body(NamedTuple):
    """The provider's bodies of one attempt."""

    attempt_id: int
    row_key: int
    attempt: int
    request: str | bytes | None
    response: str | bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Who gave an answer: a named model with its provider, base URL (unexpanded) and model id."""

    name: str
    provider: str
    base_url: str
    model: str

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes an answer's origin the same, whatever it is called in the spec."""
        return (self.provider, self.base_url, self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What earlier runs did for a row that is still pending."""

    attempts: int = 0
    """Requests ever sent for it."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Per model name: attempts that failed without a refusal and count towards max_attempts."""
    by_outcome: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(model name, outcome; `gateway_timeout` for a 504) -> how many of those."""
    cost_pico: int | None = None
    """Known cost since the request last changed."""
    excused: int = 0
    """Timeouts and the like that were taken for the endpoint's, though each may have been paid for."""
    resent: bool = False
    """Whether its present request was ever sent."""


NO_HISTORY = History()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the store knows of an input row."""

    row_key: int
    state: int
    nth: int
    """1 for the first row of its identity, 2.. for repeats."""
    custom_id: str | None
    new: bool
    """Whether the store hadn't it before."""
    position: int
    pin: str | None = None
    history: History = NO_HISTORY
    fingerprint: str | None = None
    """Of the answer, when there is one and it was asked for."""
    deployment: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over the store's whole life, for one kind of dollars."""

    spent_pico: int
    reserved_pico: int
    """Of attempts in flight and possibly billed ones."""
    unpriced: int = 0
    """Attempts that cost something at a price that isn't known: in neither sum."""


class Committed(NamedTuple):
    """A result that is on disk, for listeners."""

    row_key: int
    result: Result
