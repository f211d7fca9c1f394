"""The output cap that a request asks for, by either of its two names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def output_cap(params: Mapping[str, Any]) -> int | None:
    """The most output tokens that these parameters allow; the larger where `max_tokens` and `max_completion_tokens` are both set, since a server may
    heed either. None without a usable cap: then the model's documented maximum is the bound. A cap of 0 or below caps nothing (-1 is "endless" to some servers).
    """
    caps: list[Any] = [value for key in ("max_completion_tokens", "max_tokens") if (value := params.get(key)) is not None]
    if not caps or not all(isinstance(cap, int) and not isinstance(cap, bool) and cap > 0 for cap in caps):
        return None
    return int(max(caps))
