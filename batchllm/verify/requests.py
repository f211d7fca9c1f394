"""Every request of a finished job, looked at in the provider's audit log and in the ledger: it arrived once, was billed as booked, and used up a try only where it should.

Both name requests alike (row, attempt). What comes out is how much went wrong with each row on each model, by the provider's word: the only excuse that a row has for
an answer which an uninterrupted run would not have given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from batchllm.simulator.audit import Record
from batchllm.simulator.faults import BY_NAME
from batchllm.verify.bill import name_of
from batchllm.verify.findings import Findings
from batchllm.verify.ledger import Entry

BETTER = frozenset({"invalid_output", "truncated"})
"""Outcomes of answers that came and weren't good enough."""
_REFUSALS = frozenset({"outage", "limit", "concurrency", "refuse", "529", "498", "slow_down", "resource_unavailable", "402_retry_after"})
"""What the audit calls faults that say "not now", or that nobody is there; further those that begin with 429 and 503."""
_PAID = frozenset(
    {"500", "502", "504", "524", "stall", "stall_mid", "half_json", "html_200", "empty_200", "error_200", "finish_error", "no_choices"}
    | {"stream_error", "stream_no_finish", "stream_cut", "stream_stall_comments"}
)
"""Faults of which a row bears three, whatever `max_attempts` says."""
_MOST_PAID = 3


class Tries:
    """By (row key, model), the requests that count as tries of a row."""

    def __init__(self, *, most: int, timeout_seconds: float) -> None:
        self._most = most
        self._timeout_seconds = timeout_seconds
        self._by_row: dict[tuple[int, str], list[Record]] = defaultdict(list)

    def add(self, entry: Entry, record: Record) -> None:
        """One more."""
        self._by_row[entry.row_key, entry.model].append(record)

    def used_up(self, row_key: int, model: str) -> bool:
        """Whether enough went wrong with a row for it to fail on a model; refusals don't count."""
        found = self._by_row.get((row_key, model), [])
        hard = any(self._is_hard(record) for record in found)
        return len(found) >= (min(self._most, _MOST_PAID) if hard else self._most)

    def _is_hard(self, record: Record) -> bool:
        # What came too late, or would have, is a timeout, which counts as hard.
        return record.fault in _PAID or (not record.delivered and (_group(record.fault) != "transient" or record.seconds >= self._timeout_seconds))


def check_requests(records: Iterable[Record], entries: Mapping[tuple[int, int], Entry], tries: Tries, findings: Findings) -> None:
    """Each request, in both logs. Fills `tries`."""
    arrived: set[tuple[int, int]] = set()
    add = findings.add
    for record in records:
        name = name_of(record)
        entry = entries.get(name)
        # Without the job's id, which is another one each time.
        words = "row_key {}, attempt {}".format(*name)
        if name in arrived:
            add(f"{words} arrived twice")
        arrived.add(name)
        if entry is None:
            add(f"{words} arrived and is not in the ledger")
            continue
        cost = record.cost_pico or 0
        if entry.reserved_pico is None or cost > entry.reserved_pico:
            add(f"{words} ({record.fault}) was billed {cost}, reserved were {entry.reserved_pico}")
        if entry.settled is None:
            if entry.billed == "yes" and entry.cost_pico != cost:
                add(f"{words} ({record.fault}) was billed {cost}, the ledger says {entry.cost_pico}")
            if entry.billed == "no" and cost:
                add(f"{words} ({record.fault}) was billed {cost}, the ledger says that it was not ({entry.outcome})")
        # A refusal that came too late is a timeout.
        not_now = _refused(record.fault) and (record.delivered or record.status is None)
        if not_now and entry.counted:
            add(f"{words}: a refusal ({record.fault}) used up an attempt")
        bad = entry.outcome in BETTER and bool(entry.counted)
        if not not_now and (not record.delivered or bad or _group(record.fault) in ("transient", "permanent")):
            tries.add(entry, record)
    for name, entry in entries.items():
        if name not in arrived and entry.outcome != "cancelled":
            add(f"row_key {entry.row_key}, attempt {entry.attempt}: the ledger says {entry.outcome}, nothing arrived")
        if entry.counted and entry.outcome == "cancelled":
            add(f"row_key {entry.row_key}, attempt {entry.attempt}: a cut attempt used up a try")


def _refused(fault: str | None) -> bool:
    """Whether the provider said "not now", or was not there."""
    return fault is not None and (fault in _REFUSALS or fault.startswith(("429", "503")))


def _group(fault: str | None) -> str | None:
    return BY_NAME[fault].group if fault in BY_NAME else None
