"""How many requests are in flight at once where no limit says it: enough to use a declared rate up, carefully more where limits are to be found out.

Never more than the process may open sockets. The trap: a server of one's own has no limits to run into, it just becomes slow; `Saturation` finds its throughput.
"""

from __future__ import annotations

import ipaddress
import math
import resource
from urllib.parse import urlsplit

from batchllm.engine.lane import paced
from batchllm.engine.packing import MOST_INPUTS
from batchllm.spec import JobSpec, ModelSpec

MOST_WORKERS = 4096
"""Of one model."""
OWN_SERVER_FIRST_SLOTS = 4
_UNKNOWN_SLOTS = 256
_UNKNOWN_FIRST_SLOTS = 16
_LATENCY_GUESS_SECONDS = 30.0
_OWN_SERVERS = frozenset({"vllm", "sglang", "llamacpp", "ollama"})


def in_flight(spec: JobSpec, model: ModelSpec) -> tuple[float, float | None]:
    """For one model: (most requests in flight, how many to begin with where the limits are to be found out)."""
    limits = model.limits
    if limits.concurrency is not None:
        return (limits.concurrency, None)
    most = float(spec.concurrency) if spec.concurrency is not None else math.inf
    if limits.rpm is not None:
        # Enough to use the rate up at a long latency; the buckets, not the slots, hold it down.
        return (min(most, max(16.0, min(1024.0, limits.rpm / 60 * _LATENCY_GUESS_SECONDS))), None)
    if paced(limits) or limits.unlimited or spec.concurrency is not None:
        return (min(most, float(_UNKNOWN_SLOTS)) if spec.concurrency is None else most, None)
    return (_UNKNOWN_SLOTS, _UNKNOWN_FIRST_SLOTS)


def is_own_server(model: ModelSpec, base_url: str) -> bool:
    """Whether a model runs on a server of the user's own, which has a throughput rather than limits."""
    if model.quirks is not None:
        return model.quirks.name in _OWN_SERVERS
    if model.provider == "ollama":
        return True
    host = urlsplit(base_url).hostname or ""
    if model.provider != "openai-compatible" or not host:
        return False
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".lan"))


def width_of(spec: JobSpec, slots: float) -> int:
    """Workers of a lane: one for each row in flight."""
    rows = slots * MOST_INPUTS if spec.endpoint == "embeddings" else slots
    return int(min(rows, MOST_WORKERS))


def most_sockets() -> int:
    """How many connections the process may open, after asking for all that it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (ValueError, OSError):
        pass
    return max(8, int(min(soft, 1_000_000)) - 64)
