"""A fault becomes a decision: what happens to the row, to its limit group, to the endpoint, to the model.

The trap: a refusal ("not now") and an outage say nothing about the row, so they never count as its failures; everything that may have been paid for is
repeated at most twice, because each repetition may be paid for as well. Source: protocols F and "stop or go on" of the contract.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from batchllm.core.nouns import Code, Fault, Kind, RowError
from batchllm.retry.backoff import full_jitter

PAID_RETRIES = 2
"""Retries of a kind whose attempts may have been executed and billed."""
IDENTICAL_ATTEMPTS = 3
"""Attempts that end in the same 500 with the same words: a permanent error in disguise (llama-server, transformers)."""

_PAID = frozenset({Kind.TIMEOUT, Kind.GATEWAY_TIMEOUT, Kind.CUT, Kind.PROTOCOL})

_ROW_ERRORS: dict[Kind, tuple[Code, bool]] = {
    Kind.UNREACHABLE: (Code.UNAVAILABLE, True),
    Kind.NETWORK: (Code.UNAVAILABLE, True),
    Kind.TIMEOUT: (Code.TIMEOUT, True),
    Kind.GATEWAY_TIMEOUT: (Code.UNAVAILABLE, True),
    Kind.BAD_GATEWAY: (Code.UNAVAILABLE, True),
    Kind.OVERLOAD: (Code.UNAVAILABLE, True),
    Kind.RATE: (Code.RATE_LIMITED, True),
    Kind.RAMP: (Code.RATE_LIMITED, True),
    Kind.QUOTA_DAY: (Code.RATE_LIMITED, True),
    Kind.OVERSIZE: (Code.RATE_LIMITED, False),
    # Once the key, the account or the model name is mended, the same request may well succeed.
    Kind.MONEY: (Code.REJECTED, True),
    Kind.AUTH: (Code.REJECTED, True),
    Kind.MODEL_GONE: (Code.REJECTED, True),
    Kind.CONTEXT: (Code.TOO_LONG, False),
    Kind.FILTER: (Code.REFUSED, False),
    Kind.BAD_REQUEST: (Code.REJECTED, False),
    Kind.CONFLICT: (Code.UNAVAILABLE, True),
    Kind.SERVER: (Code.UNAVAILABLE, True),
    Kind.PROTOCOL: (Code.BAD_RESPONSE, True),
    Kind.CUT: (Code.BAD_RESPONSE, True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The numbers of `retry` in the spec that a decision needs."""

    max_attempts: int = 8
    """Attempts of a row on one model that may fail without a refusal, over all runs."""
    initial_seconds: float = 0.5
    max_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What happened to this row on this model so far, the present fault included."""

    failures: int
    """Attempts that failed without a refusal or an outage (those that ended in `Again` or `Fail`)."""
    same_kind: int
    """Attempts that ended in this kind."""
    identical: int
    """Faults in a row with this status and this message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Try the row again after this delay; it waits alone, and the attempt counts."""

    delay_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Not now: the limit group pauses, the row stays in its place, nothing counts."""

    wait_seconds: float | None
    """The server's hint; None: the group's own backoff."""
    slower: bool = False
    """Traffic rose too fast: also cut the rate (by 30 % or more) and let it grow slowly."""
    until_window: bool = False
    """A per-day limit: until the hint is over or, without one, until the provider's day begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Down:
    """The endpoint is unreachable or overloaded: it is probed with one request at a time, its rows wait, nothing counts."""

    wait_seconds: float | None
    """The server's hint, for the first probe."""
    excused: bool = False
    """Whether a fault that counts for its row was taken for the endpoint's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """The row is lost on this model for good; the next model of its chain may try."""

    error: RowError


@dataclass(frozen=True, slots=True, kw_only=True)
class Improve:
    """The model answered, but not well enough: ask it once more, at once. The attempt counts."""

    how: Literal["again", "repair", "longer"]
    """The same request; one that shows it what was wrong; one with a larger output cap."""
    error: RowError
    """What the row fails with when there is no better answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOut:
    """The model is refused for good, for every row."""

    error: RowError
    reason: str
    """What to tell the person: what is wrong and the mend."""


Decision = Again | Refused | Down | Fail | Improve | ModelOut


def row_error(fault: Fault) -> RowError:
    """The fault as the row's error; also for attempts that are not the row's last."""
    code, retryable = _ROW_ERRORS[fault.kind]
    return RowError(code=code, message=fault.message, http_status=fault.http_status, provider_code=fault.provider_code, retryable=retryable)


MENDS: dict[Kind, str] = {
    Kind.AUTH: "the key was refused: check the variable that api_key_env names, and what the key may use",
    Kind.MONEY: "no credit or quota is left: add credit or raise the provider's spend limit, then run again",
    Kind.MODEL_GONE: "the model can't be used: check model and base_url, and whether the account may use it",
}
"""Kinds that stop a run, and what to do about each."""


def _model_out(fault: Fault) -> ModelOut:
    status = f"{fault.http_status}: " if fault.http_status is not None else ""
    return ModelOut(error=row_error(fault), reason=f"{MENDS[fault.kind]} (the provider said {status}{fault.message})")


def _exhausted(fault: Fault, tally: Tally, policy: RetryPolicy) -> bool:
    if tally.failures >= policy.max_attempts:
        return True
    if fault.kind in _PAID:
        return tally.same_kind > PAID_RETRIES
    return fault.kind is Kind.SERVER and tally.identical >= IDENTICAL_ATTEMPTS


def decide(fault: Fault, tally: Tally, policy: RetryPolicy, rng: random.Random) -> Decision:
    """What to do about a fault. `tally` includes it.

    A counting fault waits full jitter by the number of failures, on top of the server's hint when there is one, so never less than the hint.
    """
    match fault.kind:
        case Kind.RATE | Kind.RAMP | Kind.QUOTA_DAY:
            return Refused(wait_seconds=fault.wait_seconds, slower=fault.kind is Kind.RAMP, until_window=fault.kind is Kind.QUOTA_DAY)
        case Kind.UNREACHABLE | Kind.BAD_GATEWAY | Kind.OVERLOAD:
            return Down(wait_seconds=fault.wait_seconds)
        case Kind.AUTH | Kind.MONEY | Kind.MODEL_GONE:
            return _model_out(fault)
        case Kind.CONTEXT | Kind.FILTER | Kind.BAD_REQUEST | Kind.OVERSIZE:
            return Fail(error=row_error(fault))
    if _exhausted(fault, tally, policy):
        return Fail(error=row_error(fault))
    jitter = full_jitter(tally.failures - 1, policy.initial_seconds, policy.max_seconds, rng)
    return Again(delay_seconds=(fault.wait_seconds or 0.0) + jitter)
