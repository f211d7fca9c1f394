"""Prices and what follows from them: what a usage cost, the most that a request can cost, and the documented maxima that such a bound needs.

Pure: no clock, no network, no environment. Money is integer pico-dollars; an unknown price is None, never 0.
"""

from __future__ import annotations

from batchllm.cost.facts import ModelFacts, limits
from batchllm.cost.pricebook import book
from batchllm.cost.prices import Prices, Tier, from_spec
from batchllm.cost.snapshot import same_or_snapshot

__all__ = ["ModelFacts", "Prices", "Tier", "book", "from_spec", "limits", "same_or_snapshot"]
