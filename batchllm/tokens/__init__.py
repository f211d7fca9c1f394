"""Input tokens before they are sent: an estimate to pace by, a bound to reserve money by. Reads vocabularies that are on this machine, downloads none."""

from __future__ import annotations

from batchllm.tokens.caps import output_cap
from batchllm.tokens.counters import Counter, counter
from batchllm.tokens.embedding import of_embedding
from batchllm.tokens.learnt import Learnt
from batchllm.tokens.quantile import Lengths

__all__ = ["Counter", "Learnt", "Lengths", "counter", "of_embedding", "output_cap"]
