"""One seed, from its plan to its verdict, in a folder of its own that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from batchllm.verify.draw import plan_of
from batchllm.verify.plan import Plan
from batchllm.verify.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a seed brought."""

    seed: int
    broken: tuple[str, ...]
    """The first findings; empty: every promise was kept."""
    lives: int
    deaths: int
    requests: int
    overshoot_pico: int
    """By how much the provider's bill went past the largest cap, 0 when it didn't."""
    seconds: float
    """Virtual."""


def verify(seed: int, *, rows: int = 200, plan: Plan | None = None, say: Callable[[str], None] | None = None) -> Verdict:
    """Plays a seed and looks at every promise. `say` is told what happens; `plan` stands in for the seed's own."""
    plan = plan or plan_of(seed, rows=rows)
    folder = Path(tempfile.mkdtemp(prefix="batchllm-verify-", dir=_memory()))
    world = World(plan, folder, say=say)
    try:
        try:
            world.play()
        except Exception as error:  # noqa: BLE001 - whatever comes out of a seed is its finding
            world.findings.add("".join(traceback.format_exception(error)).strip())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Verdict(
        seed=seed,
        broken=tuple(world.findings.texts),
        lives=world.lives,
        deaths=world.deaths,
        requests=sum(simulator.audit.requests for simulator in world.sims.values()),
        overshoot_pico=world.judge.bill.overshoot_pico,
        seconds=world.seconds,
    )


def _memory() -> str | None:
    """A folder in memory where the system has one: no disk is tried here, only the order of what is written."""
    shared = "/dev/shm"  # noqa: S108 - the folders made in it are our own, by mkdtemp
    return shared if os.access(shared, os.W_OK | os.X_OK) else None
