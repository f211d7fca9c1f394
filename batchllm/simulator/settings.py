"""What the simulated provider is like. One frozen value; the spec's `simulator:` keys and the command line's flags end here."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from batchllm.core.errors import Problem, SpecError
from batchllm.simulator.faults import BY_NAME

Accounting = Literal["openai", "anthropic", "gemini"]
"""Whose way of counting tokens against limits (protocols G)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A provider's account and its moods. Raises SpecError, with every problem named, on values that make no sense."""

    seed: int = 0
    latency_ms: float = 0.0
    """Median time to the complete answer."""
    latency_sigma: float = 0.3
    """Spread of the log-normal latency; 0: always the median."""
    rpm: int | None = None
    """Requests per minute; None: unlimited."""
    tpm: int | None = None
    """Tokens per minute; None: unlimited."""
    itpm: int | None = None
    """Input tokens per minute; None: unlimited."""
    otpm: int | None = None
    """Output tokens per minute, counted as they are produced: a request passes while the bucket isn't in debt. None: unlimited."""
    rpd: int | None = None
    """Requests per day; None: unlimited."""
    tpd: int | None = None
    """Tokens per day; None: unlimited."""
    accounting: Literal["wire", "openai", "anthropic", "gemini"] = "wire"
    """What limits count: OpenAI prompt and output cap, Anthropic the prompt and then the real output, Gemini the prompt alone (its day ends at midnight, Pacific time;
    the others' refill all the time). `wire`: as the provider does whose wire the request speaks."""
    burst_seconds: float = 60.0
    """Size of the buckets: this many seconds of the rate (at least one request); they are full at the start."""
    sub_window_seconds: float | None = None
    """A second, smaller bucket over the same rates (60,000 RPM may act as 1,000 a second: 1.0); None: none."""
    scope: Literal["model", "account"] = "model"
    """Whether each model has its own limits, or all share one set."""
    charge: Literal["max_tokens", "real"] = "max_tokens"
    """What admission takes from the token buckets where OpenAI's accounting holds: input + output cap, settled to real usage at the end, or input alone and the output
    when it is done."""
    refusals_count: bool = False
    """Whether a refused request uses up RPM too, as OpenAI's do: hammering then prolongs the outage."""
    wait_hints: Literal["both", "seconds", "ms", "none"] = "both"
    """Which of `retry-after` and `retry-after-ms` a 429 of the buckets carries; its text always has the wait."""
    concurrency: int | None = None
    """Slots; a request beyond them gets a 503. None: unlimited."""
    faults: float = 0.0
    """Probability, 0 to 1, that an attempt meets a fault."""
    fault_kinds: tuple[str, ...] | None = None
    """Draw from these names only (`batchllm.simulator.faults`); None: from all that leave the answers as they are."""
    outages: tuple[tuple[float, float], ...] = ()
    """(from, to) in seconds since the simulator started: nothing is accepted."""
    keys: frozenset[str] | None = None
    """Keys that are let in; None: any, or none. Each of several is an account of its own, with its own limits."""
    models: tuple[str, ...] | None = None
    """Models that exist; None: every name does."""
    context_tokens: int = 128_000
    """Window of every model: prompt plus output cap."""
    audit_records: int = 1_000_000
    """How many of the last records the audit log keeps (about 0.5 kB each); its totals count all."""

    def __post_init__(self) -> None:
        problems = [
            Problem(path=f"simulator.{name}", message=f"must be above 0, got {value}; leave it out for unlimited")
            for name, value in (
                ("rpm", self.rpm),
                ("tpm", self.tpm),
                ("itpm", self.itpm),
                ("otpm", self.otpm),
                ("rpd", self.rpd),
                ("tpd", self.tpd),
                ("concurrency", self.concurrency),
                ("sub_window_seconds", self.sub_window_seconds),
            )
            if value is not None and value <= 0
        ]
        if self.burst_seconds <= 0:
            problems.append(Problem(path="simulator.burst_seconds", message=f"must be above 0, got {self.burst_seconds}"))
        problems += [
            Problem(path=f"simulator.{name}", message=f"must not be below 0, got {value}")
            for name, value in (("latency_ms", self.latency_ms), ("latency_sigma", self.latency_sigma))
            if value < 0
        ]
        if not 0 <= self.faults <= 1:
            problems.append(Problem(path="simulator.faults", message=f"is a probability from 0 to 1, got {self.faults}; 5 % is 0.05"))
        for name in self.fault_kinds or ():
            if name not in BY_NAME:
                close = difflib.get_close_matches(name, BY_NAME, n=1)
                mend = f"did you mean {close[0]!r}?" if close else "`batchllm simulate --list-faults` lists them"
                problems.append(Problem(path="simulator.fault_kinds", message=f"no fault is called {name!r}; {mend}"))
        if problems:
            raise SpecError(problems)
