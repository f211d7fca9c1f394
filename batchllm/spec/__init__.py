"""The job spec: its model, reading it with every problem named at its place, and its JSON Schema.

`load` reads a file, `loads` a text, `build` Python values; all give a frozen `JobSpec` or raise SpecError with all problems at once.
"""

from __future__ import annotations

from batchllm.spec.changes import parse_set
from batchllm.spec.deadline import deadline_utc
from batchllm.spec.job import JobSpec
from batchllm.spec.loading import build, load, loads
from batchllm.spec.model import ModelSpec
from batchllm.spec.parts import (
    BudgetSpec,
    InputSpec,
    LimitGroupSpec,
    LimitsSpec,
    MaxFailed,
    OutputSpec,
    OverridesSpec,
    PriceSpec,
    RateLimits,
    RetrySpec,
    Route,
    SimulatorSpec,
)
from batchllm.spec.prompt import PromptMessage, PromptSpec
from batchllm.spec.schema import json_schema
from batchllm.spec.variables import expand, literal

__all__ = [
    "BudgetSpec",
    "InputSpec",
    "JobSpec",
    "LimitGroupSpec",
    "LimitsSpec",
    "MaxFailed",
    "ModelSpec",
    "OutputSpec",
    "OverridesSpec",
    "PriceSpec",
    "PromptMessage",
    "PromptSpec",
    "RateLimits",
    "RetrySpec",
    "Route",
    "SimulatorSpec",
    "build",
    "deadline_utc",
    "expand",
    "json_schema",
    "literal",
    "load",
    "loads",
    "parse_set",
]
