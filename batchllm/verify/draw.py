"""A seed becomes a plan. The trap: a new kind of trouble drawn in the middle changes all seeds' plans; that is fine, a seed is only as old as the code that it is
run with.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchllm.verify import account
from batchllm.verify.lines import Lines, repeat
from batchllm.verify.plan import PRICES, End, Life, Line, Plan, Trouble

_DAY_SECONDS = 86_400.0
_SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["good", "bad", "odd"]}, "score": {"type": "integer", "minimum": 0, "maximum": 100}},
    "required": ["label", "score"],
    "additionalProperties": False,
}
_FORM_TOKENS = 40
"""More than an answer of that form has."""


def plan_of(seed: int, *, rows: int = 200) -> Plan:
    """The plan of a seed, for jobs of about this many rows."""
    rng = random.Random(seed)
    stream = rng.random() < 0.3
    output = _output(rng)
    formed = "schema" in output or "choices" in output
    how = Lines(named=rng.random() < 0.6, stream=stream, formed=formed)
    count = max(5, int(rows * rng.uniform(0.6, 1.3)))
    lines = how.draw(rng, count)
    names = ["a", "b"] if rng.random() < 0.5 else ["a"]
    max_tokens = rng.choice((10, 20, 60) if output.get("on_length") == "retry" else (_FORM_TOKENS, 60)) if formed else rng.choice((5, 20, 60))
    accounts, honest = account.draw(rng, names, count, stream=stream, max_tokens=max_tokens)
    keys: dict[str, Any] = {
        "name": "t",
        "prompt": "{{ text }}",
        "request": {"max_tokens": max_tokens},
        "models": {name: {"provider": "simulated", "model": name, "price": PRICES[name], **one.model} for name, one in accounts.items()},
        "durability": "normal",
        "keep_bodies": rng.choice(("none", "none", "none", "failed", "all")),
        "on_change": "rerun",
        "retry": {
            "timeout_seconds": rng.choice((3, 8, 30)),
            "max_attempts": rng.choice((2, 4, 8, 20)),
            "max_seconds": rng.choice((5, 60)),
            "outage_seconds": rng.choice((60, 1800)),
            "on_outage": rng.choice(("wait", "fallback")) if len(names) == 2 else "wait",
        },
    }
    if max_tokens < _FORM_TOKENS and formed:
        # Room for an answer must be found, or the whole job fails alike.
        keys["retry"]["max_attempts"] = max(8, keys["retry"]["max_attempts"])
    if stream:
        keys["stream"] = True
        keys["retry"]["stall_seconds"] = rng.choice((1, 5, 60))
    weighted = False
    if len(names) == 2:
        # A split goes by the row's id; without ids by its number, which an edit of the input changes.
        weighted = how.named and rng.random() < 0.15
        keys["routes"] = _routes(rng, names, weighted=weighted)
        if rng.random() < 0.3 and honest:
            keys["limit_groups"] = {"both": {"models": names, "concurrency": rng.choice((3, 10))}}
        if formed and rng.random() < 0.4:
            output["on_invalid"]["escalate"] = ["b"]
            if rng.random() < 0.6:
                keys["routes"] = [{"use": ["a"]}]
    if rng.random() < 0.5:
        keys["concurrency"] = rng.choice((1, 4, 12, 40))
    if rng.random() < 0.3:
        output["keep"] = ["tag"]
    if output:
        keys["output"] = output
    if rng.random() < 0.3 and not weighted:
        keys["request"]["temperature"] = 0
        repeat(rng, lines, formed=formed)
    # Midnight comes while requests are on their way to the disk.
    late = rng.random() < 0.25
    # A clock that jumps hides how well limits per day are kept over several runs.
    steady = any("rpd" in one.sim or "tpd" in one.sim for one in accounts.values()) and rng.random() < 0.8
    start = _DAY_SECONDS - rng.choice((2.0, 10.0)) * rng.random() if late else 0.0
    return Plan(
        seed=seed,
        rows=tuple(lines),
        keys=keys,
        sims={name: one.sim for name, one in accounts.items()},
        honest=honest,
        silent=rng.random() < 0.5,
        start_seconds=start,
        lives=tuple(replace(life, jumps=()) if steady else life for life in _lives(rng, lines, keys, how, late=late)),
    )


def _output(rng: random.Random) -> dict[str, Any]:
    """What a good answer is."""
    output: dict[str, Any] = {}
    if rng.random() < 0.25:
        output["on_length"] = rng.choice(("retry", "retry", "fail"))
    if rng.random() < 0.3:
        form = rng.choice(("schema", "schema", "choices"))
        output[form] = _SCHEMA if form == "schema" else ["good", "bad", "odd"]
        if form == "schema" and rng.random() < 0.4:
            output["check"] = "parsed.score > 15"
        output["on_invalid"] = {"retries": rng.choice((0, 1, 2)), "repair": rng.random() < 0.7}
    return output


def _routes(rng: random.Random, names: list[str], *, weighted: bool) -> list[dict[str, Any]]:
    if weighted:
        return [{"use": {"a": rng.choice((20, 50, 90)), "b": 50}}]
    return [{"use": names}] if rng.random() < 0.7 else [{"when": "tokens > 20", "use": ["b", "a"]}, {"use": names}]


def _lives(rng: random.Random, lines: Sequence[Line], keys: Mapping[str, Any], how: Lines, *, late: bool) -> list[Life]:
    capped = rng.random() < 0.6
    windowed = rng.choice(("usd_per_day", "tokens", "tokens_per_day", "tokens_per_month")) if rng.random() < 0.5 else None
    if late:
        windowed = rng.choice(("usd_per_day", "tokens_per_day"))
    waits = late and rng.random() < 0.15
    part = rng.uniform(0.5 if waits else 0.1, 0.9)
    changes = rng.random() < 0.3
    deadly = rng.random() < 0.85
    count = rng.randrange(1, 7) if deadly else 1
    # A guess of the job's cost by its bound, so that caps bite now and then.
    cost_usd = sum(len(str(line)) * 1.0 + keys["request"]["max_tokens"] * 2.0 for line in lines) / 1e6
    cap = cost_usd * rng.uniform(0.05, 0.8)
    lives: list[Life] = []
    present = list(lines)
    for number in range(count):
        change: dict[str, Any] = {}
        budget: dict[str, Any] = {}
        if capped:
            budget["usd"] = round(cap, 9)
            cap *= rng.choice((1.0, 1.0, 1.5, 2.5, 0.9))
        if windowed is not None:
            # A token costs two millionths of a dollar: caps of both kinds bite alike.
            size = cost_usd * part
            budget[windowed] = round(size, 9) if windowed == "usd_per_day" else int(size * 5e5)
        if waits:
            budget["when_used_up"] = "wait"
        if budget:
            change["budget"] = budget
        if rng.random() < 0.1:
            change["deadline"] = f"{rng.choice((2, 20))}s"
        if rng.random() < 0.15:
            change["concurrency"] = rng.choice((1, 3, 20))
        slower = account.halved(keys["models"])
        if rng.random() < 0.15 and slower is not None:
            change["models"] = slower
        rows: tuple[Line, ...] | None = None
        if changes and number and rng.random() < 0.5:
            present = how.edited(rng, present)
            rows = tuple(present)
        lives.append(_life(rng, number, change, rows, deadly=deadly, late=late and number == 0))
    return lives


def _life(rng: random.Random, number: int, change: Mapping[str, Any], rows: tuple[Line, ...] | None, *, deadly: bool, late: bool) -> Life:
    end: End = rng.choice(("kill", "kill", "kill", "kill_at", "cancel", "interrupt", "finish")) if deadly else "finish"
    at = 10 ** rng.uniform(0.0, 3.3) if end == "kill" else rng.choice((0.3, 3.0, 30.0)) * rng.random()
    trouble = None
    if rng.random() < 0.12:
        trouble = Trouble(kind=rng.choice(("full", "fsync")), first=int(10 ** rng.uniform(0, 2.3)), commits=rng.choice((1, 3, 1_000_000)))
    slow = rng.random() < (0.7 if late else 0.2)
    return Life(
        end=end,
        at=max(1, int(at)) if end == "kill" else at,
        wait_seconds=rng.choice((0.0, 0.0, 90.0)) if number else 0.0,
        disk=trouble,
        slow_share=rng.choice((0.3, 0.9) if late else (0.01, 0.3)) if slow else 0.0,
        slow_seconds=rng.choice((0.5, 2.0) if late else (0.05, 2.0)) if slow else 0.0,
        race=rng.choice((0.0, 0.1, 0.5)),
        jumps=tuple((rng.uniform(0, 20), rng.choice((-7200.0, -1.0, 3600.0, 90_000.0))) for _ in range(rng.choice((0, 0, 0, 1, 3)))),
        locked=rng.random() < 0.04,
        retry_failed=number > 0 and rng.random() < 0.1,
        limit=rng.randrange(1, 60) if rng.random() < 0.06 else None,
        settle=rng.choice(("worst", "truth")) if number and rng.random() < 0.1 else None,
        rows=rows,
        keys=dict(change),
    )
