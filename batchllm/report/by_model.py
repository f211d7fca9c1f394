"""Models side by side: what an A/B split or a ladder shows of each - cost, speed, validity, length, agreement with a reference column.

The trap: the models of a ladder don't see the same rows (the stronger one gets the hard ones), so only a split compares like with like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batchllm.core.errors import Problem, SpecError
from batchllm.core.money import text_usd, usd_from_pico
from batchllm.report.text import columns
from batchllm.store.compare import answers_with_input, model_attempts, model_rows
from batchllm.store.read import StoreReader, snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFigures:
    """One model's figures; None where there is nothing to say."""

    model: str
    ok: int
    failed: int
    attempts: int
    cost_pico: int | None
    """Of all its attempts; None: no price is known."""
    simulated: bool
    latency_seconds: float | None
    """Mean over accepted answers, as all that follows."""
    output_tokens: float | None
    characters: float | None
    valid: float | None
    """Good answers among those that came whole, 0 to 1; None where none came."""
    compared: int = 0
    """Answers that have a reference value."""
    agreed: int = 0

    @property
    def agreement(self) -> float | None:
        """Share of answers that equal their reference value."""
        return self.agreed / self.compared if self.compared else None

    def as_dict(self, *, gold: bool) -> dict[str, Any]:
        """For `status --by-model --json`."""
        figures = {
            "model": self.model,
            "rows": {"ok": self.ok, "failed": self.failed},
            "attempts": self.attempts,
            "cost_usd": usd_from_pico(self.cost_pico) if self.cost_pico is not None else None,
            "latency_seconds": self.latency_seconds,
            "output_tokens": self.output_tokens,
            "characters": self.characters,
            "valid": self.valid,
        }
        return figures | {"agreement": self.agreement, "compared": self.compared} if gold else figures


def by_model(reader: StoreReader, gold: str | None) -> list[ModelFigures]:
    """Figures of every model that was asked, in the order of their names. `gold`: a kept input column to compare answers with; SpecError when none was kept."""
    with snapshot(reader) as connection:
        rows, attempts = model_rows(connection), model_attempts(connection)
        agreed = _agreement(connection, gold) if gold is not None else {}
    return [
        ModelFigures(
            model=name,
            ok=rows.get(name, {}).get("ok", 0),
            failed=rows.get(name, {}).get("failed", 0),
            attempts=asked["attempts"],
            cost_pico=asked["cost_pico"],
            simulated=bool(asked["simulated"]),
            **{key: rows.get(name, {}).get(key) for key in ("latency_seconds", "output_tokens", "characters")},
            valid=asked["good"] / (asked["good"] + asked["invalid"]) if asked["good"] + asked["invalid"] else None,
            compared=agreed.get(name, (0, 0))[0],
            agreed=agreed.get(name, (0, 0))[1],
        )
        for name, asked in sorted(attempts.items())
    ]


def _agreement(connection: Any, gold: str) -> dict[str, tuple[int, int]]:
    """Model -> (answers with a reference, those that equal it)."""
    found: dict[str, tuple[int, int]] = {}
    kept: dict[str, None] = {}
    answers = 0
    for model, output, parsed, given in answers_with_input(connection):
        answers += 1
        kept |= dict.fromkeys(given or ())
        reference = (given or {}).get(gold)
        if reference is None:
            continue
        compared, agreed = found.get(model, (0, 0))
        found[model] = (compared + 1, agreed + _equal(_value(parsed, output, gold), reference))
    if answers and gold not in kept:
        have = f"kept are {', '.join(kept)}" if kept else "no column is kept"
        raise SpecError(
            Problem(
                file="--gold", message=f"no answer has a kept column {gold!r} ({have}); name it under `output.keep`, and run the job in a new store"
            )
        )
    return found


def _value(parsed: Any, output: str | None, gold: str) -> Any:
    """What of an answer is compared: the property of the column's name, the only property, the value itself, or the text."""
    if isinstance(parsed, dict):
        if gold in parsed:
            return parsed[gold]
        return next(iter(parsed.values())) if len(parsed) == 1 else None
    return parsed if parsed is not None else output


def _equal(value: Any, reference: Any) -> bool:
    """Texts by their letters: `Positive ` is `positive`, and the cell `5` is the number 5."""
    if value == reference and isinstance(value, bool) == isinstance(reference, bool):
        return True
    return _plain(value) == _plain(reference) is not None


def _plain(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return " ".join(str(value).split()).casefold() if isinstance(value, str | int | float) else None


def model_lines(figures: list[ModelFigures], *, gold: str | None) -> list[str]:
    """A table for a terminal."""
    head = (
        "model",
        "ok",
        "failed",
        "requests",
        "spent",
        "per ok row",
        "latency",
        "tokens out",
        "valid",
        *((f"= {gold}",) if gold is not None else ()),
    )
    table = [head, *(_cells(one, gold=gold is not None) for one in figures)]
    return columns(table, right=frozenset(range(1, len(head))))


def _cells(one: ModelFigures, *, gold: bool) -> tuple[str, ...]:
    def share(value: float | None) -> str:
        return f"{100 * value:.1f} %" if value is not None else "-"

    spent = text_usd(one.cost_pico) + (" simulated" if one.simulated else "") if one.cost_pico is not None else "unknown"
    each = text_usd(one.cost_pico // one.ok) if one.cost_pico is not None and one.ok else "-"
    cells = (
        one.model,
        f"{one.ok:,}",
        f"{one.failed:,}",
        f"{one.attempts:,}",
        spent,
        each,
        f"{one.latency_seconds:.2f} s" if one.latency_seconds is not None else "-",
        f"{one.output_tokens:.1f}" if one.output_tokens is not None else "-",
        share(one.valid),
    )
    return (*cells, f"{share(one.agreement)} of {one.compared:,}") if gold else cells
