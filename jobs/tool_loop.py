"""Offers for booking mails: the model asks two functions of this file for rooms and prices before it answers.

    python jobs/tool_loop.py                         a simulated model: no key, no cost
    python jobs/tool_loop.py openai:gpt-6-luna       for real

What the model is told of a function is its signature and its docstring. Each turn is an attempt in the ledger, under the same limits and the same budget:

    batchllm status jobs/tool_loop.db                what it cost, turns included (kind `turn`)
    batchllm export jobs/tool_loop.db --to offers.csv --format csv
"""

from __future__ import annotations

import asyncio
import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

import batchllm

HERE = Path(__file__).resolve().parent
NIGHTLY = {"single": 62, "double": 88, "garden": 105}
TAKEN = {"garden": {date(2027, 4, 3)}}
Room = Literal["single", "double", "garden"]


def quote(room: Room, nights: Annotated[int, Field(ge=1, le=60)], cot: bool = False) -> dict[str, object]:
    """The price of a stay, in euros.

    Args:
        room: Which room; `garden` is the one on the ground floor.
        nights: How many nights.
        cot: Whether a cot for a baby is wanted.
    """
    # What a function raises goes back to the model as one line, and the row goes on.
    if room == "single" and cot:
        raise ValueError("there is no place for a cot in a single room; offer the double")
    return {"room": room, "euros": nights * NIGHTLY[room] * (0.9 if nights >= 7 else 1) + (8 * nights if cot else 0)}


async def is_free(room: Room, arrival: date) -> bool:
    """Whether a room is free on a day."""
    # An async function may wait for a database or another server; other rows go on meanwhile.
    await asyncio.sleep(0.01)
    return arrival not in TAKEN.get(room, ())


def main() -> int:
    provider, _, model = (sys.argv[1] if len(sys.argv) > 1 else "simulated").partition(":")
    job = batchllm.Job(
        name="tool_loop",
        input=str(HERE / "data" / "bookings.jsonl"),
        prompt={
            "system": "You answer mails to a small hotel with an offer, in three sentences. Never invent a price: call `quote` for it, and `is_free` where a day is named.",
            "user": "{{ mail }}\n\n(Sent on {{ sent }}. Use quote.)",
        },
        request={"max_tokens": 400},
        models={"clerk": {"provider": provider, **({"model": model} if model else {})}},
        tools=batchllm.Tools(quote, is_free, turns=6, timeout_seconds=20),
        budget={"usd": 0.50},
        store=str(HERE / "tool_loop.db"),
        results=str(HERE / "tool_loop.results.jsonl"),
    )
    summary = batchllm.run(job)
    for result in batchllm.results(job):
        print(f"{result.custom_id}: {result.output if result.ok else result.error}")
    print(f"{summary.rows.ok} answers with {summary.attempts} requests, ${summary.cost_usd:.4f}", file=sys.stderr)
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main())
