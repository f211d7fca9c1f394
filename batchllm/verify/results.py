"""The results file of a finished job against that of an uninterrupted run: the same answers, row by row, unless the provider's log says why not.

Excuses are few and checked: a row bore too many faults and failed or moved to the next model; an answer that wasn't good enough had fewer tries to become better; a
stream broke off before its counts. The trap: a row may have been sent for another one that asks the same, even for one that is no longer in the input.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batchllm.verify.findings import Findings
from batchllm.verify.plan import Plan
from batchllm.verify.requests import BETTER, Tries

Reference = Callable[[tuple[str, ...] | None], list[dict[str, Any]]]
"""The results of an uninterrupted run, on the plan's models or on these."""
_DIFFERS = ("attempts", "latency_seconds", "cost_usd", "shared_from")
"""Who shares whose answer is looked at apart: where a row failed, another one was sent instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """What the store knows of the finished job."""

    keys: Mapping[int, int]
    """Row -> its key."""
    gone: Mapping[int, Collection[int]]
    """Key of a row -> keys of those with the same request that are no longer in the input; they may have been asked for it."""
    asked: Collection[tuple[int, str]]
    """(row key, model) of every request."""


class Results:
    """One per finished job."""

    def __init__(self, plan: Plan, findings: Findings, store: Store, tries: Tries) -> None:
        self._plan = plan
        self._findings = findings
        self._store = store
        self._tries = tries

    def check(self, lines: list[dict[str, Any]], reference: Reference) -> None:
        """Looks at every line."""
        calm = reference(None)
        if [line["row"] for line in lines] != list(range(len(calm))):
            self._findings.add(f"the results are not one line per row in input order: {len(lines)} lines for {len(calm)} rows")
            return
        self._check_shared(lines)
        self._check_form(lines)
        twins = self._twins()
        others: dict[str, list[dict[str, Any]]] = {}
        for line, wanted in zip(lines, calm, strict=True):
            if self._alike(line) == self._alike(wanted):
                continue
            model, row_key = line["model"], self._store.keys[line["row"]]
            if self._plan.keys.get("stream") and line["usage"] is None and self._alike(line) == self._alike({**wanted, "usage": None}):
                # The stream broke off between the end of the answer and its counts.
                continue
            if model is not None and model != wanted["model"]:
                if model not in others:
                    others[model] = reference((model,))
                asked_for_it = (*twins[line["row"]], *self._store.gone.get(row_key, ()))
                if self._alike(line) == self._alike(others[model][line["row"]]) and any(
                    self._may_fall_back(key, wanted["model"]) for key in asked_for_it
                ):
                    continue
            better = _code(line) in BETTER
            if better and model == wanted["model"] and _code(line) == _code(wanted):
                # Tries that were lost to faults are fewer tries to get it right.
                continue
            if model is not None and (better or (line["error"] or {}).get("retryable")) and self._tries.used_up(row_key, model):
                continue
            self._findings.add(f"row {line['row']} is {self._alike(line)}, of an uninterrupted run {self._alike(wanted)}")

    def _alike(self, line: dict[str, Any]) -> dict[str, Any]:
        """What must be the same."""
        kept = {name: value for name, value in line.items() if name not in _DIFFERS}
        if _code(line) in BETTER:
            # The last of the answers, and what was wrong with it.
            kept = {"row": line["row"], "model": line["model"], "code": _code(line), "error": None}
        if kept["error"] is not None and self._plan.final_rows is not self._plan.rows:
            # Messages name the line that a row had when it was read.
            kept["error"] = {**kept["error"], "message": None}
        return kept

    def _may_fall_back(self, row_key: int, first: str) -> bool:
        moved = self._plan.keys["retry"]["on_outage"] == "fallback" or any(life.locked for life in self._plan.lives)
        return moved or self._tries.used_up(row_key, first)

    def _check_form(self, lines: list[dict[str, Any]]) -> None:
        """Answers have the form that was asked for, and what has it nowhere was asked for everywhere."""
        if not self._plan.is_formed:
            return
        output = self._plan.keys["output"]
        ladder = output["on_invalid"].get("escalate", ())
        for line in lines:
            value = line["parsed"]
            if line["status"] == "ok":
                fits = value in output["choices"] if "choices" in output else _fits(value, least=16 if "check" in output else 0)
                self._findings.check(fits, f"row {line['row']} is ok with {value}")
            elif _code(line) in BETTER:
                for model in ladder:
                    asked = (self._store.keys[line["row"]], model) in self._store.asked
                    self._findings.check(asked, f"row {line['row']} failed on {line['model']}, and {model} was not asked")

    # Rows that ask the same.

    def _groups(self) -> Iterator[list[int]]:
        """Rows that share an answer, in input order."""
        groups: dict[str, list[int]] = defaultdict(list)
        for row, line in enumerate(self._plan.final_rows):
            if isinstance(line, dict) and "text" in line:
                groups[line["text"]].append(row)
        yield from groups.values()

    def _twins(self) -> dict[int, list[int]]:
        """Row -> keys of the rows that may have been sent for it."""
        keys = self._store.keys
        twins = {row: [key] for row, key in keys.items()}
        if "temperature" in self._plan.keys["request"]:
            for group in self._groups():
                together = [keys[row] for row in group]
                twins |= {row: together for row in group}  # noqa: C420 - nobody changes the list
        return twins

    def _check_shared(self, lines: list[dict[str, Any]]) -> None:
        """Of equal rows the lowest one with a good answer was sent, and the others share it."""
        if "temperature" not in self._plan.keys["request"]:
            for line in lines:
                self._findings.check(line["shared_from"] is None, f"row {line['row']} shares the answer of {line['shared_from']}")
        elif self._plan.final_rows is self._plan.rows and not any(life.retry_failed for life in self._plan.lives):
            # Else rows were put back whose answers others had shared by then.
            for group in self._groups():
                good = [lines[row] for row in group if lines[row]["status"] == "ok"]
                for line in good:
                    first = None if line is good[0] else good[0]["custom_id"]
                    if line["shared_from"] != first:
                        self._findings.add(f"row {line['row']} shares the answer of {line['shared_from']}, not of {first}")


def _fits(value: Any, *, least: int) -> bool:
    return (
        isinstance(value, dict) and set(value) == {"label", "score"} and value["label"] in ("good", "bad", "odd") and least <= value["score"] <= 100
    )


def _code(line: Mapping[str, Any]) -> str | None:
    return None if line["error"] is None else str(line["error"]["code"])
