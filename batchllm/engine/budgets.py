"""All budgets of a run as allowances: dollars and tokens, for the store's whole life, a UTC day or month, and for limit groups; real and simulated apart.

What earlier runs used is counted from the store by the day of sending. The trap: a day's cap that a run begins without can't be set later, because nobody has
counted for it; so that is refused, and a cap that is there may be raised, lowered and taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from decimal import Decimal
from typing import Any

from batchllm.admit import Allowance, Purse
from batchllm.admit.allowance import Booked
from batchllm.admit.windows import DAY, MONTH, Window, clock_words
from batchllm.core import json
from batchllm.core.money import PICO_PER_USD, text_usd
from batchllm.spec import JobSpec
from batchllm.store.settle import Part
from batchllm.store.windows import DayUse

_BUDGETS: tuple[tuple[str, bool, Window | None], ...] = (
    ("usd_per_day", False, DAY),
    ("tokens", True, None),
    ("tokens_per_day", True, DAY),
    ("tokens_per_month", True, MONTH),
)
"""Keys of `budget` besides `usd`: (key, whether it counts tokens, its window)."""
KEYS = frozenset({"budget.usd", *(f"budget.{key}" for key, _, _ in _BUDGETS)})


def is_budget(key: str) -> bool:
    """Whether a key of the spec has a say in budgets."""
    return key.startswith("budget.") or (key.startswith("limit_groups.") and key.rpartition(".")[2] in {"usd_per_day", "share"})


def has_usd_cap(spec: JobSpec, name: str) -> bool:
    """Whether any cap in dollars holds for a model."""
    groups = (group for group in spec.limit_groups.values() if name in group.models)
    return spec.budget.usd is not None or spec.budget.usd_per_day is not None or any(group.usd_per_day is not None for group in groups)


def has_token_cap(spec: JobSpec) -> bool:
    """Whether any cap in tokens holds."""
    budget = spec.budget
    return any(value is not None for value in (budget.tokens, budget.tokens_per_day, budget.tokens_per_month))


def _pico(usd: Decimal | None, share: float = 1.0) -> int | None:
    """Rounded down: a cap is never a fraction above what was said."""
    return None if usd is None else int(usd * Decimal(str(share)) * PICO_PER_USD)


def cap_of(spec: JobSpec) -> int | None:
    """`budget.usd`, in pico-dollars."""
    return _pico(spec.budget.usd)


def _value(spec: JobSpec, name: str) -> int | None:
    """The cap that a key sets, in pico-dollars or tokens."""
    first, *path, key = name.split(".")
    if first == "limit_groups":
        group = spec.limit_groups[path[0]]
        return _pico(group.usd_per_day, group.share)
    value = getattr(spec.budget, key)
    return value if key.startswith("tokens") else _pico(value)


class Budgets:
    """One per run."""

    def __init__(self, spec: JobSpec, *, purses: dict[bool, Purse], used: Collection[DayUse], utc: float) -> None:
        self._purses = purses
        self._by_kind: dict[bool, list[Allowance]] = {}
        self._members = {name: frozenset(group.models) for name, group in spec.limit_groups.items()}
        self.unbounded = sum(day.unbounded for day in used) if has_token_cap(spec) else 0
        """Earlier requests that may have been billed, for nobody knows how many tokens: no cap can count them."""
        waits = spec.budget.when_used_up == "wait"
        for simulated, purse in purses.items():
            allowances = [Allowance("budget.usd", purse)]
            for key, of_tokens, window in _BUDGETS:
                name = f"budget.{key}"
                if _value(spec, name) is not None:
                    allowances.append(_allowance(spec, name, used, simulated=simulated, of_tokens=of_tokens, window=window, waits=waits, utc=utc))
            for group in spec.limit_groups:
                name = f"limit_groups.{group}.usd_per_day"
                if _value(spec, name) is not None:
                    allowances.append(
                        _allowance(spec, name, used, simulated=simulated, group=group, members=self._members[group], window=DAY, waits=waits, utc=utc)
                    )
            self._by_kind[simulated] = allowances

    def of(self, model: str, *, simulated: bool) -> tuple[Allowance, ...]:
        """All that a model's requests are paid from; the first is the purse of the whole life."""
        return tuple(cap for cap in self._by_kind[simulated] if self._holds_for(cap, model))

    def _holds_for(self, cap: Allowance, model: str) -> bool:
        return cap.group is None or model in self._members[cap.group]

    def all(self, *, simulated: bool) -> tuple[Allowance, ...]:
        """Every cap of one kind of dollars."""
        return tuple(self._by_kind[simulated])

    def refusal(self, spec: JobSpec, keys: Iterable[str]) -> str | None:
        """Why these keys can't be set while the run goes on; None when they can."""
        known = {cap.name for cap in self._by_kind[False]}
        new = [key for key in keys if (key in KEYS or key.endswith(".usd_per_day")) and key not in known and _value(spec, key) is not None]
        if not new:
            return None
        return f"{', '.join(new)}: this run began without such a budget and hasn't counted for it; stop it, then run it with {' '.join(f'--set {key}=...' for key in new)}"

    def set_caps(self, spec: JobSpec) -> None:
        """Takes over changed caps."""
        for allowances in self._by_kind.values():
            for cap in allowances:
                cap.waits = cap.window is not None and spec.budget.when_used_up == "wait"
                value = _value(spec, cap.name)
                if value != cap.purse.cap_pico:
                    cap.set_cap(value)

    def settle(self, parts: Iterable[Part], *, simulated: bool) -> None:
        """Possibly billed attempts were settled by the user's word."""
        for part in parts:
            for cap in self.of(part.model, simulated=simulated):
                # Of a window that is over, nothing counts any more.
                if part.started_utc >= cap.starts_utc:
                    freed, billed = (part.tokens, part.tokens if part.billed_pico else 0) if cap.of_tokens else (part.freed_pico, part.billed_pico)
                    cap.purse.settle_pinned(freed, cost_pico=billed)


