"""The job as it goes when nothing disturbs it: one run over the final input, without limits, faults and deaths. Its answers are what all others are held to."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from batchllm.core.nouns import Usage
from batchllm.core.virtual import run_virtual
from batchllm.cost import from_spec
from batchllm.engine import Deps, RunOptions, Summary, run_job
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.spec import build
from batchllm.verify.plan import PRICES, Plan
from batchllm.verify.process import EPOCH

_BOOK = {name: from_spec(**price) for name, price in PRICES.items()}


def price(model: str, usage: Usage) -> int:
    """The provider's bill for a request, in pico-dollars."""
    return _BOOK[model].price(usage)


class _Clock:
    """Wall time stands still: nothing depends on it here."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        return self._loop.time()

    def utc(self) -> float:
        return EPOCH

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def reference(plan: Plan, source: Path, folder: Path, use: tuple[str, ...] | None) -> list[dict[str, Any]]:
    """The results of one calm run; `use`: on these models. Whether answers are streamed makes no difference to them."""
    keys = {key: value for key, value in plan.keys.items() if key not in ("concurrency", "limit_groups", "keep_bodies", "retry", "stream")}
    keys["models"] = {name: {**model, "limits": "none"} for name, model in plan.keys["models"].items()}
    keys["keep_bodies"] = "none"
    if use is not None and "routes" in keys:
        keys["routes"] = [{"use": list(use)}]
        if "on_invalid" in keys.get("output", {}):
            keys["output"] = {**keys["output"], "on_invalid": {**keys["output"]["on_invalid"], "escalate": None}}
    spec = build({**keys, "input": str(source)}, folder=folder)

    async def main() -> Summary:
        clock = _Clock()
        sims = {name: Simulator(Settings(seed=settings["seed"], audit_records=1), price=price) for name, settings in plan.sims.items()}
        deps = Deps(clock=clock, environ={}, rng=random.Random(0), inline=True, transports=lambda name, _model: SimulatedTransport(sims[name], clock))
        return await run_job(spec, deps, RunOptions())

    run_virtual(main)
    return [json.loads(line) for line in (folder / "t.results.jsonl").read_text(encoding="utf-8").splitlines()]
