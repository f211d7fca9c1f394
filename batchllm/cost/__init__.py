"""Prices and what follows from them: what a usage cost, the most that a request can cost, and the documented maxima that such a bound needs.

Pure but for `updates`, which reads a fetched copy of the book from our cache: no clock, no network. Money is integer pico-dollars; an unknown price is None, never 0.
"""

from __future__ import annotations

from batchllm.cost.facts import ModelFacts, limits
from batchllm.cost.pricebook import book
from batchllm.cost.prices import Prices, Table, Tier, from_spec
from batchllm.cost.snapshot import same_or_snapshot

__all__ = ["ModelFacts", "Prices", "Table", "Tier", "book", "from_spec", "limits", "same_or_snapshot"]