def caps_json(spec: JobSpec) -> str | None:
    """For the store's `runs`: name -> [cap, models or null], so that `status` can tell what is left. None without a budget."""
    names = ["budget.usd", *(f"budget.{key}" for key, _, _ in _BUDGETS)]
    caps: dict[str, Any] = {name: [value, None] for name in names if (value := _value(spec, name)) is not None}
    for group, limits in spec.limit_groups.items():
        value = _value(spec, f"limit_groups.{group}.usd_per_day")
        if value is not None:
            caps[f"limit_groups.{group}.usd_per_day"] = [value, list(limits.models)]
    return json.text(caps) if caps else None


def _allowance(
    spec: JobSpec,
    name: str,
    used: Collection[DayUse],
    *,
    simulated: bool,
    window: Window | None,
    waits: bool,
    utc: float,
    of_tokens: bool = False,
    group: str | None = None,
    members: frozenset[str] | None = None,
) -> Allowance:
    booked = _booked([day for day in used if day.simulated == simulated and (members is None or day.model in members)], of_tokens=of_tokens)
    began = booked(window.start(utc) if window is not None else float("-inf"))
    purse = Purse(cap_pico=_value(spec, name), spent_pico=began.spent, pinned_pico=began.pinned)
    return Allowance(name, purse, of_tokens=of_tokens, window=window, waits=waits and window is not None, utc=utc, booked=booked, group=group)


def _booked(days: Collection[DayUse], *, of_tokens: bool) -> Callable[[float], Booked]:
    """Sums from a day on. Days begin with windows, so none is cut in two."""

    def since(utc: float) -> Booked:
        late = [day for day in days if day.day_utc >= utc]
        if of_tokens:
            return Booked(sum(day.used_tokens for day in late), sum(day.pinned_tokens for day in late))
        return Booked(sum(day.spent_pico for day in late), sum(day.pinned_pico for day in late))

    return since


# Words.


def amount_words(cap: Allowance, amount: int) -> str:
    """`$1.20` or `30,000 tokens`."""
    return f"{amount:,} tokens" if cap.of_tokens else text_usd(amount)


def cap_words(cap: Allowance) -> str:
    """`budget of $5.00 a day`, `limit of $5.00 a day for the group account`."""
    size = amount_words(cap, cap.purse.cap_pico or 0)
    span = f" a {cap.window.kind}" if cap.window is not None else ""
    return f"budget of {size}{span}" if cap.group is None else f"limit of {size}{span} for the group {cap.group}"


def used_up_words(cap: Allowance, needs: int, *, now_utc: float) -> str:
    """Which budget is used up by what, and what to do about it."""
    purse = cap.purse
    assert purse.cap_pico is not None
    pinned = ""
    if purse.pinned_pico:
        pinned = f", of which {amount_words(cap, purse.pinned_pico)} is held for attempts that may have been billed (`batchllm settle` frees it by your word)"
    if purse.elsewhere_pico:
        pinned += f", {amount_words(cap, purse.elsewhere_pico)} by other runs on the account"
    left = purse.cap_pico - purse.spent_pico - purse.pinned_pico - purse.elsewhere_pico
    verb = "use" if cap.of_tokens else "cost"
    state = "is used up" if left <= 0 else f"has {amount_words(cap, left)} left, and the next request may {verb} {amount_words(cap, needs)}"
    noun = "used" if cap.of_tokens else "spent"
    return (
        f"the {cap_words(cap)} {state}: {amount_words(cap, purse.spent_pico)} {noun}, "
        f"{amount_words(cap, purse.spent_pico + purse.pinned_pico)} at most{pinned}; {mend_words(cap, now_utc=now_utc)}"
    )


def mend_words(cap: Allowance, *, now_utc: float) -> str:
    """How to go on."""
    if cap.window is None:
        return f"raise {cap.name} to go on"
    return f"it opens again at {clock_words(cap.ends_utc, now_utc)}: run again then, let runs wait for it (budget.when_used_up: wait), or raise {cap.name}"
