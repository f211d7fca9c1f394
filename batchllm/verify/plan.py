"""A seed becomes a plan: the job, the provider's moods, and the lives of the processes that work on it - everything that will happen, as plain values.

Nothing else draws what happens, so a seed replays exactly. The trap: a new kind of trouble drawn in the middle changes all seeds' plans; that is fine, a
seed is only as old as the code that it is run with.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from batchllm.simulator.faults import KINDS

Line = dict[str, Any] | str
"""A record, or a line as it stands."""
End = Literal["finish", "kill", "kill_at", "cancel", "interrupt"]
PRICES: dict[str, dict[str, float]] = {"a": {"input": 1, "output": 2}, "b": {"input": 3, "output": 5}}
"""USD per million tokens."""
CAP_ROOM_USD = 100.0
"""More than any plan's job costs."""
_TRANSIENT = tuple(kind.name for kind in KINDS if kind.group == "transient" and kind.wire != "stream")
_PERMANENT = ("invalid_request", "content_policy", "content_filter", "refusal", "413", "context_length", "oversize")
_ODD = ("usage_missing", "usage_zero", "usage_cached", "usage_cache_write", "finish_null", "length", "empty")
_HEALED = ("500*1", "503_retry_after*2", "429_bare*3", "reset_mid*2", "stall*1", "504*1", "502*2", "half_json*1", "slow_down*1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Commits that fail."""

    kind: Literal["full", "fsync"]
    """`fsync`: it was written all the same."""
    first: int
    """The number of the first commit that fails, from 1."""
    commits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process that works on the job."""

    end: End = "finish"
    at: float = 0.0
    """When it ends: events (commits, replies, readings of the clock, ...) for `kill`, seconds for the others."""
    wait_seconds: float = 0.0
    """Before it starts."""
    disk: Trouble | None = None
    slow_share: float = 0.0
    """Share of commits that take `slow_seconds`."""
    slow_seconds: float = 0.0
    race: float = 0.0
    """Share of queued things that are committed at once, not with what follows them in the same step."""
    jumps: tuple[tuple[float, float], ...] = ()
    """(seconds after its start, seconds by which wall time jumps)."""
    locked: bool = False
    """The provider refuses the key."""
    retry_failed: bool = False
    limit: int | None = None
    settle: Literal["worst", "truth"] | None = None
    """Before it starts, possibly billed attempts are settled by this word."""
    rows: tuple[Line, ...] | None = None
    """The input from now on; None: as before."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the spec, for this life only."""

    @property
    def calm(self) -> bool:
        """Whether requests leave when they were let through the door."""
        return self.slow_share * self.slow_seconds == 0 and self.disk is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that happens under one seed."""

    seed: int
    rows: tuple[Line, ...]
    keys: Mapping[str, Any]
    """The spec, without its input."""
    sims: Mapping[str, Mapping[str, Any]]
    """Settings of each model's simulator."""
    honest: bool
    """Whether the declared limits are the provider's own."""
    lives: tuple[Life, ...]

    @property
    def final_rows(self) -> tuple[Line, ...]:
        """The input at the end."""
        return next((life.rows for life in reversed(self.lives) if life.rows is not None), self.rows)


def plan_of(seed: int, *, rows: int = 200) -> Plan:
    """The plan of a seed, for jobs of about this many rows."""
    rng = random.Random(seed)
    named = rng.random() < 0.6
    count = max(5, int(rows * rng.uniform(0.6, 1.3)))
    lines = _rows(rng, count, named=named)
    models = ["a", "b"] if rng.random() < 0.5 else ["a"]
    sims, limits, honest = _provider(rng, models, count)
    keys: dict[str, Any] = {
        "name": "t",
        "prompt": "{{ text }}",
        "request": {"max_tokens": rng.choice((5, 20, 60))},
        "models": {name: {"provider": "simulated", "model": name, "price": PRICES[name], "limits": limits[name]} for name in models},
        "durability": "normal",
        "keep_bodies": rng.choice(("none", "none", "none", "failed", "all")),
        "on_change": "rerun",
        "retry": {
            "timeout_seconds": rng.choice((3, 8, 30)),
            "max_attempts": rng.choice((2, 4, 8, 20)),
            "max_seconds": rng.choice((5, 60)),
            "outage_seconds": rng.choice((60, 1800)),
            "on_outage": rng.choice(("wait", "fallback")) if len(models) == 2 else "wait",
        },
    }
    if len(models) == 2:
        keys["routes"] = [{"use": models}] if rng.random() < 0.7 else [{"when": "tokens > 20", "use": ["b", "a"]}, {"use": models}]
        if rng.random() < 0.3 and honest:
            keys["limit_groups"] = {"both": {"models": models, "concurrency": rng.choice((3, 10))}}
    if rng.random() < 0.5:
        keys["concurrency"] = rng.choice((1, 4, 12, 40))
    if rng.random() < 0.3:
        keys["output"] = {"keep": ["tag"]}
    return Plan(seed=seed, rows=tuple(lines), keys=keys, sims=sims, honest=honest, lives=tuple(_lives(rng, lines, keys, named=named)))


def _text(rng: random.Random, number: int) -> str:
    words = f"row {number} says " + " ".join(
        rng.choice(("hello", "there", "again", "caf\u00e9", "one two", "\u4f60\u597d")) for _ in range(rng.randrange(1, 12))
    )
    luck = rng.random()
    if luck < 0.01:
        return f"{words} [[sim:{rng.choice(_PERMANENT)}]]"
    if luck < 0.02:
        return f"{words} [[sim:{rng.choice(_ODD)}]]"
    if luck < 0.04:
        return f"{words} [[sim:{rng.choice(_HEALED)}]]"
    return words


def _row(rng: random.Random, number: int, *, named: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"text": _text(rng, number), "tag": number % 7}
    return {"custom_id": f"r{number}", **row} if named else row


def _rows(rng: random.Random, count: int, *, named: bool) -> list[Line]:
    lines: list[Line] = [_row(rng, number, named=named) for number in range(count)]
    # The first rows decide what the input looks like; the odd ones come later.
    for _ in range(rng.choice((0, 0, 2, 5))):
        place = rng.randrange(min(30, count - 1), count)
        lines[place] = rng.choice(
            (
                '{"text": "cut',
                "[1, 2]",
                {"custom_id": f"x{place}", "tag": 1},
                lines[rng.randrange(count)],
            )
        )
    return lines


def _provider(rng: random.Random, models: Sequence[str], count: int) -> tuple[dict[str, dict[str, Any]], dict[str, Any], bool]:
    """(settings by model, declared limits by model, whether they agree)."""
    rate = rng.choice((0.0, 0.05, 0.15, 0.3))
    kinds = tuple(rng.sample(_TRANSIENT, rng.randrange(1, 4))) if rng.random() < 0.4 else None
    honest = rng.random() < 0.75
    sims: dict[str, dict[str, Any]] = {}
    limits: dict[str, Any] = {}
    for name in models:
        sim: dict[str, Any] = {
            "seed": rng.randrange(1000),
            "latency_ms": rng.choice((5.0, 100.0, 600.0, 1500.0)),
            "latency_sigma": rng.choice((0.0, 0.5, 1.0)),
            "faults": rate,
            "fault_kinds": kinds,
            "burst_seconds": rng.choice((1, 1, 10, 60)),
            "refusals_count": rng.random() < 0.3,
        }
        if rng.random() < 0.6:
            sim["rpm"] = int(count * rng.choice((3, 10, 60)))
        if rng.random() < 0.4:
            sim["tpm"] = int(count * rng.choice((200, 2000)))
        if rng.random() < 0.2:
            sim["concurrency"] = rng.choice((2, 8))
        if rng.random() < 0.25:
            start = rng.uniform(0, 20)
            sim["outages"] = ((start, start + rng.choice((3.0, 30.0, 400.0))),)
        sims[name] = sim
        declared = {key: sim[key] for key in ("rpm", "tpm", "concurrency") if key in sim}
        if honest:
            # Without a limit there is nothing to be found out from refusals that come anyway.
            limits[name] = (
                {**declared, "burst_seconds": sim["burst_seconds"]} if declared else rng.choice((None, "none")) if kinds is None else "none"
            )
        else:
            # Told wrongly, or not at all and to be found out.
            limits[name] = rng.choice((None, None, {"rpm": 2 * sim["rpm"]} if "rpm" in sim else None))
            sim["refusals_count"] = False
    return sims, limits, honest


def _lives(rng: random.Random, lines: Sequence[Line], keys: Mapping[str, Any], *, named: bool) -> list[Life]:
    capped = rng.random() < 0.6
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
        if capped:
            change["budget"] = {"usd": round(cap, 9)}
            cap *= rng.choice((1.0, 1.0, 1.5, 2.5, 0.9))
        if rng.random() < 0.1:
            change["deadline"] = f"{rng.choice((2, 20))}s"
        if rng.random() < 0.15:
            change["concurrency"] = rng.choice((1, 3, 20))
        rows: tuple[Line, ...] | None = None
        if changes and number and rng.random() < 0.5:
            present = _edited(rng, present, named=named)
            rows = tuple(present)
        lives.append(_life(rng, number, change, rows, deadly=deadly))
    return lives


def _life(rng: random.Random, number: int, change: Mapping[str, Any], rows: tuple[Line, ...] | None, *, deadly: bool) -> Life:
    end: End = rng.choice(("kill", "kill", "kill", "kill_at", "cancel", "interrupt", "finish")) if deadly else "finish"
    at = 10 ** rng.uniform(0.0, 3.3) if end == "kill" else rng.choice((0.3, 3.0, 30.0)) * rng.random()
    trouble = None
    if rng.random() < 0.12:
        trouble = Trouble(kind=rng.choice(("full", "fsync")), first=int(10 ** rng.uniform(0, 2.3)), commits=rng.choice((1, 3, 1_000_000)))
    slow = rng.random() < 0.2
    return Life(
        end=end,
        at=max(1, int(at)) if end == "kill" else at,
        wait_seconds=rng.choice((0.0, 0.0, 90.0)) if number else 0.0,
        disk=trouble,
        slow_share=rng.choice((0.01, 0.3)) if slow else 0.0,
        slow_seconds=rng.choice((0.05, 2.0)) if slow else 0.0,
        race=rng.choice((0.0, 0.1, 0.5)),
        jumps=tuple((rng.uniform(0, 20), rng.choice((-7200.0, -1.0, 3600.0, 90_000.0))) for _ in range(rng.choice((0, 0, 0, 1, 3)))),
        locked=rng.random() < 0.04,
        retry_failed=number > 0 and rng.random() < 0.1,
        limit=rng.randrange(1, 60) if rng.random() < 0.06 else None,
        settle=rng.choice(("worst", "truth")) if number and rng.random() < 0.1 else None,
        rows=rows,
        keys=dict(change),
    )


def _edited(rng: random.Random, present: Sequence[Line], *, named: bool) -> list[Line]:
    """The input after somebody worked on it: rows taken out, put in, moved, reworded."""
    lines = list(present)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(25, len(lines)) if len(lines) > 40 else len(lines)
        what = rng.choice(("out", "in", "move", "reword"))
        if what == "out" and len(lines) > 60:
            del lines[place : place + rng.randrange(1, 20)]
        elif what == "in":
            lines[place:place] = [_row(rng, rng.randrange(10_000, 99_999), named=named) for _ in range(rng.randrange(1, 10))]
        elif what == "move":
            lines = [*lines[:25], *lines[place:], *lines[25:place]]
        else:
            for at in range(place, min(place + 5, len(lines))):
                line = lines[at]
                if isinstance(line, dict) and "text" in line:
                    lines[at] = {**line, "text": f"{line['text']} (again {rng.randrange(1000)})"}
    return lines
