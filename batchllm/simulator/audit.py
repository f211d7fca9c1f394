"""The oracle: what arrived, what was executed, billed and delivered, as the provider's own bill would say it.

An answer that was executed but never arrived costs money all the same; that is the difference this log exists for. Totals count everything, the list of
records is bounded.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from batchllm.core import json
from batchllm.core.money import usd_from_pico


@dataclass(slots=True, kw_only=True)
class Record:
    """One request to its end. Not frozen: one is made per request, and freezing triples that cost."""

    time: float
    """Arrival, seconds since 1970 UTC."""
    now: float
    """Arrival on the loop's clock."""
    seconds: float
    """From arrival to the end of the reply (or of the connection)."""
    request_id: str
    client_request_id: str | None
    """The client's `X-Client-Request-Id`."""
    model: str | None
    status: int | None
    """HTTP status; None when no status line was sent."""
    fault: str | None
    """Name of the fault it met; `limit` for a refusal of the buckets, `concurrency`, `outage`, `invalid` for errors of the client's own."""
    executed: bool
    """Whether the model worked."""
    billed: bool
    delivered: bool
    """Whether the whole reply was handed over."""
    input_tokens: int | None
    """As billed; None when nothing was executed."""
    output_tokens: int | None
    cost_pico: int | None
    """0 when not billed; None when the model's price is unknown."""
    prompt_digest: str | None
    """Start of the request's sha256 (model, messages, parameters; not the output cap, not `stream`)."""
    account: str | None = None
    """Start of the sha256 of its key, where the simulator has several keys."""

    def as_dict(self) -> dict[str, Any]:
        """The line of `/_audit`."""
        return {
            "time": self.time,
            "now": self.now,
            "seconds": self.seconds,
            "request_id": self.request_id,
            "client_request_id": self.client_request_id,
            "model": self.model,
            "status": self.status,
            "fault": self.fault,
            "executed": self.executed,
            "billed": self.billed,
            "delivered": self.delivered,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": None if self.cost_pico is None else usd_from_pico(self.cost_pico),
            "cost_pico": self.cost_pico,
            "prompt_digest": self.prompt_digest,
            "account": self.account,
        }


class Audit:
    """The log and its running totals."""

    def __init__(self, keep: int) -> None:
        self.records: deque[Record] = deque(maxlen=keep)
        self.requests = 0
        self.executed = 0
        self.billed = 0
        self.delivered = 0
        self.billed_undelivered = 0
        self.refusals = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost_pico = 0
        self.unpriced = 0
        self.by_status: Counter[str] = Counter()
        self.by_fault: Counter[str] = Counter()
        self.by_account: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Books one finished request."""
        self.records.append(record)
        self.requests += 1
        self.by_status["none" if record.status is None else str(record.status)] += 1
        if record.fault is not None:
            self.by_fault[record.fault] += 1
        if record.account is not None:
            self.by_account[record.account] += 1
        if record.status == 429:
            self.refusals += 1
        self.delivered += record.delivered
        self.executed += record.executed
        if record.billed:
            self.billed += 1
            self.billed_undelivered += not record.delivered
            self.input_tokens += record.input_tokens or 0
            self.output_tokens += record.output_tokens or 0
            if record.cost_pico is None:
                self.unpriced += 1
            else:
                self.cost_pico += record.cost_pico

    def lines(self) -> Iterator[bytes]:
        """The kept records as JSONL, in the order in which they ended."""
        for record in list(self.records):
            yield json.dumps(record.as_dict()) + b"\n"

    def summary(self) -> dict[str, Any]:
        """The totals. `sent_max` is the most requests under one client request id among the kept records: above 1, something was sent twice under one name."""
        sent = Counter(record.client_request_id for record in self.records if record.client_request_id is not None)
        return {
            "requests": self.requests,
            "executed": self.executed,
            "billed": self.billed,
            "delivered": self.delivered,
            "billed_undelivered": self.billed_undelivered,
            "refusals": self.refusals,
            "by_status": dict(sorted(self.by_status.items())),
            "by_fault": dict(sorted(self.by_fault.items())),
            "by_account": dict(sorted(self.by_account.items())),
            "tokens": {"input": self.input_tokens, "output": self.output_tokens},
            "cost_usd": usd_from_pico(self.cost_pico),
            "cost_pico": self.cost_pico,
            "unpriced": self.unpriced,
            "sent_max": max(sent.values(), default=0),
            "records_kept": len(self.records),
        }
