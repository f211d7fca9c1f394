"""The reading of a plan: every row is read, filled and routed once; tokens are counted on a sample that is drawn while reading.

A row's size is known at once, its tokens are not: counting is what takes long. So rows fall into classes by model and size, each class keeps a fair sample of
rows that are counted, and the whole is told from the sample by size. A job of a few thousand rows is counted row by row. Memory: eight bytes a row.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchllm.core.nouns import Code, Draft, Request, RowError
from batchllm.engine.answers import Answers
from batchllm.engine.plan_left import Left
from batchllm.engine.plan_models import Asked, PlanModel
from batchllm.engine.source import Source
from batchllm.engine.twin_keys import repeatable
from batchllm.rows.request import fingerprint
from batchllm.spec import JobSpec

WHOLE = 5000
"""The first rows that are to be sent, all of which are counted: a small job is counted to the last row."""
KEPT = 400
"""Counted rows that a class keeps beyond them."""
_SEEN_AT_ONCE = 200_000
"""Rows whose duplicates are known while reading; later ones are counted at the end."""
_PARTS = 64
_PREFIXES = 60
"""Prompts of a model that are compared for a common beginning."""


class Repeats:
    """How many of the values that were added had been added before; the first ones are told at once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._parts = [array("q") for _ in range(_PARTS)]
        self.added = 0
        self._at_once = 0

    def add(self, value: int) -> bool:
        """Whether it was there before, as far as that is known while reading."""
        self.added += 1
        if value in self._seen:
            self._at_once += 1
            return True
        if len(self._seen) < _SEEN_AT_ONCE:
            self._seen.add(value)
        self._parts[value % _PARTS].append(value)
        return False

    def count(self) -> int:
        """All repeats."""
        return self._at_once + self.late()

    def late(self) -> int:
        """Those that weren't told at once."""
        return sum(len(part) - len(set(part)) for part in self._parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A counted row."""

    position: int
    size: int
    asked: Asked


class Group:
    """Rows of one model and one class of sizes."""

    def __init__(self, rng: random.Random) -> None:
        self.rows = 0
        self.size = 0
        self.entries: list[Entry] = []
        self._rng = rng

    def place(self, size: int, *, early: bool) -> int | None:
        """Counts the row in; where it goes in the sample, None when it isn't drawn. `early`: it is one of the first rows."""
        self.rows += 1
        self.size += size
        if self.rows <= (room := max(len(self.entries), KEPT)) or early:
            return self.rows - 1
        at = self._rng.randrange(self.rows)
        return at if at < room else None

    def put(self, at: int, entry: Entry) -> None:
        """Takes a counted row, in place of another one when the sample is full."""
        if at == len(self.entries):
            self.entries.append(entry)
        else:
            self.entries[at] = entry

    @property
    def by_size(self) -> float:
        """What sums over the sample are multiplied by where they follow the size, as input does."""
        counted = sum(entry.size for entry in self.entries)
        return self.size / counted if counted else self.by_row

    @property
    def by_row(self) -> float:
        """What other sums are multiplied by."""
        return self.rows / max(len(self.entries), 1)


@dataclass(slots=True, kw_only=True)
class Counted:
    """What the reading found."""

    rows: int
    bad: Mapping[str, int]
    """Rows that fail before anything is sent, by code."""
    repeats: Mapping[str, int]
    """Rows whose request an earlier row has, too, by model."""
    shared: Mapping[str, int]
    """Of these, the ones that `dedupe` answers without asking, by model."""
    done: Mapping[str, int]
    """Rows that a run leaves alone, by what they are in the store: `ok` or `failed`."""
    changed: int
    """Rows with an ok answer to what they no longer ask; counted as asked again."""
    nulls: int
    """Nulls that the prompt shows as nothing."""
    groups: Mapping[tuple[str, int], Group]
    prefixes: Mapping[str, str]
    """The beginning that all prompts of a model have in common."""
    routes: Mapping[tuple[int | None, str], int]
    """Rows by (route, model)."""
    whole: bool
    """Whether every row was counted."""

    def of(self, name: str) -> list[Group]:
        """The groups of one model."""
        return [group for (model, _), group in self.groups.items() if model == name]

    def sent(self, name: str) -> int:
        """Requests that go to a model first."""
        return sum(group.rows for group in self.of(name))


def size_of(request: Request) -> int:
    """Characters of the prompt; quick, and tokens follow it."""
    size = 0
    for message in request.messages:
        content = message.get("content")
        if isinstance(content, str):
            size += len(content)
        elif isinstance(content, list):
            size += sum(len(part.get("text") or "") + 64 for part in content if isinstance(part, dict))
    return size


def _class(size: int) -> int:
    """Sizes within a fifth of each other are one class."""
    bits = size.bit_length()
    return 4 * bits + (size >> (bits - 3) & 3 if bits > 2 else 0)


class _Sharing:
    """Whether `dedupe` lets rows share answers, as the engine decides it (`twin_keys`)."""

    def __init__(self, spec: JobSpec, models: Mapping[str, PlanModel], *, reads_rows: bool, ladder: Sequence[str]) -> None:
        self._all = spec.dedupe is True
        self._may = spec.dedupe is not False and not reads_rows and spec.samples in {None, 1} and (spec.toolkit is None or self._all)
        self._models = models
        self._ladder = tuple(ladder)
        self._chains: dict[tuple[str, ...], bool] = {}

    def of(self, draft: Draft, chain: tuple[str, ...]) -> bool:
        """Whether this row shares an answer with those that ask the same."""
        if not self._may or self._all:
            return self._may
        if draft.params:
            return self._repeatable(draft, chain)
        known = self._chains.get(chain)
        if known is None:
            known = self._chains[chain] = self._repeatable(draft, chain)
        return known

    def _repeatable(self, draft: Draft, chain: tuple[str, ...]) -> bool:
        requests = [self._models[name].request(draft) for name in (*chain, *self._ladder) if name in self._models]
        return all(repeatable(request.endpoint, request.params, request.body) for request in requests)


def count(spec: JobSpec, source: Source, models: Mapping[str, PlanModel], answers: Answers, left: Left | None = None, *, seed: int = 1) -> Counted:
    """Reads the input once; `left` tells what is done already. Raises SpecError for what concerns a whole file."""
    rng = random.Random(seed)
    bad: Tally[str] = Tally()
    identities = Repeats()
    repeats = {name: Repeats() for name in models}
    shared: Tally[str] = Tally()
    done: Tally[str] = Tally()
    changed = 0
    groups: dict[tuple[str, int], Group] = {}
    routes: Tally[tuple[int | None, str]] = Tally()
    starts = {name: _Start(rng) for name in models}
    by_price = {name: _rank(model) for name, model in models.items()}
    sharing: dict[str, bool] = {}
    alike = _Sharing(spec, models, reads_rows=answers.keeps_fields, ladder=answers.ladder)
    cheapest = spec.prefer == "cheapest"
    rows = nth = to_send = 0
    for chunk in source.chunks():
        known = left.take(chunk) if left is not None else None
        for at_chunk, row in enumerate(chunk):
            nth += 1
            if not source.in_scope(row, nth - 1):
                continue
            rows += 1
            if row.identity.startswith("id:") and identities.add(hash(row.identity)):
                bad[str(Code.DUPLICATE_ID)] += 1
                continue
            one = known[at_chunk] if known is not None else None
            planned = source.plan(row, one.pin if one is not None else None)
            if isinstance(planned, RowError):
                bad[str(planned.code)] += 1
                continue
            standing = left.of(one, planned) if left is not None and one is not None else "asked"
            chain = planned.chain if not cheapest else sorted(planned.chain, key=by_price.__getitem__)
            name = next((name for name in chain if models[name].takes(planned.draft)), None)
            if name is None:
                bad[str(Code.TOO_LONG)] += 1
                continue
            model = models[name]
            request = model.request(planned.draft)
            again = repeats[name].add(hash(fingerprint(request)))
            if standing in {"ok", "failed"}:
                done[standing] += 1
                continue
            changed += standing == "changed"
            routes[planned.rule, name] += 1
            may_share = alike.of(planned.draft, planned.chain)
            sharing[name] = sharing.get(name, False) or may_share
            if again and may_share:
                shared[name] += 1
                continue
            size = size_of(request)
            key = (name, _class(size))
            group = groups.get(key)
            if group is None:
                group = groups[key] = Group(rng)
            to_send += 1
            at = group.place(size, early=to_send <= WHOLE)
            if at is not None:
                group.put(at, Entry(position=row.position, size=size, asked=model.asked(request)))
            starts[name].look(request)
        if source.limited and nth >= (source.limit or 0):
            break
    asked = {name: sum(group.rows for (model, _), group in groups.items() if model == name) for name in models}
    # Beyond the first rows, what is shared (or has a used id) was counted as if it were asked; it is taken off the sums.
    for name, found in repeats.items():
        if sharing.get(name) and (again_later := found.late()):
            # What is done already isn't in the sums.
            late = round(again_later * asked[name] / found.added)
            _take_off(groups, name, late)
            shared[name] += late
    if repeated := identities.late():
        bad[str(Code.DUPLICATE_ID)] += repeated
        for name in models:
            _take_off(groups, name, round(repeated * asked[name] / max(rows, 1)))
    return Counted(
        rows=rows,
        bad=dict(bad),
        repeats={name: found.count() for name, found in repeats.items()},
        shared=dict(shared),
        done=dict(done),
        changed=changed,
        nulls=source.drafter.nulls,
        groups=groups,
        prefixes={name: start.text for name, start in starts.items()},
        routes=dict(routes),
        whole=all(group.rows == len(group.entries) for group in groups.values()),
    )


def _take_off(groups: Mapping[tuple[str, int], Group], name: str, number: int) -> None:
    own = [group for (model, _), group in groups.items() if model == name]
    part = 1 - number / max(sum(group.rows for group in own), 1)
    for group in own:
        group.rows = round(group.rows * part)
        group.size = round(group.size * part)


def _rank(model: PlanModel) -> tuple[bool, int]:
    return (model.prices is None, model.prices.worst(1000, 300) if model.prices is not None else 0)


class _Start:
    """The beginning that prompts have in common, by a few of them."""

    def __init__(self, rng: random.Random) -> None:
        self.text = ""
        self._rng = rng
        self._looked = 0
        self._seen = 0

    def look(self, request: Request) -> None:
        """One more prompt; soon only now and then."""
        self._seen += 1
        if self._looked and (not self.text or self._rng.random() * self._seen > _PREFIXES):
            return
        text = _flat(request.messages)
        if not self._looked:
            self.text = text
        else:
            low, high = 0, min(len(self.text), len(text))
            while low < high:
                middle = (low + high + 1) // 2
                if self.text[:middle] == text[:middle]:
                    low = middle
                else:
                    high = middle - 1
            self.text = self.text[:low]
        self._looked += 1


def _flat(messages: Sequence[Mapping[str, Any]]) -> str:
    parts: list[str] = []
    for message in messages:
        content = message.get("content")
        parts.append(f"{message.get('role')}: {content if isinstance(content, str) else ''}")
        if not isinstance(content, str):
            break
    return "\n".join(parts)
