"""The provider of a plan: each model's account and moods, and what the job's spec says of its limits - rightly, wrongly, or nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchllm.simulator.faults import KINDS

_DECLARED = ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "concurrency")
_ROW_TOKENS = 60
"""Of a prompt, about; what answers may have comes on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is drawn for one model."""

    sim: Mapping[str, Any]
    """Settings of its simulator."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the model in the spec: its limits, and how its provider counts."""


def draw(rng: random.Random, names: list[str], count: int, *, stream: bool, max_tokens: int) -> tuple[dict[str, Account], bool]:
    """(by model, whether the declared limits are the provider's own)."""
    rate = rng.choice((0.0, 0.05, 0.15, 0.3))
    transient = [kind.name for kind in KINDS if kind.group == "transient" and kind.wire != ("plain" if stream else "stream")]
    kinds = tuple(rng.sample(transient, rng.randrange(1, 4))) if rng.random() < 0.4 else None
    honest = rng.random() < 0.75
    accounting = rng.choice((None, None, None, "anthropic", "gemini"))
    daily = honest and rng.random() < 0.15
    found: dict[str, Account] = {}
    for name in names:
        if daily:
            sim = _mood(rng, accounting) | _day(rng, count, max_tokens, accounting)
        else:
            sim = _mood(rng, accounting) | _minute(rng, count) | {"refusals_count": honest and rng.random() < 0.3}
        sim |= {"faults": rate, "fault_kinds": kinds}
        model: dict[str, Any] = {"limits": _limits(rng, sim, honest=honest, odd=bool(kinds))}
        if accounting is not None:
            model["simulator"] = {"accounting": accounting}
        found[name] = Account(sim=sim, model=model)
    return found, honest


def _mood(rng: random.Random, accounting: str | None) -> dict[str, Any]:
    sim: dict[str, Any] = {
        "seed": rng.randrange(1000),
        "latency_ms": rng.choice((5.0, 100.0, 600.0, 1500.0)),
        "latency_sigma": rng.choice((0.0, 0.5, 1.0)),
        "burst_seconds": rng.choice((1, 1, 10, 60)),
    }
    if accounting is not None:
        sim["accounting"] = accounting
    if rng.random() < 0.25:
        start = rng.uniform(0, 20)
        sim["outages"] = ((start, start + rng.choice((3.0, 30.0, 400.0))),)
    return sim


def _day(rng: random.Random, count: int, max_tokens: int, accounting: str | None) -> dict[str, Any]:
    """Limits per day that are nearly used up: the last rows wait for what comes back. (Gemini's comes back at midnight only, so that must be rare.)

    Nothing else is limited, so that a refusal has one reason only.
    """
    if accounting == "gemini":
        return {"rpd": 3 * count}
    if rng.random() < 0.6:
        return {"rpd": int(count * rng.choice((1, 1.1))) + 1}
    return {"tpd": int(count * (_ROW_TOKENS + max_tokens) * rng.choice((0.5, 1)))}


def _minute(rng: random.Random, count: int) -> dict[str, Any]:
    sim: dict[str, Any] = {}
    if rng.random() < 0.6:
        sim["rpm"] = int(count * rng.choice((3, 10, 60)))
    if rng.random() < 0.4:
        sim["tpm"] = int(count * rng.choice((200, 2000)))
    if rng.random() < 0.2:
        sim["itpm"] = int(count * rng.choice((100, 1000)))
    if rng.random() < 0.2:
        sim["otpm"] = int(count * rng.choice((200, 2000)))
    if rng.random() < 0.2:
        sim["concurrency"] = rng.choice((2, 8))
    return sim


def _limits(rng: random.Random, sim: Mapping[str, Any], *, honest: bool, odd: bool) -> Any:
    declared = {key: sim[key] for key in _DECLARED if key in sim}
    if honest:
        # Without a limit there is nothing to be found out from refusals that come anyway.
        return {**declared, "burst_seconds": sim["burst_seconds"]} if declared else "none" if odd else rng.choice((None, "none"))
    # Told wrongly, or not at all and to be found out.
    return rng.choice((None, None, {"rpm": 2 * sim["rpm"]} if "rpm" in sim else None))


def halved(models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The models with half of their declared limits per minute; None where nothing is declared."""
    found: dict[str, Any] = {}
    for name, model in models.items():
        limits = model["limits"]
        if isinstance(limits, dict):
            less = {key: max(1, value // 2) for key, value in limits.items() if key in ("rpm", "tpm", "itpm", "otpm", "concurrency")}
            found[name] = {**model, "limits": {**limits, **less}}
    return {**models, **found} if found else None
