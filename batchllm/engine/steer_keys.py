"""Which keys of a spec may change while its job runs, and how they are shown.

Those are the keys that say how fast, how much and how long; what is asked, of whom, and what is kept of it belongs to the answers already given.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from batchllm.core import json
from batchllm.spec import JobSpec, MaxFailed

KEYS = (
    "budget.usd",
    "budget.usd_per_day",
    "budget.tokens",
    "budget.tokens_per_day",
    "budget.tokens_per_month",
    "budget.when_used_up",
    "concurrency",
    "deadline",
    "max_failed",
    *(f"models.*.limits.{name}" for name in ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "concurrency")),
    *(f"limit_groups.*.{name}" for name in ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "concurrency", "share", "usd_per_day")),
)
"""`*` stands for a name."""
FIXED = "fixed"
_NAMED = {"models": "model", "limit_groups": "limit group"}


def changeable(spec: JobSpec, key: str) -> str | None:
    """None when the key may change; FIXED when it may not; else what is wrong with the name in it."""
    steps = key.split(".")
    noun = _NAMED.get(steps[0])
    if noun is not None and len(steps) > 1:
        names = list(getattr(spec, steps[0]))
        if steps[1] not in names:
            close = difflib.get_close_matches(steps[1], names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}" if names else "there are none"
            return f"{key}: the spec has no {noun} {steps[1]!r}; {hint}"
    for pattern in KEYS:
        wanted = pattern.split(".")
        if len(wanted) == len(steps) and all(want in {"*", step} for want, step in zip(wanted, steps, strict=True)):
            return None
    return FIXED


def value_at(spec: JobSpec, key: str) -> Any:
    """The value of a changeable key; None where it has none."""
    here: Any = spec
    for step in key.split("."):
        here = here.get(step) if isinstance(here, Mapping) else getattr(here, step, None)
    return here


def shown(value: Any) -> str:
    """A value as one would write it in a spec."""
    if isinstance(value, MaxFailed):
        return str(value.count) if value.count is not None else f"{100 * (value.fraction or 0):.10g}%"
    if value is None or isinstance(value, bool | dict | list):
        return json.text(value)
    return str(value)
